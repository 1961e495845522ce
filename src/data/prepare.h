#pragma once
// Raw files -> an encoded data set (see dataset.h, dataset_writer.h). Each file is read once: the training split goes to a spool
// of codes while the encoders are fitted, and from there, with its final rows, into the data set.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/encoder_set.h"
#include "data/raw_reader.h"

namespace ektm {

struct PrepareInput : RawInput {
  std::string where;  // an expression over the columns: the rows where it is true belong to the split; empty = all rows
};

struct PrepareConfig {
  std::filesystem::path schema;
  PrepareInput train, valid, test;  // valid, test: no files = no such split. Inputs that share a file need a `where` each
  std::filesystem::path output;
  bool force = false;  // replace an encoded data set
  int64_t threads = 0;  // 0 = one a core; without influence on the result
  int64_t chunk_bytes = RawReader::Options{}.chunk_bytes;
};

struct PrepareSummary {
  struct Split {
    std::string name;
    EncodeCounts counts;
  };
  struct Input {  // the files of --train, --valid or --test
    std::string name;
    int64_t rows = 0, bad_rows = 0, left_out = 0;  // left_out: by `where`, of the rows
    std::vector<int64_t> unmatched;  // rows without a match, aligned with schema.joins
  };
  Schema schema;
  DatasetInfo info;
  std::vector<int64_t> feature_rows;  // rows of each feature's table, aligned with schema.features; 0 = a number without bins
  std::vector<Split> splits;
  std::vector<Input> inputs;

  // CPU seconds of all threads, by part of the work; not part of to_json().
  struct CpuSeconds {
    double read = 0;    // and parse
    double fit = 0;     // of the training split: values to provisional codes, counts, the spool
    double encode = 0;  // of the others: values to rows; of all: rows as batches
    double write = 0, leak_check = 0;
  } cpu_seconds;

  nlohmann::json to_json() const;
};

// Writes config.output as a whole or not at all. Errors: Config (schema, arguments), Data (content; a task without positives; a
// feature that gives a label away), Io.
PrepareSummary prepare(const PrepareConfig& config);

}  // namespace ektm
