#pragma once
// Raw files -> chunks of Arrow columns, with side tables joined.
#include <arrow/api.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/expression.h"
#include "data/schema.h"

namespace ektm {

struct RawInput {
  std::vector<std::string> files;  // CSV (also .gz), Parquet, Arrow IPC, or folders of them (partitioned: key=value folders)
};

// Columns of a chunk: those of CSV are texts as they stand in the file (nothing passes through a float); those of Parquet and
// Arrow keep their type, but texts that repeat in Parquet may come as a DictionaryArray (not in `own`). A joined column is a
// DictionaryArray: `dictionary` is the side table's whole column (the same object in every chunk), an index is the row of the
// match, null where there is none. Access through CellReader: text and "missing".
struct RawChunk {
  std::shared_ptr<arrow::RecordBatch> columns;  // the needed columns, joined ones included, in the order they were asked for
  std::shared_ptr<arrow::RecordBatch> own;      // the file's own columns as read (only when RawReader was asked to keep them)
  std::string file;
  int64_t first_row = 0;    // number of the chunk's first data row within the file, from 1
  bool csv = false;         // the file has lines
  std::shared_ptr<const std::vector<int64_t>> skipped_rows;  // rows of the file that were skipped as ragged, ascending; CSV only
  int64_t rows() const { return columns->num_rows(); }
  // The number within the file, from 1, of the chunk's row `row` (0 .. rows()-1); skipped rows count.
  int64_t file_row(int64_t row) const;
  // "a.csv, row 17 (line 18), column price"; the line only for CSV, "of users.csv" behind a joined column. Reads the file up to
  // the row to find the line: for errors only.
  std::string where(int64_t row, const std::string& column) const;
};

// Reads the cells of one column of a chunk as text. Integers of Parquet/Arrow become decimal text (exact to 64 bits, signed and
// unsigned), bools 0/1, dates and timestamps ISO text, floats their shortest round-trip text. Missing is a null, the NaN of a
// floating column, or a text in schema.missing. The chunk must outlive the reader.
class CellReader {
 public:
  // UTF-8 is checked here, but for dictionaries, which RawReader checks: Error Data on an invalid byte. `is_dictionary`: the column
  // holds the values of one.
  CellReader(const RawChunk& chunk, int column_index, const Schema& schema, bool is_dictionary = false);
  Cell cell(int64_t row);            // valid until the next call
  // Rows first .. first+count-1; valid until the next call of any function.
  void cells(int64_t first, size_t count, Cell* out);
  // The same as texts; of missing cells data() == nullptr.
  void texts(int64_t first, size_t count, std::string_view* out);
  // Likewise, as doubles, NaN = missing: exactly what parsing the texts gives. False when that takes the texts: of texts, or
  // numbers that are infinite or may be one of schema.missing.
  bool numbers(int64_t first, size_t count, double* out);
  // Likewise, as whole numbers, whose texts are those of the cells; 0 and false in `known` where missing. False when that takes the
  // texts: of texts, or numbers that are negative or may be one of schema.missing.
  bool whole_numbers(int64_t first, size_t count, uint64_t* out, bool* known);
  bool is_float() const;             // the raw column, or its list's element, is a floating type: ids refuse it
  bool is_list() const;              // an Arrow list; cell() is an Error Data on it
  // The elements of the rows' lists, or of their texts split at `separator`; missing and empty ones are left out. Of row first + i
  // those up to ends[i]. Replaces both; `out` is valid until the next call of any function.
  void elements(int64_t first, size_t count, const std::string& separator, std::vector<std::string_view>& out,
                std::vector<size_t>& ends);
  // Of an Arrow list: where the elements of a row stand among those of all rows, and these.
  std::pair<int64_t, int64_t> list_range(int64_t row) const;
  const std::shared_ptr<arrow::Array>& list_elements() const;

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
    // Those of `columns` that may be absent: filled with nulls where the input lacks them (labels in predict). Side tables are
    // not opened for their sake alone.
    std::vector<std::string> optional_columns;
    int64_t chunk_bytes = 8 << 20;                  // memory bound
    // Folders searched for the side tables of schema.joins, after schema.folder.
    std::vector<std::string> join_folders;
  };
  // `columns`: names needed, each once, from the file itself (which goes first), its key=value folders, or a joined side table.
  // A side table gives its columns other than its key; its key may come from an earlier join. Side tables are held in memory, and
  // opened only when the file itself lacks a needed column. `schema` must outlive the reader.
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

// The file of a join: beside the schema, else in one of `folders`. Error Io that lists where it was looked for.
std::filesystem::path find_side_file(const Join& join, const Schema& schema, const std::vector<std::string>& folders);

}  // namespace ektm
