#pragma once
// One file of an input as a sequence of record batches; a .cpp a format.
#include <arrow/api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/raw_file.h"

namespace ektm {

// Ragged rows over all files of a reader.
struct BadRows {
  int64_t limit = 0, count = 0;
};

// One file, read in order.
class Source {
 public:
  virtual ~Source() = default;
  const std::vector<std::string>& names() const { return names_; }  // its columns in the order of the file
  // Once, before next(): the columns to read, each present exactly once, where texts and lists of texts may come as dictionaries; or
  // all of them, as they are and in the order of the file.
  virtual void select(const std::vector<std::string>& columns) = 0;
  virtual void select_all() = 0;
  virtual std::shared_ptr<arrow::RecordBatch> next() = 0;  // nullptr at the end
  virtual int64_t bytes_read() = 0;
  virtual std::shared_ptr<const std::vector<int64_t>> skipped_rows() const { return nullptr; }

 protected:
  std::vector<std::string> names_;
};

// Every problem of the file is an Error Data or Io. `chunk_bytes` bounds a batch; `bad_rows` must outlive the source.
std::unique_ptr<Source> open_source(const InputFile& file, int64_t chunk_bytes, BadRows& bad_rows);
std::unique_ptr<Source> open_csv(const InputFile& file, int64_t chunk_bytes, BadRows& bad_rows);
std::unique_ptr<Source> open_parquet(const InputFile& file, int64_t chunk_bytes);
std::unique_ptr<Source> open_arrow(const InputFile& file, int64_t chunk_bytes);

// Rows of a batch of `chunk_bytes`, where `total_rows` have `total_bytes`.
int64_t rows_for(int64_t chunk_bytes, int64_t total_bytes, int64_t total_rows);

// "a.csv, row 17 (line 18)". Reads the file up to the row to find its line: for errors only.
std::string csv_row(const InputFile& file, int64_t row);

}  // namespace ektm
