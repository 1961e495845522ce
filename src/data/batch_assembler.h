#pragma once
// Coded chunks -> batches: final rows of the tables, bins, normalised numbers.
#include <span>

#include "data/coded_chunk.h"
#include "data/encoder_fit.h"

namespace ektm {

class BatchAssembler {
 public:
  // `maps`: of chunks with provisional rows. Both must outlive the assembler.
  explicit BatchAssembler(const EncoderSet& encoders, const RowMaps* maps = nullptr) : set_(encoders), maps_(maps) {}
  // Replaces `batch` by the given rows of the chunk and adds to `counts`. Errors name rows of `place`, whose cells are not read.
  void assemble(const CodedChunk& coded, const RawChunk& place, std::span<const int64_t> rows, Batch& batch,
                EncodeCounts& counts) const;

 private:
  void put_field(const CodedColumn& column, size_t f, std::span<const int64_t> rows, int32_t* ids,
                 EncodeCounts::Field& counts) const;
  void put_number(const CodedColumn& column, const RawChunk& place, size_t f, std::span<const int64_t> rows, float* numbers,
                  EncodeCounts::Field& counts) const;
  void put_bag(const CodedColumn& column, size_t f, std::span<const int64_t> rows, Bag& bag, EncodeCounts::Field& counts) const;
  // nullptr: the codes are final.
  const int32_t* map_of(size_t table) const {
    return maps_ && !maps_->tables[table].empty() ? maps_->tables[table].data() : nullptr;
  }

  const EncoderSet& set_;
  const RowMaps* maps_;
};

}  // namespace ektm
