#pragma once
// Raw cells -> codes and numbers. The one way of every cell of prepare and predict: no skew.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/coded_chunk.h"
#include "data/encoder_set.h"
#include "data/raw_reader.h"

namespace ektm {

class CellCoder {
 public:
  enum class Mode {
    Learn,    // a new value gets the next provisional row of its table
    Encode,   // a value that `set` does not know has kOovRow
    Predict,  // likewise; columns of labels and roles may be absent from the chunk, which then has them with the type null
  };
  // `set` must outlive the coder.
  CellCoder(const EncoderSet& set, Mode mode);
  ~CellCoder();

  // Codes all rows of the chunk into `coded`, after its begin(): each part once. Different parts may run in different threads.
  size_t parts() const;
  std::span<const size_t> features_of(size_t part) const;
  void code(size_t part, const RawChunk& chunk, CodedChunk& coded);

  // Learn: the values seen in each table (aligned with set.tables) and the scenarios; value i has row kFirstValueRow + i, a
  // scenario the code i.
  const Vocabulary& seen(size_t table) const;
  const Vocabulary& seen_scenarios() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ektm
