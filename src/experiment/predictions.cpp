#include "experiment/predictions.h"

#include <unordered_map>

#include "base/interrupt.h"
#include "checkpoint/safetensors.h"
#include "data/dataset.h"
#include "serve/predictor.h"

namespace ektm {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFile = "predictions.safetensors";

}  // namespace

void write_predictions(const fs::path& run, const std::string& data) {
  Predictor predictor(run);
  const auto dataset = open_dataset(data, "test");
  predictor.check_dataset(dataset->info(), data);
  std::vector<at::Tensor> parts;
  for_each_batch(*dataset, predictor.config().train.evaluate_batch_rows, [&](const Batch& batch) {
    stop_if_interrupted();
    parts.push_back(predictor.network().score(batch).served);
  });
  TensorFile file;
  file.tensors.emplace_back("served", at::cat(parts, 1).contiguous());
  file.metadata["schema_hash"] = predictor.info().schema_hash;
  save_tensors(run / kFile, file);
}

bool has_predictions(const fs::path& run) { return fs::exists(run / kFile); }

at::Tensor read_predictions(const fs::path& run) { return load_tensors(run / kFile).at("served", run / kFile); }

TestRows read_test_rows(const std::string& data) {
  const auto dataset = open_dataset(data, "test");
  TestRows result;
  result.tasks = dataset->info().tasks;
  result.grouped = dataset->info().has_group;
  std::unordered_map<uint64_t, int64_t> numbers;
  for_each_batch(*dataset, 4096, [&](const Batch& batch) {
    result.labels.insert(result.labels.end(), batch.labels.begin(), batch.labels.end());
    result.observed.insert(result.observed.end(), batch.observed.begin(), batch.observed.end());
    for (int64_t b = 0; b < batch.rows; ++b)
      result.cluster.push_back(result.grouped ? numbers.try_emplace(batch.groups[b], static_cast<int64_t>(numbers.size())).first->second
                                              : result.rows + b);
    result.rows += batch.rows;
  });
  result.clusters = result.grouped ? static_cast<int64_t>(numbers.size()) : result.rows;
  return result;
}

}  // namespace ektm
