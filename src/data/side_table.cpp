#include "data/side_table.h"

#include <arrow/compute/api.h>

#include <algorithm>
#include <limits>

#include "base/did_you_mean.h"
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
    : join_(join), schema_(schema), missing_(schema.missing) {
  file_.path = path;
  if (!recognize(file_))
    fail(ErrorKind::Io, path.string(), "the name has no known ending; expected {}. Rename the file.", kKnownEndings);
  source_ = open_source(file_, chunk_bytes, bad_rows);
  raw_names_ = source_->names();
  for (const auto& name : raw_names_)
    if (name != key()) names_.push_back(join_.prefix + name);
  require(key(), "key column");
  if (join_.where.empty()) return;
  condition_.emplace(join_.where, "join " + join_.file + ", where");
  for (const auto& column : condition_->columns()) require(column, "column of `where`,");
}

void SideTable::require(const std::string& column, const char* role) const {
  const int64_t count = std::count(raw_names_.begin(), raw_names_.end(), column);
  if (count == 0)
    fail(ErrorKind::Data, shown_path(), "the side table lacks the {} '{}'.{} Correct the schema's join or the file.", role, column,
         did_you_mean(column, raw_names_));
  if (count > 1) fail(ErrorKind::Data, shown_path(), "the column '{}' stands in the header {} times; expected once.", column, count);
}

bool SideTable::provides(const std::string& column) const { return std::count(names_.begin(), names_.end(), column) > 0; }

void SideTable::load(const std::vector<std::string>& wanted) {
  std::vector<std::string> taken;  // raw names of the columns to provide; the key goes last
  for (const auto& column : wanted)
    if (provides(column)) {
      if (std::count(names_.begin(), names_.end(), column) > 1)
        fail(ErrorKind::Data, shown_path(), "the column '{}' stands in the header more than once; expected once.", raw_name(column));
      taken.push_back(raw_name(column));
    }
  taken.push_back(key());
  std::vector<std::string> selected = taken;
  if (condition_)
    for (const auto& column : condition_->columns())
      if (std::find(selected.begin(), selected.end(), column) == selected.end()) selected.push_back(column);
  source_->select(selected);
  std::vector<arrow::ArrayVector> pieces(taken.size());
  RawChunk place;
  place.file = shown_path();
  place.csv = file_.format == Format::Csv;
  place.skipped_rows = source_->skipped_rows();
  place.first_row = 1;
  int64_t rows_read = 0, rows = 0;
  while (auto batch = source_->next()) {
    const int64_t read = batch->num_rows();
    if (condition_) batch = keep_rows(batch, place, rows_read);
    for (size_t c = 0; c < taken.size(); ++c) pieces[c].push_back(batch->GetColumnByName(taken[c]));
    rows_read += read;
    rows += batch->num_rows();
  }
  if (rows >= INT32_MAX)
    fail(ErrorKind::Data, shown_path(), "the side table has {} rows; expected fewer than {}.", rows, INT32_MAX);
  std::shared_ptr<arrow::Array> keys;
  for (size_t c = 0; c < taken.size(); ++c) {
    auto column = pieces[c].empty() ? checked_data(arrow::MakeEmptyArray(arrow::utf8()), shown_path(), "cannot be held in memory")
                                    : checked_data(arrow::Concatenate(pieces[c]), shown_path(), "cannot be held in memory");
    if (column->type_id() == arrow::Type::DICTIONARY)
      column =
          checked_data(arrow::compute::Cast(*column, static_cast<const arrow::DictionaryType&>(*column->type()).value_type()),
                       shown_path(), "the dictionary cannot be read");
    if (int64_t bad = CellTexts(column, shown_path()).find_invalid(); bad >= 0)
      throw Error(ErrorKind::Data, place.where(row_read(bad), taken[c]), kNotUtf8);
    if (c + 1 < taken.size())
      columns_[join_.prefix + taken[c]] = column;
    else
      keys = column;
  }
  source_.reset();
  index_keys(keys, place);
  kept_rows_ = {};
}

std::shared_ptr<arrow::RecordBatch> SideTable::keep_rows(const std::shared_ptr<arrow::RecordBatch>& batch, RawChunk place, int64_t rows_read) {
  place.first_row = place.file_row(rows_read);
  place.columns = batch;
  std::vector<bool> kept;
  condition_->select(place, schema_, kept);
  arrow::BooleanBuilder keep;
  checked_data(keep.AppendValues(kept), shown_path(), "cannot be held in memory");
  for (size_t row = 0; row < kept.size(); ++row)
    if (kept[row]) kept_rows_.push_back(rows_read + static_cast<int64_t>(row));
  const auto mask = checked_data(keep.Finish(), shown_path(), "cannot be held in memory");
  return checked_data(arrow::compute::Filter(batch, mask), shown_path(), "cannot be filtered").record_batch();
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

void SideTable::index_keys(const std::shared_ptr<arrow::Array>& keys, const RawChunk& place) {
  std::string where = shown_path() + ", column " + key();
  CellTexts texts(keys, where);
  if (texts.is_list() || texts.is_float()) fail_key_type(*keys, where);
  std::vector<std::pair<size_t, int32_t>> ends;  // end of a row's key in key_texts_, and the row
  std::string_view text;
  for (int64_t i = 0; i < keys->length(); ++i)
    if (texts.get(i, text) && !missing_.contains(text)) {
      key_texts_ += text;
      ends.emplace_back(key_texts_.size(), static_cast<int32_t>(i));
    }
  if (!join_.many) rows_.reserve(ends.size());
  std::vector<int32_t> lists;  // with `many`: of each of `ends`, the list it goes to
  size_t start = 0;
  for (auto [end, row] : ends) {
    const int32_t number = join_.many ? static_cast<int32_t>(rows_.size()) : row;
    auto [first, is_new] = rows_.emplace(std::string_view(key_texts_).substr(start, end - start), number);
    if (!is_new && !join_.many)
      fail(ErrorKind::Data, place.where(row_read(row), key()),
           "the key '{}' stands in row {} already; expected each key once in a side table. Remove one, or write many: true in the join "
           "if its rows are a list.",
           shown(first->first), place.file_row(row_read(first->second)));
    if (join_.many) lists.push_back(first->second);
    start = end;
  }
  if (join_.many) make_lists(ends, lists);
}

// A counting sort by list, which keeps the order of the file within each.
void SideTable::make_lists(const std::vector<std::pair<size_t, int32_t>>& ends, const std::vector<int32_t>& lists) {
  std::vector<int32_t> offsets(rows_.size() + 1, 0);
  for (int32_t list : lists) ++offsets[list + 1];
  for (size_t i = 1; i < offsets.size(); ++i) offsets[i] += offsets[i - 1];
  std::vector<int32_t> next(offsets.begin(), offsets.end() - 1), order(lists.size());
  for (size_t i = 0; i < lists.size(); ++i) order[next[lists[i]]++] = ends[i].second;
  auto array_of = [&](const std::vector<int32_t>& numbers) {
    arrow::Int32Builder builder;
    checked_data(builder.AppendValues(numbers), shown_path(), "cannot be held in memory");
    return checked_data(builder.Finish(), shown_path(), "cannot be held in memory");
  };
  const auto starts = array_of(offsets), rows = array_of(order);
  for (auto& [name, column] : columns_) {
    const auto values = checked_data(arrow::compute::Take(*column, *rows), shown_path(), "cannot be held in memory");
    column = checked_data(arrow::ListArray::FromArrays(*starts, *values), shown_path(), "cannot be held in memory");
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
