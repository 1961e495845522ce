#include "metrics/text_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace ektm {
namespace {

// Code points of UTF-8: bytes that are no continuation.
size_t display_width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

void TextTable::row(std::vector<std::string> cells) {
  EKTM_CHECK(cells.size() == columns_.size());
  lines_.push_back({std::move(cells), ""});
}

void TextTable::line(std::string text) {
  lines_.push_back({{}, std::move(text)});
}

std::string TextTable::to_string() const {
  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto& line : lines_)
    for (size_t c = 0; c < line.cells.size(); ++c) widths[c] = std::max(widths[c], display_width(line.cells[c]));
  std::string result;
  for (const auto& line : lines_) {
    std::string shown = line.text;
    for (size_t c = 0; c < line.cells.size(); ++c) {
      const std::string blanks(widths[c] - display_width(line.cells[c]), ' ');
      if (c > 0) shown += "  ";
      shown += columns_[c] == Align::Left ? line.cells[c] + blanks : blanks + line.cells[c];
    }
    shown.erase(shown.find_last_not_of(' ') + 1);
    result += shown + "\n";
  }
  return result;
}

std::string number_or_dash(const std::optional<double>& value, int digits) {
  return value ? fmt::format("{:.{}f}", *value, digits) : "-";
}

}  // namespace ektm
