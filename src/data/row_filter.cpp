#include "data/row_filter.h"

#include "base/error.h"

namespace ektm {

void RowFilter::select(const RawChunk& chunk, const Schema& schema, std::vector<bool>& kept) const {
  std::vector<CellReader> readers;
  for (const auto& column : columns()) readers.emplace_back(chunk, chunk.columns->schema()->GetFieldIndex(column), schema);
  std::vector<Cell> cells(readers.size());
  for (int64_t row = 0; row < chunk.rows(); ++row) {
    for (size_t c = 0; c < readers.size(); ++c) cells[c] = readers[c].cell(row);
    try {
      kept.push_back(expression_.evaluate(cells) == Truth::True);
    } catch (const Error& error) {
      throw Error(error.kind(), chunk.where(row, error.where()), error.message());
    }
  }
}

}  // namespace ektm
