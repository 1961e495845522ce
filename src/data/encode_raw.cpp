#include <numeric>

#include "base/error.h"
#include "data/batch_assembler.h"
#include "data/cell_coder.h"
#include "data/encoder.h"

namespace ektm {

void encode_raw(const Encoders& encoders, const RawInput& input,
                const std::function<void(const Batch& batch, const std::shared_ptr<arrow::RecordBatch>& raw)>& consume) {
  const auto* set = dynamic_cast<const EncoderSet*>(&encoders);
  EKTM_CHECK(set);
  RawReader::Options options;
  options.keep_own_columns = true;
  options.optional_columns = other_columns(set->schema());
  RawReader reader(input, set->schema(), needed_columns(set->schema()), options);
  CellCoder coder(*set, CellCoder::Mode::Predict);
  const BatchAssembler assembler(*set);
  RawChunk chunk;
  CodedChunk coded;
  Batch batch;
  EncodeCounts counts;
  std::vector<int64_t> rows;
  while (reader.next(chunk)) {
    coded.begin(chunk.rows(), set->schema().features.size());
    for (size_t part = 0; part < coder.parts(); ++part) coder.code(part, chunk, coded);
    rows.resize(static_cast<size_t>(chunk.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    assembler.assemble(coded, chunk, rows, batch, counts);
    consume(batch, chunk.own);
  }
}

}  // namespace ektm
