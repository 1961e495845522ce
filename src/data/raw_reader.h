#pragma once
// Raw files -> chunks of columns, with side tables joined. All reading goes through Arrow.
#include <arrow/api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/expression.h"
#include "data/schema.h"

namespace ektm {

struct RawInput {
  std::vector<std::string> files;  // CSV (also .gz), Parquet, Arrow IPC, or folders of them (partitioned: key=value folders)
};

// A column of a chunk. CSV columns are texts as they stand in the file (nothing passes through a float); Parquet and Arrow columns
// keep their type. Access through cell(): text and "missing".
struct RawChunk {
  std::shared_ptr<arrow::RecordBatch> columns;  // the needed columns, joined ones included, in the order they were asked for
  std::shared_ptr<arrow::RecordBatch> own;      // the file's own columns as read (only when RawReader was asked to keep them)
  std::string file;
  int64_t first_row = 0;    // number of the chunk's first data row within the file, from 1
  int64_t rows() const { return columns->num_rows(); }
  // "a.csv, row 17 (line 18), column price"; the line only for CSV.
  std::string where(int64_t row, const std::string& column) const;
};

// Reads the cells of one column of a chunk as text. Integers of Parquet/Arrow become decimal text (exact to 64 bits, signed and
// unsigned), bools 0/1, dates and timestamps ISO text, floats their shortest round-trip text; null or a text in schema.missing is missing.
// UTF-8 is checked here: Error Data on an invalid byte.
class CellReader {
 public:
  CellReader(const RawChunk& chunk, int column_index, const Schema& schema);
  Cell cell(int64_t row);            // valid until the next call
  bool is_float() const;             // the raw column is a floating type: ids refuse it
  bool is_list() const;              // an Arrow list
  // The elements of a list cell, or of a text cell split at `separator`; missing and empty elements are left out.
  void elements(int64_t row, const std::string& separator, std::vector<std::string>& out);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Every problem is an Error Data or Io that names file, row (and line), column, what was found, what was expected and what to do:
// missing or unreadable file, empty file, a header that lacks a needed column or has one twice, a ragged row, invalid UTF-8,
// truncated gzip / Parquet / Arrow.
class RawReader {
 public:
  struct Options {
    bool keep_own_columns = false;                  // fill RawChunk::own (all columns of the file)
    std::vector<std::string> optional_columns;      // asked for, but filled with nulls where the input lacks them (labels in predict)
    int64_t chunk_bytes = 8 << 20;                  // memory bound
    // Folders searched for the side tables of schema.joins, after schema.folder.
    std::vector<std::string> join_folders;
  };
  // `columns`: names needed, each from the file itself or from a joined side table. Side tables are held in memory.
  RawReader(const RawInput& input, const Schema& schema, std::vector<std::string> columns, Options options);
  ~RawReader();
  // False at the end.
  bool next(RawChunk& chunk);
  // For progress: bytes of the input files on disk (compressed), and how many were read so far.
  int64_t total_bytes() const;
  int64_t read_bytes() const;
  // Rows without a match per side table, in the order of schema.joins.
  std::vector<int64_t> unmatched_rows() const;
  // Ragged rows that were skipped (at most schema.max_bad_rows in all; one more is an Error).
  int64_t bad_rows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ektm
