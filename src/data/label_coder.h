#pragma once
// The labels and masks of the tasks, from the raw columns that they read.
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "data/expression.h"
#include "data/raw_reader.h"
#include "data/schema.h"

namespace ektm {

class LabelCoder {
 public:
  // `schema` must outlive the coder.
  explicit LabelCoder(const Schema& schema);
  // labels: [rows, K], bits of coded_chunk.h.
  void code(const RawChunk& chunk, std::vector<uint8_t>& labels);

 private:
  struct Plan {  // of one expression
    std::optional<Expression> expression;
    std::vector<size_t> columns;  // into columns_
    std::vector<Cell> cells;
    // Of an expression over one column: the truth of a missing cell and of each cell of one byte, once it is known.
    std::optional<Truth> of_missing;
    std::array<std::optional<Truth>, 256> of_byte;
  };

  Plan plan(const std::string& text, const std::string& where);
  Truth evaluate(Plan& plan, const RawChunk& chunk, int64_t row, size_t at);

  static constexpr size_t kBlockRows = 256;
  const Schema& schema_;
  std::vector<int> parents_;
  std::vector<std::string> columns_;
  std::vector<Plan> labels_, observed_;
  std::vector<std::vector<Cell>> cells_;  // of a block, by column
};

}  // namespace ektm
