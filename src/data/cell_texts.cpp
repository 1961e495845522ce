#include "data/cell_texts.h"

#include <arrow/compute/api.h>
#include <arrow/util/utf8.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "data/number_encoding.h"

namespace ektm {
namespace {

bool is_ascii(const uint8_t* data, int64_t size) {
  uint64_t bits = 0;
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    bits |= word;
  }
  for (; i < size; ++i) bits |= static_cast<uint64_t>(data[i]) << 56;
  return (bits & 0x8080808080808080ULL) == 0;
}

// The first element that is no UTF-8, -1 when there is none. Each element by itself: two halves of a character in neighbouring
// cells are two bad cells.
template <class StringArray>
int64_t find_invalid_text(const StringArray& array) {
  if (array.length() == 0) return -1;
  auto first = array.value_offset(0), last = array.value_offset(array.length());
  if (is_ascii(array.raw_data() + first, last - first)) return -1;
  for (int64_t i = 0; i < array.length(); ++i)
    if (array.IsValid(i) && !arrow::util::ValidateUTF8(array.GetView(i))) return i;
  return -1;
}

}  // namespace

int64_t find_invalid_text(const arrow::Array& array) {
  switch (array.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY: return find_invalid_text(static_cast<const arrow::BinaryArray&>(array));
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY: return find_invalid_text(static_cast<const arrow::LargeBinaryArray&>(array));
    default: return -1;
  }
}

bool MissingTexts::is_one_of(std::string_view text) const {
  return std::find(texts_.begin(), texts_.end(), text) != texts_.end();
}

std::string shown(std::string_view text) {
  constexpr size_t kShownBytes = 80;
  return text.size() <= kShownBytes ? std::string(text) : std::string(text.substr(0, kShownBytes)) + "...";
}

CellTexts::CellTexts(std::shared_ptr<arrow::Array> array, const std::string& place) : array_(std::move(array)), place_(place) {
  prepare();
  has_nulls_ = array_->null_count() > 0;
}

void CellTexts::prepare() {
  type_ = array_->type_id();
  switch (type_) {
    case arrow::Type::BINARY: type_ = arrow::Type::STRING; return;  // the same layout
    case arrow::Type::LARGE_BINARY: type_ = arrow::Type::LARGE_STRING; return;
    case arrow::Type::NA:
    case arrow::Type::STRING:
    case arrow::Type::LARGE_STRING:
    case arrow::Type::BOOL:
    case arrow::Type::INT8:
    case arrow::Type::INT16:
    case arrow::Type::INT32:
    case arrow::Type::INT64:
    case arrow::Type::UINT8:
    case arrow::Type::UINT16:
    case arrow::Type::UINT32:
    case arrow::Type::UINT64:
    case arrow::Type::FLOAT:
    case arrow::Type::DOUBLE: return;
    case arrow::Type::DICTIONARY: prepare_dictionary(static_cast<const arrow::DictionaryArray&>(*array_)); return;
    case arrow::Type::LIST: return prepare_list(static_cast<const arrow::ListArray&>(*array_).values());
    case arrow::Type::LARGE_LIST: return prepare_list(static_cast<const arrow::LargeListArray&>(*array_).values());
    case arrow::Type::FIXED_SIZE_LIST: return prepare_list(static_cast<const arrow::FixedSizeListArray&>(*array_).values());
    case arrow::Type::HALF_FLOAT: is_half_float_ = true; [[fallthrough]];
    case arrow::Type::DATE32:
    case arrow::Type::DATE64:
    case arrow::Type::TIME32:
    case arrow::Type::TIME64:
    case arrow::Type::TIMESTAMP:
    case arrow::Type::DECIMAL128:
    case arrow::Type::DECIMAL256:
    case arrow::Type::STRING_VIEW:
    case arrow::Type::BINARY_VIEW: {
      auto cast = arrow::compute::Cast(*array_, arrow::utf8());
      if (!cast.ok()) fail_type();
      array_ = *cast;
      type_ = arrow::Type::STRING;
      return;
    }
    default: fail_type();
  }
}

void CellTexts::prepare_dictionary(const arrow::DictionaryArray& array) {
  elements_ = std::make_unique<CellTexts>(array.dictionary(), place_);
  if (array.indices()->type_id() == arrow::Type::INT32)
    int32_indices_ = static_cast<const arrow::Int32Array&>(*array.indices()).raw_values();
}

void CellTexts::prepare_list(std::shared_ptr<arrow::Array> values) {
  is_list_ = true;
  elements_ = std::make_unique<CellTexts>(std::move(values), place_);
  if (elements_->is_list()) fail_type();
}

namespace {

template <class StringArray>
void get_views(const StringArray& array, bool has_nulls, int64_t first, size_t count, const MissingTexts& missing,
               std::string_view* texts) {
  const char* const bytes = reinterpret_cast<const char*>(array.raw_data());
  const auto* offsets = array.raw_value_offsets() + first;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view text(bytes + offsets[i], static_cast<size_t>(offsets[i + 1] - offsets[i]));
    texts[i] = missing.contains(text) ? std::string_view() : text;
  }
  if (!has_nulls) return;
  for (size_t i = 0; i < count; ++i)
    if (array.IsNull(first + static_cast<int64_t>(i))) texts[i] = {};
}

}  // namespace

void CellTexts::get_block(int64_t first, size_t count, const MissingTexts& missing, std::string_view* texts,
                          std::string& numbers) {
  // A column of empty texts may have no bytes: then a view would not tell them from missing ones.
  if (type_ == arrow::Type::STRING && static_cast<const arrow::BinaryArray&>(*array_).raw_data())
    return get_views(static_cast<const arrow::BinaryArray&>(*array_), has_nulls_, first, count, missing, texts);
  if (type_ == arrow::Type::LARGE_STRING && static_cast<const arrow::LargeBinaryArray&>(*array_).raw_data())
    return get_views(static_cast<const arrow::LargeBinaryArray&>(*array_), has_nulls_, first, count, missing, texts);
  numbers.clear();
  numbers.reserve(count * sizeof buffer_);  // so that views of it stay valid
  const CellTexts* const holder = text_holder();
  for (size_t i = 0; i < count; ++i) {
    std::string_view text;
    if (!get(first + static_cast<int64_t>(i), text) || missing.contains(text)) {
      texts[i] = {};
    } else if (text.data() == holder->buffer_) {
      numbers += text;
      texts[i] = {numbers.data() + numbers.size() - text.size(), text.size()};
    } else {
      texts[i] = text.data() ? text : std::string_view("", 0);
    }
  }
}

template <class Array>
bool CellTexts::copy_numbers(int64_t first, size_t count, double* out) {
  const auto& array = static_cast<const Array&>(*array_);
  const auto* values = array.raw_values() + first;
  double infinite = 0;
  for (size_t i = 0; i < count; ++i) {
    out[i] = static_cast<double>(values[i]);
    infinite += out[i] - out[i];  // NaN when the value is one or infinite
  }
  if (has_nulls_)
    for (size_t i = 0; i < count; ++i)
      if (array.IsNull(first + static_cast<int64_t>(i))) out[i] = std::numeric_limits<double>::quiet_NaN();
  return !std::isnan(infinite) || std::none_of(out, out + count, [](double x) { return std::isinf(x); });
}

bool CellTexts::get_numbers(int64_t first, size_t count, double* out) {
  switch (type_) {
    case arrow::Type::INT8: return copy_numbers<arrow::Int8Array>(first, count, out);
    case arrow::Type::INT16: return copy_numbers<arrow::Int16Array>(first, count, out);
    case arrow::Type::INT32: return copy_numbers<arrow::Int32Array>(first, count, out);
    case arrow::Type::INT64: return copy_numbers<arrow::Int64Array>(first, count, out);
    case arrow::Type::UINT8: return copy_numbers<arrow::UInt8Array>(first, count, out);
    case arrow::Type::UINT16: return copy_numbers<arrow::UInt16Array>(first, count, out);
    case arrow::Type::UINT32: return copy_numbers<arrow::UInt32Array>(first, count, out);
    case arrow::Type::UINT64: return copy_numbers<arrow::UInt64Array>(first, count, out);
    case arrow::Type::DOUBLE: return copy_numbers<arrow::DoubleArray>(first, count, out);
    case arrow::Type::FLOAT: return parse_floats(first, count, out);
    default: return false;
  }
}

// The text of a 32-bit float is its shortest; the double nearest to it is another number. Columns repeat their values, so the
// last ones are remembered.
bool CellTexts::parse_floats(int64_t first, size_t count, double* out) {
  constexpr int kMemoBits = 10;
  if (float_memo_.empty()) float_memo_.resize(size_t{1} << kMemoBits, {0.0f, 0.0});
  const auto& array = static_cast<const arrow::FloatArray&>(*array_);
  for (size_t i = 0; i < count; ++i) {
    const float value = array.Value(first + static_cast<int64_t>(i));
    if (std::isnan(value) || (has_nulls_ && array.IsNull(first + static_cast<int64_t>(i)))) {
      out[i] = std::numeric_limits<double>::quiet_NaN();
      continue;
    }
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    auto& known = float_memo_[(bits * 0x9e3779b1u) >> (32 - kMemoBits)];
    if (std::bit_cast<uint32_t>(known.first) != bits) {
      const char* end = std::to_chars(buffer_, buffer_ + sizeof buffer_, value).ptr;
      const std::optional<double> parsed = parse_finite({buffer_, static_cast<size_t>(end - buffer_)});
      if (!parsed) return false;
      known = {value, *parsed};
    }
    out[i] = known.second;
  }
  return true;
}

std::pair<int64_t, int64_t> CellTexts::list_range(int64_t i) const {
  auto range = [i](const auto& list) {
    return std::pair<int64_t, int64_t>(list.value_offset(i), list.value_offset(i) + list.value_length(i));
  };
  if (type_ == arrow::Type::LIST) return range(static_cast<const arrow::ListArray&>(*array_));
  if (type_ == arrow::Type::LARGE_LIST) return range(static_cast<const arrow::LargeListArray&>(*array_));
  return range(static_cast<const arrow::FixedSizeListArray&>(*array_));
}

void CellTexts::fail_type() const {
  fail(ErrorKind::Data, place_,
       "the column has the type {}; expected text, numbers, bools, dates, or lists of them. Convert the column.",
       array_->type()->ToString());
}

int64_t CellTexts::find_invalid() const {
  if (!is_list_) return find_invalid_text(*array_);
  int64_t bad = find_invalid_text(*elements_->array_);
  for (int64_t i = 0; bad >= 0 && i < array_->length(); ++i) {
    auto [first, last] = list_range(i);
    if (first <= bad && bad < last && array_->IsValid(i)) return i;
  }
  return -1;
}

}  // namespace ektm
