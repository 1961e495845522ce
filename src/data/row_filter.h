#pragma once
// Which rows of raw chunks belong to a split, or to a side table: those where an expression over their columns is true.
#include <string>
#include <vector>

#include "data/expression.h"
#include "data/raw_reader.h"

namespace ektm {

class RowFilter {
 public:
  // Error Config in `where` when `text` cannot be parsed.
  RowFilter(const std::string& text, const std::string& where) : expression_(Expression::parse(text, where)) {}
  const std::vector<std::string>& columns() const { return expression_.columns(); }
  const std::string& text() const { return expression_.text(); }
  // Appends one entry a row of the chunk: kept or not; unknown, as a cell that decides it is missing, is not. Error Data names file, row, column.
  void select(const RawChunk& chunk, const Schema& schema, std::vector<bool>& kept) const;

 private:
  Expression expression_;
};

}  // namespace ektm
