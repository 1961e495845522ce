#pragma once
// Raw files -> an encoded data set (see dataset.h, dataset_writer.h): two passes over the training split, one over the others.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/encoder_set.h"
#include "data/raw_reader.h"

namespace ektm {

struct PrepareConfig {
  std::filesystem::path schema;
  RawInput train, valid, test;  // valid, test: no files = no such split
  std::filesystem::path output;
  bool force = false;  // replace an encoded data set
};

struct PrepareSummary {
  struct Split {
    std::string name;
    EncodeCounts counts;
  };
  struct Input {  // the files of --train, --valid or --test
    std::string name;
    int64_t rows = 0, bad_rows = 0;
    std::vector<int64_t> unmatched;  // rows without a match, aligned with schema.joins
  };
  Schema schema;
  DatasetInfo info;
  std::vector<int64_t> feature_rows;  // rows of each feature's table, aligned with schema.features; 0 = a number without bins
  std::vector<Split> splits;
  std::vector<Input> inputs;

  nlohmann::json to_json() const;
};

// Writes config.output as a whole or not at all. Errors: Config (schema, arguments), Data (content; a task without positives; a
// feature that gives a label away), Io.
PrepareSummary prepare(const PrepareConfig& config);

}  // namespace ektm
