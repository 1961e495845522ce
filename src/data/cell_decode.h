#pragma once
// What a cell means to a feature: the same for fitting and encoding.
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "data/cell_memo.h"
#include "data/number_encoding.h"
#include "data/vocabulary.h"

namespace ektm {

// The place of a cell for messages: `row` is a row of the chunk, whatever the reader calls it.
struct CellPlace {
  const RawChunk& chunk;
  const std::string& column;
  int64_t row;
  std::string where() const { return chunk.where(row, column); }
};

// Ids are texts; a float cannot hold 64-bit ids, and 1 and 1.0 would be different values.
inline void check_id_column(const CellReader& reader, const RawChunk& chunk, const std::string& column) {
  if (reader.is_float())
    fail(ErrorKind::Data, chunk.file + ", column " + column,
         "found a floating type; expected whole numbers or text, since floats change ids above 2^53. Write the column as "
         "integers or text, or "
         "give the feature the kind number.");
}

// Called for values that are not known to be good. Parquet could not hold such an id, and a float would have lost digits.
inline void check_id_text(std::string_view text, const CellPlace& place) {
  constexpr size_t kAlwaysFits = 18;  // digits
  if (text.size() <= kAlwaysFits) return;
  const char* first = text.data();
  const char* last = first + text.size();
  const char* digits = *first == '-' ? first + 1 : first;
  for (const char* c = digits; c != last; ++c)
    if (*c < '0' || *c > '9') return;
  uint64_t positive;
  int64_t negative;
  const std::errc error = digits == first ? std::from_chars(first, last, positive).ec : std::from_chars(first, last, negative).ec;
  if (error == std::errc::result_out_of_range)
    fail(ErrorKind::Data, place.where(),
         "found the id {}, a whole number beyond 64 bits; expected one of at most 64 bits, or text. Put a letter "
         "before such ids, or split them into two columns.",
         text);
}

// NaN: missing.
inline double decode_number(CellReader& reader, int64_t cell_number, const CellPlace& place) {
  const Cell cell = reader.cell(cell_number);
  if (cell.missing) return std::numeric_limits<double>::quiet_NaN();
  const std::optional<double> value = parse_finite(cell.text);
  if (!value)
    fail(ErrorKind::Data, place.where(),
         "found '{}'; expected a finite number. Correct the data, add the text to `missing` in the schema, or give "
         "the feature the kind id.",
         cell.text);
  return *value;
}

// The values of a list that count: the newest (last) of a sequence, the first of a set.
inline std::span<const std::string> kept_elements(const std::vector<std::string>& elements, const Feature& feature) {
  const size_t limit = static_cast<size_t>(feature.max_length);
  const std::span<const std::string> all(elements);
  if (all.size() <= limit) return all;
  return feature.kind == FeatureKind::Sequence ? all.last(limit) : all.first(limit);
}

// The texts of some cells and their hashes, read ahead of their look-ups in a vocabulary.
class TextBlock {
 public:
  static constexpr size_t kMaxRows = 256;

  // At most kMaxRows `rows` of the reader.
  void read(CellReader& reader, std::span<const int64_t> rows, const Vocabulary& vocabulary) {
    count_ = rows.size();
    bytes_.clear();
    for (size_t i = 0; i < count_; ++i) {
      const Cell cell = reader.cell(rows[i]);
      missing_[i] = cell.missing;
      if (!cell.missing) {
        bytes_ += cell.text;
        hashes_[i] = hash64(cell.text);
        vocabulary.prefetch_slot(hashes_[i]);
      }
      ends_[i] = bytes_.size();
    }
    for (size_t i = 0; i < count_; ++i)
      if (!missing_[i]) vocabulary.prefetch_text(hashes_[i]);
  }

  size_t size() const { return count_; }
  bool missing(size_t i) const { return missing_[i]; }
  uint64_t hash(size_t i) const { return hashes_[i]; }
  std::string_view text(size_t i) const {
    const size_t start = i == 0 ? 0 : ends_[i - 1];
    return {bytes_.data() + start, ends_[i] - start};
  }

 private:
  size_t count_ = 0;
  std::string bytes_;
  std::array<size_t, kMaxRows> ends_;
  std::array<uint64_t, kMaxRows> hashes_;
  std::array<bool, kMaxRows> missing_;
};

}  // namespace ektm
