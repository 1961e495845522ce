// The memory of training against what must be there: parameters, the optimisers' state, and the activations of two batches (what a
// forward pass leaves for its backward). Each setting runs in a process of its own. Prints a table and JSON.
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "bench/synthetic.h"
#include "metrics/text_table.h"

namespace ektm::bench {
namespace {

struct Setting {
  std::string name, model;
  int64_t batch, rows;
};

struct Memory {  // MB
  double program, parameters, activations, peak;
  double needed() const { return parameters + 2 * activations; }
  double ratio() const { return (peak - program) / needed(); }
};

double peak_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

double allocated_mb() {
  const auto info = mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd) / 1048576;
}

Memory measure(const Setting& setting, int64_t threads, int64_t steps) {
  keep_freed_memory();
  use_threads(threads);
  ProblemSize size;
  size.batch = setting.batch, size.rows = setting.rows, size.batches = 2;
  const Problem problem(size);
  Memory memory{};
  {  // The libraries' own: what a step of a tiny model costs.
    ProblemSize tiny;
    tiny.batch = 16, tiny.rows = 1000, tiny.batches = 1;
    const Problem small(tiny);
    Training training(small, tiny, setting.model);
    training.time(2);
    memory.program = peak_mb();
  }
  Training training(problem, size, setting.model);
  double bytes = 0;
  for (const auto& [name, tensor] : training.stepper.state()) bytes += static_cast<double>(tensor.nbytes());
  memory.parameters = (bytes + 4.0 * static_cast<double>(training.network.parameters().count())) / 1048576;  // and their gradients
  training.time(1);
  {
    Context context;
    context.training = true;
    const double before = allocated_mb();
    const Network::Pass pass = training.network.forward(problem.batches[0], context);
    memory.activations = allocated_mb() - before;
  }
  training.time(steps);
  memory.peak = peak_mb();
  return memory;
}

// In a child, whose peak is its own.
Memory measure_apart(const Setting& setting, int64_t threads, int64_t steps) {
  int ends[2];
  EKTM_CHECK(pipe(ends) == 0);
  const pid_t child = fork();
  EKTM_CHECK(child >= 0);
  if (child == 0) {
    const Memory memory = measure(setting, threads, steps);
    const bool written = write(ends[1], &memory, sizeof memory) == sizeof memory;
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  Memory memory{};
  const bool complete = read(ends[0], &memory, sizeof memory) == sizeof memory;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EKTM_CHECK(complete && status == 0);
  return memory;
}

int run(int argc, char** argv) {
  int64_t threads = 2, steps = 4;
  bool brief = false;
  CLI::App app{"Peak memory of training against parameters, optimiser state and two batches' activations"};
  app.option_defaults()->always_capture_default();
  app.add_option("--threads", threads)->check(CLI::Range(1, 4096));
  app.add_option("--steps", steps)->check(CLI::Range(1, 100000));
  app.add_flag("--short", brief, "small and quick, for CI");
  app.footer("Example:\n  bench_memory --threads 2");
  CLI11_PARSE(app, argc, argv);
  const std::string mmoe = "{name: mmoe, experts: 8, expert_hidden: [256, 128], tower_hidden: [64]}", ektm = "{name: ektm, backbone: " + mmoe + "}";
  std::vector<Setting> settings{{"mmoe", mmoe, 4096, 100000}, {"ektm", ektm, 4096, 100000}, {"ektm", ektm, 16384, 100000}, {"ektm", ektm, 4096, 10000000}};
  if (brief) settings = {{"ektm", ektm, 256, 20000}};
  nlohmann::json json = {{"benchmark", "memory"}, {"threads", threads}};
  using Align = TextTable::Align;
  TextTable table(std::vector<Align>{Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right});
  table.row({"model", "batch", "rows", "parameters and state MB", "activations MB", "needed MB", "peak - program MB", "ratio"});
  for (const auto& setting : settings) {
    const Memory memory = measure_apart(setting, threads, steps);
    table.row({setting.name, with_commas(setting.batch), with_commas(setting.rows), fmt::format("{:.0f}", memory.parameters),
               fmt::format("{:.0f}", memory.activations), fmt::format("{:.0f}", memory.needed()), fmt::format("{:.0f}", memory.peak - memory.program),
               fmt::format("{:.2f}", memory.ratio())});
    json["settings"].push_back({{"model", setting.name}, {"batch", setting.batch}, {"rows", setting.rows}, {"parameters_mb", memory.parameters},
                                {"activations_mb", memory.activations}, {"program_mb", memory.program}, {"peak_mb", memory.peak}, {"ratio", memory.ratio()}});
  }
  std::printf("%s\n%s\n", table.to_string().c_str(), json.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace ektm::bench

int main(int argc, char** argv) { return ektm::bench::run(argc, argv); }
