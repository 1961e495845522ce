#pragma once
// Label expressions over the columns of a row: `is_click`, `income == "1"`, `marital_stat == "Never married"`,
// `education in ["Masters degree", "Doctorate degree"]`, `play_time_ms > 3000`, `not is_hate`, `a and (b or c)`, `tab != 3`.
// Comparison with a quoted text compares texts; with an unquoted number compares numbers. A bare column must hold 0 or 1.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ektm {

// A cell as the expression sees it: text, or missing. Numbers of Parquet/Arrow columns arrive as their decimal text.
struct Cell {
  std::string_view text;
  bool missing = false;
};

enum class Truth : uint8_t { False = 0, True = 1, Unknown = 2 };  // Unknown: a column that decides it is missing

class Expression {
 public:
  // Error Config (where = `where`) with the position in the text when it cannot be parsed.
  static Expression parse(const std::string& text, const std::string& where);
  const std::string& text() const;
  const std::vector<std::string>& columns() const;  // each once, in order of first use
  // `cells` aligned with columns(). Error Data with `where` = the column's name when a bare column is neither 0 nor 1 ("0", "1",
  // "0.0", "1.0", "true", "false") or a compared number is no number; the caller adds file and row.
  Truth evaluate(const std::vector<Cell>& cells) const;

  struct Node;

 private:
  std::string text_;
  std::vector<std::string> columns_;
  std::shared_ptr<const Node> root_;
};

}  // namespace ektm
