// How close a training step is to what the machine can do. The limit of a step is the time of its matrix products alone, at the rate of
// the best kernel for their shapes, plus the bytes that have to move at STREAM rate. Prints a table, the parts of a step, and JSON.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/threads.h"
#include "bench/synthetic.h"
#include "metrics/text_table.h"
#include "nn/gemm.h"
#include "nn/profiler.h"

namespace ektm::bench {
namespace {

struct Shape {
  int64_t count, m, n, k;  // count times [m,k] x [k,n]
  auto operator<=>(const Shape&) const = default;
  double flops() const { return 2.0 * static_cast<double>(count) * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
  double result_bytes() const { return 4.0 * static_cast<double>(count * m * n); }
};

std::map<Shape, int64_t>* recorded = nullptr;  // shape -> how often in a step

// The products that a step does, as its operations report them.
std::map<Shape, int64_t> products_of_a_step(Training& training) {
  std::map<Shape, int64_t> shapes;
  recorded = &shapes;
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback([](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
        const std::string_view name = function.name();
        const auto inputs = function.inputs();
        if (name.starts_with("fan_out") || name.starts_with("stacked") || name.starts_with("transfer"))
          for (size_t i = 0; i + 4 <= inputs.size(); i += 4)
            ++(*recorded)[{inputs[i].toInt(), inputs[i + 1].toInt(), inputs[i + 2].toInt(), inputs[i + 3].toInt()}];
        return nullptr;
      }).needsInputs(true).scopes({at::RecordScope::USER_SCOPE}));
  training.step();
  at::removeCallback(handle);
  recorded = nullptr;
  return shapes;
}

// The best of libtorch's batched product, its single products, and BLAS on a share of the rows a thread.
double bare_seconds(const Shape& shape, int64_t repeats, int64_t threads) {
  at::NoGradGuard no_grad;
  at::Tensor a = at::rand({shape.count, shape.m, shape.k}), b = at::rand({shape.count, shape.k, shape.n}), c = at::empty({shape.count, shape.m, shape.n});
  std::vector<double> together, singly, shared;
  const int64_t slice = (shape.m + threads - 1) / threads;
  for (int64_t i = 0; i < repeats + 1; ++i) {
    use_threads(threads);
    const double by_rows = seconds([&] {
      parallel_for(0, shape.count * threads, 1, [&](int64_t first, int64_t last) {
        for (int64_t piece = first; piece < last; ++piece) {
          const int64_t e = piece / threads, row = piece % threads * slice, rows = std::min(slice, shape.m - row);
          if (rows > 0)
            gemm(false, false, rows, shape.n, shape.k, a.const_data_ptr<float>() + (e * shape.m + row) * shape.k, shape.k,
                 b.const_data_ptr<float>() + e * shape.k * shape.n, shape.n, 0.f, c.data_ptr<float>() + (e * shape.m + row) * shape.n, shape.n);
        }
      });
    });
    at::set_num_threads(static_cast<int>(threads));
    const double batched = seconds([&] { at::bmm_out(c, a, b); });
    const double one_by_one = seconds([&] {
      for (int64_t e = 0; e < shape.count; ++e) {
        at::Tensor out = c[e];
        at::mm_out(out, a[e], b[e]);
      }
    });
    if (i > 0) together.push_back(batched), singly.push_back(one_by_one), shared.push_back(by_rows);
  }
  return std::min({median(together), median(singly), median(shared)});
}

// a = b + s c over arrays beyond the caches (McCalpin's triad); bytes a second, two reads and one write counted.
double stream_rate(int64_t threads) {
  const int64_t n = int64_t{16} << 20;
  at::Tensor a = at::ones({n}), b = at::ones({n}), c = at::ones({n});
  float *out = a.data_ptr<float>(), *x = b.data_ptr<float>(), *y = c.data_ptr<float>();
  std::vector<double> times;
  for (int i = 0; i < 6; ++i)
    times.push_back(seconds([&] {
      parallel_for(0, n, n / threads, [&](int64_t first, int64_t last) {
        for (int64_t j = first; j < last; ++j) out[j] = x[j] + 3 * y[j];
      });
    }));
  return 3.0 * 4 * static_cast<double>(n) / *std::min_element(times.begin(), times.end());
}

// What a step cannot avoid reading and writing: ids; embedding rows read, x written, its gradient read; touched rows with their two
// moments read and written; dense weights, gradients and moments; results of products written once and read once.
double bytes_of_a_step(Training& training, const std::map<Shape, int64_t>& shapes) {
  const Batch& batch = training.problem.batches[0];
  EmbeddingStore& embeddings = training.network.embeddings();
  const double lookups = static_cast<double>(batch.ids.size()) * static_cast<double>(embeddings.width());
  const double touched = static_cast<double>(embeddings.unique_rows().size()) * static_cast<double>(embeddings.width());
  double bytes = 4.0 * static_cast<double>(batch.ids.size()) + 4 * 4 * lookups + 6 * 4 * touched +
                 8 * 4 * static_cast<double>(training.network.parameters().count());
  for (const auto& [shape, calls] : shapes) bytes += 2 * shape.result_bytes() * static_cast<double>(calls);
  return bytes;
}

// Where ektm's step goes, and what each operation takes more of than in a step of its backbone. In rounds that alternate.
void print_profiles(Training& backbone, Training& ektm, int64_t steps, int64_t batch) {
  std::map<std::string, double> more;  // ms of all steps
  int64_t counted = 0;
  std::string table;
  for (int round = 0; round < 3; ++round)
    for (Training* training : {&backbone, &ektm}) {
      Profiler profiler;
      for (int64_t i = 0; i < steps; ++i) training->step(), profiler.step_ends();
      profiler.stop();
      for (const Profiler::Line& line : profiler.operations()) more[line.name] += training == &ektm ? line.ms : -line.ms;
      if (training == &ektm) counted += profiler.steps(), table = profiler.table(batch);
    }
  std::vector<std::pair<double, std::string>> sorted;
  double sum = 0;
  for (const auto& [name, ms] : more) sorted.emplace_back(ms / static_cast<double>(std::max<int64_t>(1, counted)), name), sum += sorted.back().first;
  std::sort(sorted.rbegin(), sorted.rend());
  using Align = TextTable::Align;
  TextTable differences({Align::Left, Align::Right});
  differences.line(fmt::format("ektm(mmoe) more than mmoe: {:.3f} ms a step in operations", sum));
  differences.row({"operation (self time)", "ms/step"});
  for (size_t i = 0; i < std::min<size_t>(16, sorted.size()); ++i) differences.row({sorted[i].second, fmt::format("{:+.3f}", sorted[i].first)});
  std::printf("ektm(mmoe). %s\n%s", table.c_str(), differences.to_string().c_str());
}

int run(int argc, char** argv) {
  ProblemSize size;
  int64_t threads = 2, steps = 30;
  bool brief = false;
  CLI::App app{"A training step against the limit of the machine"};
  app.option_defaults()->always_capture_default();
  app.add_option("--threads", threads)->check(CLI::Range(1, 4096));
  app.add_option("--batch", size.batch, "rows of a batch")->check(CLI::Range(1, 1000000));
  app.add_option("--fields", size.fields)->check(CLI::Range(1, 1000));
  app.add_option("--dim", size.dim, "numbers in an embedding")->check(CLI::Range(1, 1024));
  app.add_option("--rows", size.rows, "of all tables together")->check(CLI::Range(100, 2000000000));
  app.add_option("--conversions", size.conversions)->check(CLI::Range(1, 100));
  app.add_option("--precision", size.precision, "of the step's products; the limit stays that of float32")->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--steps", steps, "timed for each model, in turns")->check(CLI::Range(3, 100000));
  app.add_flag("--short", brief, "small and quick, for CI");
  app.footer("Example:\n  bench_roofline --batch 4096 --threads 2");
  CLI11_PARSE(app, argc, argv);
  keep_freed_memory();
  if (brief) size.batch = 256, size.rows = 20000, size.batches = 2, steps = 6;
  const std::string mmoe = "name: mmoe, experts: 8, expert_hidden: [256, 128], tower_hidden: [64]";
  const std::vector<std::pair<std::string, std::string>> models = {
      {"single_task", "{name: single_task, hidden: [256, 128]}"},
      {"shared_bottom", "{name: shared_bottom, bottom_hidden: [512, 256], tower_hidden: [64]}"},
      {"mmoe", "{" + mmoe + "}"},
      {"ple", "{name: ple, levels: 1, task_experts: 1, shared_experts: 2, expert_hidden: [256, 128], tower_hidden: [64]}"},
      {"ektm(mmoe)", "{name: ektm, backbone: {" + mmoe + "}}"}};
  use_threads(threads);
  const Problem problem(size);
  std::vector<std::unique_ptr<Training>> trainings;
  for (const auto& [name, model] : models) trainings.push_back(std::make_unique<Training>(problem, size, model));
  std::vector<std::vector<double>> times(models.size());
  for (auto& training : trainings) training->time(2);
  for (int64_t i = 0; i < steps; ++i)  // step by step in turns: the speed of a shared machine moves within seconds
    for (size_t m = 0; m < models.size(); ++m) times[m].push_back(trainings[m]->time(1)[0]);

  nlohmann::json json = {{"benchmark", "roofline"}, {"threads", threads}, {"batch", size.batch}, {"fields", size.fields}, {"dim", size.dim}, {"rows", size.rows},
                         {"conversions", size.conversions}, {"precision", size.precision}};
  std::vector<std::map<Shape, int64_t>> products;
  for (auto& training : trainings) products.push_back(products_of_a_step(*training));
  const double stream = stream_rate(threads);
  json["stream_bytes_per_s"] = stream;
  using Align = TextTable::Align;
  TextTable table(std::vector<Align>{Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right});
  table.row({"model", "samples/s", "ms/step", "products ms", "GFLOP/s bare", "bytes ms", "limit ms", "of the limit"});
  std::map<Shape, double> known;
  for (size_t m = 0; m < models.size(); ++m) {
    double product_seconds = 0, flops = 0;
    for (const auto& [shape, calls] : products[m]) {
      if (!known.contains(shape)) known[shape] = bare_seconds(shape, brief ? 3 : 9, threads);
      product_seconds += known[shape] * static_cast<double>(calls);
      flops += shape.flops() * static_cast<double>(calls);
    }
    const double byte_seconds = bytes_of_a_step(*trainings[m], products[m]) / stream, step = median(times[m]), limit = product_seconds + byte_seconds;
    table.row({models[m].first, with_commas(static_cast<int64_t>(static_cast<double>(size.batch) / step)), fmt::format("{:.2f}", step * 1e3),
               fmt::format("{:.2f}", product_seconds * 1e3), fmt::format("{:.0f}", flops / product_seconds / 1e9),
               fmt::format("{:.2f}", byte_seconds * 1e3), fmt::format("{:.2f}", limit * 1e3), fmt::format("{:.0f} %", 100 * limit / step)});
    json["models"][models[m].first] = {{"samples_per_s", static_cast<double>(size.batch) / step}, {"step_ms", step * 1e3}, {"products_ms", product_seconds * 1e3},
                                       {"bytes_ms", byte_seconds * 1e3}, {"share_of_limit", limit / step}};
  }
  std::printf("A step of %s rows, %ld fields of %ld numbers, %ld tasks, %ld threads, %s; STREAM triad %.1f GB/s\n%s\n", with_commas(size.batch).c_str(),
              size.fields, size.dim, size.conversions + 1, threads, size.precision.c_str(), stream / 1e9, table.to_string().c_str());
  std::vector<double> ratios;
  for (int64_t i = 0; i < steps; ++i) ratios.push_back(times[4][i] / times[2][i]);
  const double ratio = median(ratios);
  std::printf("ektm(mmoe) takes %.1f %% more time a step than mmoe (median over steps in turns).\n\n", 100 * (ratio - 1));
  json["ektm_over_backbone"] = ratio;

  use_threads(threads);  // the bare products set libtorch's own
  print_profiles(*trainings[2], *trainings[4], steps, size.batch);
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace ektm::bench

int main(int argc, char** argv) { return ektm::bench::run(argc, argv); }
