#pragma once
// Aligned columns for the terminal.
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ektm {

class TextTable {
 public:
  enum class Align { Left, Right };
  // One alignment a column.
  explicit TextTable(std::vector<Align> columns) : columns_(std::move(columns)) {}
  // As many cells as columns.
  void row(std::vector<std::string> cells);
  // A line of its own between the rows; it does not widen any column. "" = an empty line.
  void line(std::string text);
  // Two blanks between columns, no blanks at line ends, every line ends in '\n'. Widths count code points.
  std::string to_string() const;

 private:
  struct Line {
    std::vector<std::string> cells;  // empty: `text` is the line
    std::string text;
  };
  std::vector<Align> columns_;
  std::vector<Line> lines_;
};

// `value` with `digits` decimals, "-" when absent.
std::string number_or_dash(const std::optional<double>& value, int digits);

}  // namespace ektm
