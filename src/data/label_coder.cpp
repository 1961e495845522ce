#include "data/label_coder.h"

#include <algorithm>

#include "base/error.h"
#include "data/coded_chunk.h"

namespace ektm {

LabelCoder::LabelCoder(const Schema& schema) : schema_(schema), parents_(schema.parents()) {
  for (const auto& task : schema.tasks) {
    labels_.push_back(plan(task.label, "task " + task.name));
    observed_.push_back(task.observed.empty() ? Plan{} : plan(task.observed, "task " + task.name));
  }
  cells_.assign(columns_.size(), std::vector<Cell>(kBlockRows));
}

LabelCoder::Plan LabelCoder::plan(const std::string& text, const std::string& where) {
  Plan plan;
  plan.expression = Expression::parse(text, where);
  for (const auto& column : plan.expression->columns()) {
    const size_t index = static_cast<size_t>(std::find(columns_.begin(), columns_.end(), column) - columns_.begin());
    if (index == columns_.size()) columns_.push_back(column);
    plan.columns.push_back(index);
  }
  plan.cells.resize(plan.columns.size());
  return plan;
}

void LabelCoder::code(const RawChunk& chunk, std::vector<uint8_t>& labels) {
  const size_t tasks = labels_.size(), rows = static_cast<size_t>(chunk.rows());
  std::vector<CellReader> readers;
  for (const auto& column : columns_) readers.emplace_back(chunk, chunk.columns->schema()->GetFieldIndex(column), schema_);
  labels.resize(rows * tasks);
  for (size_t start = 0; start < rows; start += kBlockRows) {
    const size_t count = std::min(kBlockRows, rows - start);
    for (size_t c = 0; c < columns_.size(); ++c) readers[c].cells(static_cast<int64_t>(start), count, cells_[c].data());
    for (size_t i = 0; i < count; ++i) {
      const int64_t row = static_cast<int64_t>(start + i);
      uint8_t* bits = &labels[(start + i) * tasks];
      for (size_t t = 0; t < tasks; ++t) {
        const bool reached = parents_[t] < 0 || (bits[parents_[t]] & kLabelBit) != 0;
        const Truth truth = evaluate(labels_[t], chunk, row, i);
        const bool known =
            truth != Truth::Unknown && (!observed_[t].expression || evaluate(observed_[t], chunk, row, i) == Truth::True);
        bits[t] = 0;
        if (reached && known) bits[t] = kObservedBit | (truth == Truth::True ? kLabelBit : 0);
        if (!reached && truth == Truth::True) bits[t] = kOrphanBit;
      }
    }
  }
}

// `at`: the row's place in the block.
Truth LabelCoder::evaluate(Plan& plan, const RawChunk& chunk, int64_t row, size_t at) {
  std::optional<Truth>* known = nullptr;
  if (plan.columns.size() == 1) {
    const Cell& cell = cells_[plan.columns[0]][at];
    if (cell.missing)
      known = &plan.of_missing;
    else if (cell.text.size() == 1)
      known = &plan.of_byte[static_cast<uint8_t>(cell.text[0])];
    if (known && *known) return **known;
  }
  for (size_t c = 0; c < plan.columns.size(); ++c) plan.cells[c] = cells_[plan.columns[c]][at];
  try {
    const Truth truth = plan.expression->evaluate(plan.cells);
    if (known) *known = truth;
    return truth;
  } catch (const Error& error) {
    throw Error(error.kind(), chunk.where(row, error.where()), error.message());
  }
}

}  // namespace ektm
