#pragma once
// A table joined by key, held in memory.
#include <arrow/api.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "data/cell_texts.h"
#include "data/raw_reader.h"
#include "data/raw_source.h"

namespace ektm {

class SideTable {
 public:
  // Reads the header only. `bad_rows` must outlive load().
  SideTable(const Join& join, const std::filesystem::path& path, const Schema& schema, int64_t chunk_bytes, BadRows& bad_rows);

  const std::string& key() const { return key_; }
  std::string shown_path() const { return file_.path.string(); }
  const std::vector<std::string>& names() const { return names_; }
  bool provides(const std::string& column) const;  // the key is not provided

  // Reads those of `wanted` that the table provides, and its keys, each of which must occur once. Once, before column() and
  // match().
  void load(const std::vector<std::string>& wanted);

  std::shared_ptr<arrow::Array> column(const std::string& name) const { return columns_.at(name); }

  // For each of `keys` the row of the table (int32), null where there is none. Errors name `place`.
  std::shared_ptr<arrow::Array> match(const std::shared_ptr<arrow::Array>& keys, const std::string& place);

  int64_t unmatched_rows() const { return unmatched_rows_; }

 private:
  struct TextHash {
    size_t operator()(std::string_view text) const { return hash64(text); }
  };

  void index_keys(const RawChunk& place);

  std::string key_;
  MissingTexts missing_;
  InputFile file_;
  std::vector<std::string> names_;
  std::unique_ptr<Source> source_;  // until loaded
  std::unordered_map<std::string, std::shared_ptr<arrow::Array>> columns_;
  std::string key_texts_;  // one after the other; the keys of rows_ point into it
  std::unordered_map<std::string_view, int32_t, TextHash> rows_;
  int64_t unmatched_rows_ = 0;
};

}  // namespace ektm
