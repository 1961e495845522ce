#pragma once
// The cells of CSV text. A quote opens a quoted cell only at the cell's start; inside, two quotes are one, and commas and line
// ends are text; what follows the closing quote belongs to the cell. A line ends with \n, \r or \r\n; blank lines are no rows.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace ektm {

struct CsvCell {
  uint32_t begin;           // offset in the text
  uint32_t end : 31;
  uint32_t is_escaped : 1;  // the range begins with a quote and must go through unescape_csv()
};

// Appends the text of an escaped cell to `out`, which has room for as many bytes as `raw`; returns the bytes appended.
size_t unescape_csv(std::string_view raw, char* out);

class CsvTokenizer {
 public:
  static constexpr size_t kMaxTextBytes = size_t{1} << 30;

  enum class Stop {
    Full,       // max_rows were read
    End,        // no whole row is left; consumed() tells how much of the text the rows took
    Ragged,     // the next row has `ragged().found` columns; a further call goes on behind it
    OpenQuote,  // the final text ended inside quotes
  };
  struct Ragged {
    std::string_view text;  // of the row, without its line end
    int64_t found = 0;
  };

  explicit CsvTokenizer(size_t columns) : columns_(columns) {}
  // `text` begins with a row and outlives the calls of read(). `is_final`: nothing follows, so that its end ends a row.
  void begin(std::string_view text, bool is_final);
  // The cells of at most `max_rows` rows, row after row, replace `cells` (room for max_rows * columns). Sets `rows` to their
  // number.
  Stop read(CsvCell* cells, size_t max_rows, size_t& rows);
  size_t consumed() const { return at_; }
  const Ragged& ragged() const { return ragged_; }

 private:
  bool find_marks();
  // The offset of the next mark, size of the text when there is none.
  uint32_t mark() {
    if (next_mark_ == marks_count_ && !find_marks()) return static_cast<uint32_t>(text_.size());
    return marks_[next_mark_];
  }

  // Marks: offsets of commas, quotes and line ends, found for a window of the text at a time.
  static constexpr size_t kWindowBytes = 4096;
  size_t columns_;
  std::string_view text_;
  bool is_final_ = false;
  size_t at_ = 0;            // begin of the next row
  size_t window_end_ = 0;
  uint32_t marks_[kWindowBytes + 8];
  size_t marks_count_ = 0, next_mark_ = 0;
  Ragged ragged_;
};

}  // namespace ektm
