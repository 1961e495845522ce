#pragma once
// What a cell means to a feature: the same for fitting and encoding.
#include <charconv>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/number_encoding.h"
#include "data/raw_reader.h"

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
inline double decode_number(const Cell& cell, const CellPlace& place) {
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
inline std::span<const std::string_view> kept_elements(std::span<const std::string_view> all, const Feature& feature) {
  const size_t limit = static_cast<size_t>(feature.max_length);
  if (all.size() <= limit) return all;
  return feature.kind == FeatureKind::Sequence ? all.last(limit) : all.first(limit);
}

}  // namespace ektm
