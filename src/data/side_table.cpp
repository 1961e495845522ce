#include "data/side_table.h"

#include <arrow/compute/api.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "data/arrow_check.h"

namespace ektm {
namespace {

[[noreturn]] void fail_key_type(const arrow::Array& keys, const std::string& place) {
  fail(ErrorKind::Data, place, "the join key has the type {}; expected whole numbers or text. Convert the column.",
       keys.type()->ToString());
}

}  // namespace

SideTable::SideTable(const Join& join, const std::filesystem::path& path, const Schema& schema, int64_t chunk_bytes,
                     BadRows& bad_rows)
    : key_(join.key), missing_(schema.missing) {
  file_.path = path;
  if (!recognize(file_))
    fail(ErrorKind::Io, path.string(), "the name has no known ending; expected {}. Rename the file.", kKnownEndings);
  source_ = open_source(file_, chunk_bytes, bad_rows);
  names_ = source_->names();
  int64_t keys = std::count(names_.begin(), names_.end(), key_);
  if (keys == 0) {
    std::string near = nearest_name(key_, names_);
    fail(ErrorKind::Data, shown_path(), "the side table lacks the key column '{}'{} Correct the schema's join or the file.", key_,
         near.empty() ? "." : fmt::format("; did you mean '{}'?", near));
  }
  if (keys > 1) fail(ErrorKind::Data, shown_path(), "the column '{}' stands in the header {} times; expected once.", key_, keys);
}

bool SideTable::provides(const std::string& column) const {
  return column != key_ && std::count(names_.begin(), names_.end(), column) > 0;
}

void SideTable::load(const std::vector<std::string>& wanted) {
  std::vector<std::string> selected = {key_};
  for (const auto& column : wanted)
    if (provides(column)) {
      if (std::count(names_.begin(), names_.end(), column) > 1)
        fail(ErrorKind::Data, shown_path(), "the column '{}' stands in the header more than once; expected once.", column);
      selected.push_back(column);
    }
  source_->select(selected);
  std::vector<arrow::ArrayVector> pieces(selected.size());
  RawChunk place;
  place.file = shown_path();
  place.csv = file_.format == Format::Csv;
  place.skipped_rows = source_->skipped_rows();
  place.first_row = 1;
  int64_t rows = 0;
  while (auto batch = source_->next()) {
    for (size_t c = 0; c < selected.size(); ++c) pieces[c].push_back(batch->GetColumnByName(selected[c]));
    rows += batch->num_rows();
  }
  if (rows >= INT32_MAX)
    fail(ErrorKind::Data, shown_path(), "the side table has {} rows; expected fewer than {}.", rows, INT32_MAX);
  for (size_t c = 0; c < selected.size(); ++c) {
    auto column = pieces[c].empty() ? checked_data(arrow::MakeEmptyArray(arrow::utf8()), shown_path(), "cannot be held in memory")
                                    : checked_data(arrow::Concatenate(pieces[c]), shown_path(), "cannot be held in memory");
    if (column->type_id() == arrow::Type::DICTIONARY)
      column =
          checked_data(arrow::compute::Cast(*column, static_cast<const arrow::DictionaryType&>(*column->type()).value_type()),
                       shown_path(), "the dictionary cannot be read");
    if (int64_t bad = CellTexts(column, shown_path()).find_invalid(); bad >= 0)
      throw Error(ErrorKind::Data, place.where(bad, selected[c]), kNotUtf8);
    columns_[selected[c]] = column;
  }
  source_.reset();
  index_keys(place);
}

std::shared_ptr<arrow::Array> SideTable::match(const std::shared_ptr<arrow::Array>& keys, const std::string& place) {
  CellTexts texts(keys, place);
  if (texts.is_list() || texts.is_float()) fail_key_type(*keys, place);
  arrow::Int32Builder rows;
  checked_data(rows.Reserve(keys->length()), place, "cannot be joined");
  std::string_view text;
  for (int64_t i = 0; i < keys->length(); ++i) {
    auto found = texts.get(i, text) && !missing_.contains(text) ? rows_.find(text) : rows_.end();
    if (found == rows_.end()) {
      rows.UnsafeAppendNull();
      ++unmatched_rows_;
    } else {
      rows.UnsafeAppend(found->second);
    }
  }
  return checked_data(rows.Finish(), place, "cannot be joined");
}

void SideTable::index_keys(const RawChunk& place) {
  const std::shared_ptr<arrow::Array>& keys = columns_[key_];
  std::string where = shown_path() + ", column " + key_;
  CellTexts texts(keys, where);
  if (texts.is_list() || texts.is_float()) fail_key_type(*keys, where);
  std::vector<std::pair<size_t, int32_t>> ends;  // end of a row's key in key_texts_, and the row
  std::string_view text;
  for (int64_t i = 0; i < keys->length(); ++i)
    if (texts.get(i, text) && !missing_.contains(text)) {
      key_texts_ += text;
      ends.emplace_back(key_texts_.size(), static_cast<int32_t>(i));
    }
  rows_.reserve(ends.size());
  size_t start = 0;
  for (auto [end, row] : ends) {
    auto [first, is_new] = rows_.emplace(std::string_view(key_texts_).substr(start, end - start), row);
    if (!is_new)
      fail(ErrorKind::Data, place.where(row, key_),
           "the key '{}' stands in row {} already; expected each key once in a side table. Remove one.", shown(first->first),
           place.file_row(first->second));
    start = end;
  }
}

std::filesystem::path find_side_file(const Join& join, const Schema& schema, const std::vector<std::string>& folders) {
  std::vector<std::filesystem::path> tried = {schema.folder / join.file};
  for (const auto& folder : folders) tried.push_back(std::filesystem::path(folder) / join.file);
  std::vector<std::string> names;
  for (const auto& path : tried) {
    std::error_code code;
    if (std::filesystem::is_regular_file(path, code)) return path;
    names.push_back(path.string());
  }
  fail(ErrorKind::Io, join.file,
       "the side table of the schema's join was not found; looked for {}. Correct the join's file, or put it there.",
       fmt::join(names, ", "));
}

}  // namespace ektm
