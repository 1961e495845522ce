#pragma once
// The rows of a chunk without what only the fit can tell: where a number lies among all, which values are rare.
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ektm {

// A value's code is a row of its table, kMissingRow included. While values are still learned the rows are provisional, in the
// order of first appearance, and RowMaps (encoder_fit.h) give the final ones.
struct CodedColumn {             // of one feature
  std::vector<int32_t> codes;    // Id: [rows]; Ids, Sequence: values
  std::vector<int32_t> offsets;  // Ids, Sequence: [rows + 1] into `codes`; an empty list is {kMissingRow}
  std::vector<double> numbers;   // Number: [rows], NaN = missing
};

inline constexpr uint8_t kLabelBit = 1, kObservedBit = 2;
inline constexpr uint8_t kOrphanBit = 4;  // label true, though the `after` event is not known to have happened: unobserved

struct CodedChunk {
  void begin(int64_t row_count, size_t feature_count) {
    rows = row_count;
    features.resize(feature_count);
  }

  int64_t rows = 0;
  std::vector<CodedColumn> features;  // aligned with schema.features
  std::vector<uint8_t> labels;        // [rows, K], bits
  std::vector<float> weights;         // [rows], empty = 1
  std::vector<uint64_t> groups;       // [rows], hash of the group column; empty = none
  std::vector<int32_t> scenarios;     // [rows] codes, -1 = missing or unknown; empty = none
};

}  // namespace ektm
