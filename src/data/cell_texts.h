#pragma once
// Cells of Arrow columns as texts, and what makes a cell missing.
#include <arrow/api.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace ektm {

// Texts that mean "missing". Nearly every cell is ruled out by its first byte and length.
class MissingTexts {
 public:
  explicit MissingTexts(const std::vector<std::string>& texts) : texts_(texts) {
    for (const auto& text : texts_) {
      lengths_[first_byte(text)] |= length_bit(text);
      has_numbers_ |= std::any_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    }
  }
  bool has_numbers() const { return has_numbers_; }  // a number's text may be among them
  bool contains(std::string_view text) const {
    return (lengths_[first_byte(text)] & length_bit(text)) != 0 && is_one_of(text);
  }

 private:
  bool is_one_of(std::string_view text) const;
  static uint8_t first_byte(std::string_view text) { return text.empty() ? 0 : static_cast<uint8_t>(text[0]); }
  static uint64_t length_bit(std::string_view text) { return uint64_t{1} << std::min<size_t>(text.size(), 63); }

  std::vector<std::string> texts_;
  std::array<uint64_t, 256> lengths_{};  // by first byte: the lengths that occur
  bool has_numbers_ = false;
};

inline constexpr const char* kNotUtf8 =
    "found bytes that are not UTF-8; expected text in UTF-8. Convert the file, e.g. iconv -f latin1 -t utf-8.";

// The first element of a text array that is no UTF-8, -1 when there is none (or it holds no texts).
int64_t find_invalid_text(const arrow::Array& array);

// A cell for a message: its first 80 bytes.
std::string shown(std::string_view text);

// The elements of an array as texts.
class CellTexts {
 public:
  // Errors name `place`: file and column.
  CellTexts(std::shared_ptr<arrow::Array> array, const std::string& place);

  bool is_float() const {
    if (elements_) return elements_->is_float();
    return type_ == arrow::Type::FLOAT || type_ == arrow::Type::DOUBLE || is_half_float_;
  }
  bool is_list() const { return is_list_ || (type_ == arrow::Type::DICTIONARY && elements_->is_list()); }

  // False: missing. `text` is valid until the next call.
  bool get(int64_t i, std::string_view& text) {
    if (has_nulls_ && array_->IsNull(i)) return false;
    switch (type_) {
      case arrow::Type::STRING: text = static_cast<const arrow::BinaryArray&>(*array_).GetView(i); return true;
      case arrow::Type::LARGE_STRING: text = static_cast<const arrow::LargeBinaryArray&>(*array_).GetView(i); return true;
      case arrow::Type::BOOL: text = static_cast<const arrow::BooleanArray&>(*array_).Value(i) ? "1" : "0"; return true;
      case arrow::Type::INT8: return number<arrow::Int8Array>(i, text);
      case arrow::Type::INT16: return number<arrow::Int16Array>(i, text);
      case arrow::Type::INT32: return number<arrow::Int32Array>(i, text);
      case arrow::Type::INT64: return number<arrow::Int64Array>(i, text);
      case arrow::Type::UINT8: return number<arrow::UInt8Array>(i, text);
      case arrow::Type::UINT16: return number<arrow::UInt16Array>(i, text);
      case arrow::Type::UINT32: return number<arrow::UInt32Array>(i, text);
      case arrow::Type::UINT64: return number<arrow::UInt64Array>(i, text);
      case arrow::Type::FLOAT: return number<arrow::FloatArray>(i, text);
      case arrow::Type::DOUBLE: return number<arrow::DoubleArray>(i, text);
      case arrow::Type::DICTIONARY: return elements_->get(dictionary_index(i), text);
      default: return false;  // Type::NA
    }
  }

  // The texts of count elements from `first`; of those missing data() == nullptr. Texts of numbers lie in `numbers`; all are
  // valid until the next call with it, and as long as the array.
  void get_block(int64_t first, size_t count, const MissingTexts& missing, std::string_view* texts, std::string& numbers);
  // The same elements as doubles, NaN = missing: exactly what parsing their texts gives. False when that takes the texts, since
  // they are none of numbers, or one is infinite.
  bool get_numbers(int64_t first, size_t count, double* out);

  // Likewise as whole numbers, 0 and false in `known` where missing. False when that takes the texts, since they are none of whole
  // numbers, or one is negative.
  bool get_whole_numbers(int64_t first, size_t count, uint64_t* out, bool* known);

  // The elements of `count` lists from `first` that are neither missing nor empty: of list first + i those up to ends[i]. Both are
  // replaced; texts are valid as those of get_block().
  void get_elements(int64_t first, size_t count, const MissingTexts& missing, std::vector<std::string_view>& out,
                    std::vector<size_t>& ends, std::string& numbers);
  // Of lists only: the place of list i among the elements, empty when it is null; and all the elements.
  std::pair<int64_t, int64_t> list_range(int64_t i) const;
  const std::shared_ptr<arrow::Array>& list_elements() const { return elements_->array_; }

  // The first row with a text that is not UTF-8, -1 when there is none.
  int64_t find_invalid();

 private:
  void prepare();
  void prepare_dictionary(const arrow::DictionaryArray& array);
  void prepare_list(std::shared_ptr<arrow::Array> values);
  int64_t dictionary_index(int64_t i) const {
    return int32_indices_ ? int32_indices_[i] : static_cast<const arrow::DictionaryArray&>(*array_).GetValueIndex(i);
  }
  // Whose buffer_ holds the text of a number: that of the dictionary's values for a dictionary.
  const CellTexts* text_holder() const { return type_ == arrow::Type::DICTIONARY ? elements_->text_holder() : this; }
  bool has_invalid(int64_t i);
  [[noreturn]] void fail_type() const;
  template <class Array>
  bool copy_numbers(const Array& array, int64_t first, size_t count, double* out);
  bool parse_floats(int64_t first, size_t count, double* out);

  template <class Array>
  bool number(int64_t i, std::string_view& text) {
    auto value = static_cast<const Array&>(*array_).Value(i);
    if constexpr (std::is_floating_point_v<decltype(value)>)
      if (std::isnan(value)) return false;
    text = {buffer_, static_cast<size_t>(std::to_chars(buffer_, buffer_ + sizeof buffer_, value).ptr - buffer_)};
    return true;
  }

  std::shared_ptr<arrow::Array> array_;
  std::string place_;
  arrow::Type::type type_ = arrow::Type::NA;
  bool has_nulls_ = false, is_list_ = false, is_half_float_ = false;
  const int32_t* int32_indices_ = nullptr;  // of a dictionary; the usual type, that of joined columns
  std::unique_ptr<CellTexts> elements_;     // of a list: its values; of a dictionary: the dictionary
  std::vector<std::pair<float, double>> float_memo_;
  std::vector<std::string_view> views_;
  char buffer_[32];
};

}  // namespace ektm
