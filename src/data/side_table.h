#pragma once
// A table joined by key, held in memory.
#include <arrow/api.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "data/cell_texts.h"
#include "data/raw_reader.h"
#include "data/raw_source.h"
#include "data/row_filter.h"

namespace ektm {

class SideTable {
 public:
  // Reads the header only. `schema` and `bad_rows` must outlive load().
  SideTable(const Join& join, const std::filesystem::path& path, const Schema& schema, int64_t chunk_bytes, BadRows& bad_rows);

  const std::string& key() const { return join_.key; }
  std::string shown_path() const { return file_.path.string(); }
  const std::vector<std::string>& names() const { return names_; }  // of the columns it provides; the key is not provided
  bool provides(const std::string& column) const;

  // Reads those of `wanted` that the table provides, and its keys, each of which must occur once unless the join says `many`: then the
  // columns are lists. Once, before column() and match().
  void load(const std::vector<std::string>& wanted);

  std::shared_ptr<arrow::Array> column(const std::string& name) const { return columns_.at(name); }

  // For each of `keys` the row of the columns (int32), null where there is none. Errors name `place`.
  std::shared_ptr<arrow::Array> match(const std::shared_ptr<arrow::Array>& keys, const std::string& place);

  int64_t unmatched_rows() const { return unmatched_rows_; }

 private:
  struct TextHash {
    size_t operator()(std::string_view text) const { return hash64(text); }
  };

  std::string raw_name(const std::string& column) const { return column.substr(join_.prefix.size()); }
  void require(const std::string& column, const char* role) const;  // once in the file
  // The rows of `batch` that the join's condition keeps; their numbers go to kept_rows_. `rows_read`: rows before the batch.
  std::shared_ptr<arrow::RecordBatch> keep_rows(const std::shared_ptr<arrow::RecordBatch>& batch, RawChunk place, int64_t rows_read);
  // The number of a kept row among those that were read, from 0.
  int64_t row_read(int64_t row) const { return condition_ ? kept_rows_[static_cast<size_t>(row)] : row; }
  void index_keys(const std::shared_ptr<arrow::Array>& keys, const RawChunk& place);
  void make_lists(const std::vector<std::pair<size_t, int32_t>>& ends, const std::vector<int32_t>& lists);

  Join join_;
  const Schema& schema_;
  MissingTexts missing_;
  std::optional<RowFilter> condition_;
  InputFile file_;
  std::vector<std::string> raw_names_, names_;  // of the file, and of what it provides
  std::vector<int64_t> kept_rows_;              // with a condition: their numbers in the file
  std::unique_ptr<Source> source_;  // until loaded
  std::unordered_map<std::string, std::shared_ptr<arrow::Array>> columns_;
  std::string key_texts_;  // one after the other; the keys of rows_ point into it
  std::unordered_map<std::string_view, int32_t, TextHash> rows_;
  int64_t unmatched_rows_ = 0;
};

}  // namespace ektm
