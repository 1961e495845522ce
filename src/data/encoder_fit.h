#pragma once
// Fits the encoders by one pass over the training split.
#include <memory>
#include <span>
#include <vector>

#include "data/cell_coder.h"

namespace ektm {

// The final row of each provisional one (kMissingRow and kOovRow stay).
struct RowMaps {
  std::vector<std::vector<int32_t>> tables;  // aligned with EncoderSet::tables; empty = all stay
  std::vector<int32_t> scenarios;            // by code; -1 = only in rows that were not fitted
};

struct FittedEncoders {
  std::unique_ptr<EncoderSet> encoders;
  RowMaps maps;  // of the chunks that were added
};

class EncoderFitter {
 public:
  explicit EncoderFitter(Schema schema);
  ~EncoderFitter();
  // Codes all rows of the chunk with provisional rows into `coded`, after its begin(), and fits on those of them in `fitted`
  // (ascending): each part once. Different parts may run in different threads.
  size_t parts() const;
  void add(size_t part, const RawChunk& chunk, std::span<const int64_t> fitted, CodedChunk& coded);
  FittedEncoders finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ektm
