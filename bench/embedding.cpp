// Speed of the embeddings alone: the gather of a batch of zipf-distributed ids, and the way back (gradients of the rows summed,
// one optimiser step on them). Prints JSON. compare_embedding.py runs it beside FBGEMM on the ids that --write-ids writes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/synthetic.h"

namespace ektm::bench {
namespace {

int run(int argc, char** argv) {
  int64_t rows = 1000000, fields = 20, batch_rows = 4096, steps = 100;
  int threads = 2;
  double exponent = 1.05;
  EmbeddingConfig config;
  config.dim = 16;
  std::string ids_file;
  CLI::App app{"Seconds a step of the embeddings: gather, and gradients with the optimiser's step"};
  app.option_defaults()->always_capture_default();
  app.add_option("--rows", rows, "rows of all tables together")->check(CLI::Range(100, 2000000000));
  app.add_option("--fields", fields, "features, each with a table of its own")->check(CLI::Range(1, 1000));
  app.add_option("--dim", config.dim, "numbers in an embedding")->check(CLI::Range(1, 1024));
  app.add_option("--batch", batch_rows, "rows of a batch")->check(CLI::Range(1, 1000000));
  app.add_option("--steps", steps, "steps that are timed; a tenth more before them")->check(CLI::Range(1, 1000000));
  app.add_option("--threads", threads)->check(CLI::Range(1, 4096));
  app.add_option("--zipf", exponent, "exponent of the ids' distribution")->check(CLI::Range(0.0, 5.0));
  app.add_option("--optimizer", config.optimizer)->check(CLI::IsMember({"adam", "adagrad", "rowwise_adagrad", "sgd"}));
  app.add_option("--write-ids", ids_file, "file that gets the ids: int32 [steps and warm-up, batch, fields]");
  app.footer("Example:\n  bench_embedding --rows 10000000 --fields 20 --dim 16 --batch 4096 --threads 2");
  CLI11_PARSE(app, argc, argv);
  keep_freed_memory();
  use_threads(threads);

  DatasetInfo info;
  for (int64_t f = 0; f < fields; ++f) {
    info.tables.push_back({fmt::format("table{}", f), std::max<int64_t>(kFirstValueRow + 1, rows / fields)});
    info.fields.push_back({fmt::format("field{}", f), static_cast<int32_t>(f), false});
  }
  const int64_t warm_up = steps / 10 + 1;
  const ZipfIds zipf(info.tables[0].rows, exponent);
  Rng rng(1);
  std::vector<Batch> batches(warm_up + steps);
  std::ofstream file;
  if (!ids_file.empty()) file.open(ids_file, std::ios::binary);
  for (Batch& batch : batches) {
    batch.rows = batch_rows;
    batch.ids.resize(batch_rows * fields);
    for (int32_t& id : batch.ids) id = zipf.next(rng);
    const auto bytes = static_cast<std::streamsize>(batch.ids.size() * sizeof(int32_t));
    if (!ids_file.empty()) file.write(reinterpret_cast<const char*>(batch.ids.data()), bytes);
  }
  file.flush();
  if (!ids_file.empty() && !file) {
    std::cerr << "cannot write " << ids_file << "\n";
    return 1;
  }

  EmbeddingStore store(info, config, 1, 1);
  const at::Tensor grad = at::randn({1, batch_rows, store.features()});
  std::vector<double> gathers, updates;
  int64_t unique = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    const double gather = seconds([&] { store.gather(batches[i], true); });
    const double update = seconds([&] {
      store.collect(batches[i], grad);
      store.apply(1, 1);
    });
    if (static_cast<int64_t>(i) < warm_up) continue;
    gathers.push_back(gather);
    updates.push_back(update);
    unique += static_cast<int64_t>(store.unique_rows().size());
  }
  const double gather = median(gathers), update = median(updates), lookups = static_cast<double>(batch_rows * fields);
  nlohmann::json result = {{"rows", store.rows()}, {"fields", fields}, {"dim", config.dim}, {"batch", batch_rows},
                           {"steps", steps}, {"warm_up", warm_up}, {"threads", threads}, {"optimizer", config.optimizer},
                           {"gather_seconds", gather}, {"update_seconds", update}, {"unique_rows_a_step", unique / steps},
                           {"gathered_lookups_per_s", lookups / gather}, {"trained_lookups_per_s", lookups / (gather + update)}};
  std::cout << result.dump() << std::endl;
  return 0;
}

}  // namespace
}  // namespace ektm::bench

int main(int argc, char** argv) { return ektm::bench::run(argc, argv); }
