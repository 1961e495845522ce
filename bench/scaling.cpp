// How the time of a training step grows with batch, vocabulary, fields, tasks, experts and threads: one of them at a time, the others
// as in the first column. Prints a table for each, and JSON.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "bench/synthetic.h"
#include "metrics/text_table.h"

namespace ektm::bench {
namespace {

struct Setting {
  ProblemSize size;
  int64_t experts = 8, threads = 2;
};

double peak_memory_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

double step_seconds(const Setting& setting, int64_t steps, const std::string& model) {
  use_threads(setting.threads);
  const Problem problem(setting.size);
  const std::string backbone = fmt::format("name: mmoe, experts: {}, expert_hidden: [256, 128], tower_hidden: [64]", setting.experts);
  Training training(problem, setting.size, model == "mmoe" ? "{" + backbone + "}" : "{name: ektm, backbone: {" + backbone + "}}");
  training.time(2);
  return median(training.time(steps));
}

int run(int argc, char** argv) {
  Setting base;
  int64_t steps = 15;
  bool brief = false;
  std::string model = "mmoe";
  CLI::App app{"Time of a training step by batch, vocabulary, fields, tasks, experts, threads"};
  app.option_defaults()->always_capture_default();
  app.add_option("--model", model)->check(CLI::IsMember({"mmoe", "ektm"}));
  app.add_option("--threads", base.threads)->check(CLI::Range(1, 4096));
  app.add_option("--steps", steps, "timed for each setting")->check(CLI::Range(1, 100000));
  app.add_flag("--short", brief, "small and quick, for CI");
  app.footer("Example:\n  bench_scaling --model ektm --threads 2");
  CLI11_PARSE(app, argc, argv);
  keep_freed_memory();
  base.size.batches = 8;
  base.size.rows = 100000;
  std::vector<int64_t> batches{256, 1024, 4096, 16384}, vocabularies{100000, 1000000, 10000000}, fields{10, 20, 40}, conversions{1, 3, 6, 12},
      experts{2, 4, 8, 16}, threads;
  for (int64_t t = 1; t <= base.threads; t *= 2) threads.push_back(t);
  if (brief) {
    steps = 3;
    base.size.batch = 256, base.size.batches = 2, base.size.rows = 20000;
    batches = {64, 256}, vocabularies = {10000, 100000}, fields = {5, 10}, conversions = {1, 2}, experts = {2, 4};
  }
  nlohmann::json json = {{"benchmark", "scaling"}, {"model", model}, {"threads", base.threads}, {"base_batch", base.size.batch}, {"dim", base.size.dim}};
  using Align = TextTable::Align;
  auto sweep = [&](const std::string& name, const std::vector<int64_t>& values, auto set) {
    TextTable table({Align::Right, Align::Right, Align::Right, Align::Right});
    table.row({name, "ms/step", "samples/s", "peak memory MB"});
    for (int64_t value : values) {
      Setting setting = base;
      set(setting, value);
      const double time = step_seconds(setting, steps, model), rate = static_cast<double>(setting.size.batch) / time;
      table.row({with_commas(value), fmt::format("{:.2f}", time * 1e3), with_commas(static_cast<int64_t>(rate)), fmt::format("{:.0f}", peak_memory_mb())});
      json["sweeps"][name].push_back({{"value", value}, {"step_ms", time * 1e3}, {"samples_per_s", rate}});
    }
    std::printf("%s\n", table.to_string().c_str());
    std::fflush(stdout);
  };
  std::printf("%s; unless it says otherwise: batch %s, %ld fields of %ld numbers, %s rows, %ld conversions, %ld experts, %ld threads. Memory only grows.\n\n",
              model.c_str(), with_commas(base.size.batch).c_str(), base.size.fields, base.size.dim, with_commas(base.size.rows).c_str(), base.size.conversions,
              base.experts, base.threads);
  sweep("batch", batches, [](Setting& s, int64_t v) { s.size.batch = v; });
  sweep("fields", fields, [](Setting& s, int64_t v) { s.size.fields = v; });
  sweep("conversions", conversions, [](Setting& s, int64_t v) { s.size.conversions = v; });
  sweep("experts", experts, [](Setting& s, int64_t v) { s.experts = v; });
  sweep("threads", threads, [](Setting& s, int64_t v) { s.threads = v; });
  sweep("vocabulary", vocabularies, [](Setting& s, int64_t v) { s.size.rows = v; });
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace ektm::bench

int main(int argc, char** argv) { return ektm::bench::run(argc, argv); }
