#pragma once
// Scores of the test split, kept beside a run, and the rows that they belong to: what paired intervals over rows need.
#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <vector>

#include "data/batch.h"

namespace ektm {

// RUN/predictions.safetensors: `served` [K, rows], the run's kept model on the test split of `data`, each task conditional on its `after`
// event. Whole or absent.
void write_predictions(const std::filesystem::path& run, const std::string& data);
bool has_predictions(const std::filesystem::path& run);
at::Tensor read_predictions(const std::filesystem::path& run);

struct TestRows {
  std::vector<TaskInfo> tasks;
  std::vector<uint8_t> labels, observed;  // [rows, K]
  std::vector<int64_t> cluster;           // [rows], in [0, clusters): rows of the same group; without a group each row is its own
  int64_t rows = 0, clusters = 0;
  bool grouped = false;
};
TestRows read_test_rows(const std::string& data);

}  // namespace ektm
