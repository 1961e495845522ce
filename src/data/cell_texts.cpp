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

namespace {

// visit(array), as its own type, of whole numbers; false for others.
template <class Visit>
bool visit_whole_numbers(const arrow::Array& array, arrow::Type::type type, const Visit& visit) {
  switch (type) {
    case arrow::Type::INT8: visit(static_cast<const arrow::Int8Array&>(array)); return true;
    case arrow::Type::INT16: visit(static_cast<const arrow::Int16Array&>(array)); return true;
    case arrow::Type::INT32: visit(static_cast<const arrow::Int32Array&>(array)); return true;
    case arrow::Type::INT64: visit(static_cast<const arrow::Int64Array&>(array)); return true;
    case arrow::Type::UINT8: visit(static_cast<const arrow::UInt8Array&>(array)); return true;
    case arrow::Type::UINT16: visit(static_cast<const arrow::UInt16Array&>(array)); return true;
    case arrow::Type::UINT32: visit(static_cast<const arrow::UInt32Array&>(array)); return true;
    case arrow::Type::UINT64: visit(static_cast<const arrow::UInt64Array&>(array)); return true;
    default: return false;
  }
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
  const bool is_whole = visit_whole_numbers(*array_, type_, [&](const auto& array) {
    static constexpr char kDigits[] = "0123456789";  // labels are little else
    for (size_t i = 0; i < count; ++i) {
      const int64_t at = first + static_cast<int64_t>(i);
      const auto value = array.Value(at);
      if (has_nulls_ && array.IsNull(at)) {
        texts[i] = {};
        continue;
      }
      if (value >= 0 && value <= 9) {
        texts[i] = {kDigits + value, 1};
      } else {
        const char* const end = std::to_chars(buffer_, buffer_ + sizeof buffer_, value).ptr;
        const size_t size = static_cast<size_t>(end - buffer_);
        numbers.append(buffer_, size);
        texts[i] = {numbers.data() + numbers.size() - size, size};
      }
      if (missing.contains(texts[i])) texts[i] = {};
    }
  });
  if (is_whole) return;
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
bool CellTexts::copy_numbers(const Array& array, int64_t first, size_t count, double* out) {
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
  if (type_ == arrow::Type::DOUBLE) return copy_numbers(static_cast<const arrow::DoubleArray&>(*array_), first, count, out);
  if (type_ == arrow::Type::FLOAT) return parse_floats(first, count, out);
  return visit_whole_numbers(*array_, type_, [&](const auto& array) { copy_numbers(array, first, count, out); });
}

bool CellTexts::get_whole_numbers(int64_t first, size_t count, uint64_t* out, bool* known) {
  bool has_negative = false;
  const bool is_whole = visit_whole_numbers(*array_, type_, [&](const auto& array) {
    const auto* values = array.raw_values() + first;
    for (size_t i = 0; i < count; ++i) {
      known[i] = !has_nulls_ || array.IsValid(first + static_cast<int64_t>(i));
      const auto value = known[i] ? values[i] : 0;
      has_negative |= value < 0;
      out[i] = static_cast<uint64_t>(value);
    }
  });
  return is_whole && !has_negative;
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
  if (has_nulls_ && array_->IsNull(i)) return {0, 0};
  auto range = [i](const auto& list) {
    return std::pair<int64_t, int64_t>(list.value_offset(i), list.value_offset(i) + list.value_length(i));
  };
  if (type_ == arrow::Type::LIST) return range(static_cast<const arrow::ListArray&>(*array_));
  if (type_ == arrow::Type::LARGE_LIST) return range(static_cast<const arrow::LargeListArray&>(*array_));
  return range(static_cast<const arrow::FixedSizeListArray&>(*array_));
}

void CellTexts::get_elements(int64_t first, size_t count, const MissingTexts& missing, std::vector<std::string_view>& out,
                             std::vector<size_t>& ends, std::string& numbers) {
  const bool is_dictionary = type_ == arrow::Type::DICTIONARY;  // of lists
  const CellTexts& lists = is_dictionary ? *elements_ : *this;
  auto range_of = [&](size_t list) {
    const int64_t i = first + static_cast<int64_t>(list);
    if (!is_dictionary) return list_range(i);
    return has_nulls_ && array_->IsNull(i) ? std::pair<int64_t, int64_t>() : elements_->list_range(dictionary_index(i));
  };
  int64_t begin = std::numeric_limits<int64_t>::max(), end = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto [low, high] = range_of(i);
    if (low < high) begin = std::min(begin, low), end = std::max(end, high);
  }
  begin = std::min(begin, end);
  views_.resize(static_cast<size_t>(end - begin));
  lists.elements_->get_block(begin, views_.size(), missing, views_.data(), numbers);
  out.clear();
  ends.clear();
  for (size_t i = 0; i < count; ++i) {
    const auto [low, high] = range_of(i);
    for (int64_t k = low; k < high; ++k)
      if (const std::string_view text = views_[static_cast<size_t>(k - begin)]; !text.empty()) out.push_back(text);
    ends.push_back(out.size());
  }
}

void CellTexts::fail_type() const {
  fail(ErrorKind::Data, place_,
       "the column has the type {}; expected text, numbers, bools, dates, or lists of them. Convert the column.",
       array_->type()->ToString());
}

int64_t CellTexts::find_invalid() {
  const bool is_dictionary = type_ == arrow::Type::DICTIONARY;
  if (!is_list_ && !is_dictionary) return find_invalid_text(*array_);
  if (elements_->find_invalid() < 0) return -1;
  // There is one, but perhaps no row has it.
  for (int64_t i = 0; i < array_->length(); ++i) {
    if (has_nulls_ && array_->IsNull(i)) continue;
    const auto [first, last] = is_dictionary ? std::pair(dictionary_index(i), dictionary_index(i) + 1) : list_range(i);
    for (int64_t k = first; k < last; ++k)
      if (elements_->has_invalid(k)) return i;
  }
  return -1;
}

bool CellTexts::has_invalid(int64_t i) {
  if (is_list_) {
    const auto [first, last] = list_range(i);
    for (int64_t k = first; k < last; ++k)
      if (elements_->has_invalid(k)) return true;
    return false;
  }
  std::string_view text;
  return get(i, text) && !arrow::util::ValidateUTF8(text);
}

}  // namespace ektm
