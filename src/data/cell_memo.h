#pragma once
// The reader of one column, and the decoded cells of a joined one, which repeats the cells of its side table: each of those is
// decoded once. (So is each value of a dictionary that the file itself holds.)
#include <arrow/api.h>

#include <memory>
#include <optional>
#include <vector>

#include "data/raw_reader.h"

namespace ektm {

template <class Value>
class CellMemo {
 public:
  // Starts a chunk, which must outlive the calls of get().
  void begin(const RawChunk& chunk, int column, const Schema& schema) {
    const auto& array = chunk.columns->column(column);
    indices_ = nullptr;
    if (array->type_id() == arrow::Type::DICTIONARY) {
      const auto& joined = static_cast<const arrow::DictionaryArray&>(*array);
      if (joined.indices()->type_id() == arrow::Type::INT32) {
        if (joined.data()->dictionary != dictionary_) start_dictionary(chunk, column, joined, schema);
        array_ = array;
        has_nulls_ = array->null_count() > 0;
        indices_ = static_cast<const arrow::Int32Array&>(*joined.indices()).raw_values();
        return;
      }
    }
    dictionary_ = nullptr;
    reader_.emplace(chunk, column, schema);
  }

  CellReader& reader() { return *reader_; }
  bool joined() const { return indices_ != nullptr; }

  // Of a joined column. decode(cell, value) sets `value` from the cell of that number of reader(). `missing`: what a row without
  // a match in the side table has.
  template <class Decode>
  const Value& get(int64_t row, const Value& missing, const Decode& decode) {
    if (has_nulls_ && array_->IsNull(row)) return missing;
    const int32_t index = indices_[row];
    if (!known_[index]) {
      decode(index, values_[index]);
      known_[index] = true;
    }
    return values_[index];
  }

 private:
  void start_dictionary(const RawChunk& chunk, int column, const arrow::DictionaryArray& joined, const Schema& schema) {
    const int64_t length = joined.dictionary()->length();
    dictionary_ = joined.data()->dictionary;
    values_.assign(length, Value{});
    known_.assign(length, false);
    side_ = std::make_unique<RawChunk>();
    side_->file = chunk.file;
    side_->columns =
        arrow::RecordBatch::Make(arrow::schema({arrow::field(chunk.columns->column_name(column), joined.dictionary()->type())}),
                                 length, {joined.dictionary()});
    reader_.emplace(*side_, 0, schema, true);
  }

  std::shared_ptr<arrow::Array> array_;           // the joined column of the chunk
  bool has_nulls_ = false;
  const int32_t* indices_ = nullptr;              // its indices; nullptr: a column of the file itself
  std::shared_ptr<arrow::ArrayData> dictionary_;  // kept alive, so that its address tells it from others
  std::vector<Value> values_;
  std::vector<char> known_;
  std::unique_ptr<RawChunk> side_;  // at a fixed address for the reader
  std::optional<CellReader> reader_;
};

}  // namespace ektm
