#include "data/csv_tokenizer.h"

#include <arrow/csv/options.h>
#include <arrow/csv/parser.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/random.h"

namespace ektm {
namespace {

using Stop = CsvTokenizer::Stop;
using Rows = std::vector<std::vector<std::string>>;

std::vector<std::string> texts_of(std::string_view text, const CsvCell* cells, size_t count) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view raw = text.substr(cells[i].begin, cells[i].end - cells[i].begin);
    std::string cell(raw);
    if (cells[i].is_escaped) cell.resize(unescape_csv(raw, cell.data()));
    texts.push_back(cell);
  }
  return texts;
}

// The whole rows at the begin of `text`, ragged ones marked by a cell "ragged N"; cuts `consumed` to what they take.
Rows read_rows(std::string_view text, size_t columns, bool is_final, size_t& consumed, size_t max_rows = 3) {
  CsvTokenizer tokenizer(columns);
  tokenizer.begin(text, is_final);
  std::vector<CsvCell> cells(columns * max_rows);
  Rows read;
  for (Stop stop = Stop::Full; stop != Stop::End;) {
    size_t rows = 0;
    stop = tokenizer.read(cells.data(), max_rows, rows);
    for (size_t r = 0; r < rows; ++r) read.push_back(texts_of(text, cells.data() + r * columns, columns));
    if (stop == Stop::Ragged) read.push_back({"ragged " + std::to_string(tokenizer.ragged().found)});
    if (stop == Stop::OpenQuote) {
      read.push_back({"open quote"});
      break;
    }
  }
  consumed = tokenizer.consumed();
  return read;
}
Rows read_rows(std::string_view text, size_t columns) {
  size_t consumed = 0;
  return read_rows(text, columns, true, consumed);
}

TEST(CsvTokenizer, CellsByHand) {
  EXPECT_EQ(read_rows("a,bc\nd,\n", 2), (Rows{{"a", "bc"}, {"d", ""}}));
  EXPECT_EQ(read_rows("\r\n\n a ,\"b,\n\"\r\n\r,", 2), (Rows{{" a ", "b,\n"}, {"", ""}}));
  EXPECT_EQ(read_rows("\"say \"\"a\"\"\",\"\"\n\"\"\"\",x\"y\"", 2), (Rows{{"say \"a\"", ""}, {"\"", "x\"y\""}}));
  EXPECT_EQ(read_rows("\"a\"b\"c,\"\"d\n", 2), (Rows{{"ab\"c", "d"}}));
  EXPECT_EQ(read_rows("a\n\"b\"\n\"\"\n", 1), (Rows{{"a"}, {"b"}, {""}}));
  EXPECT_EQ(read_rows("", 1), Rows{});
}

TEST(CsvTokenizer, RaggedRowsAreToldAndPassed) {
  EXPECT_EQ(read_rows("a,b\nc\nd,e,f\n,\n", 2), (Rows{{"a", "b"}, {"ragged 1"}, {"ragged 3"}, {"", ""}}));
  CsvTokenizer tokenizer(2);
  tokenizer.begin("a\"b\",\"c\n\",d\r\n", false);
  CsvCell cells[2];
  size_t rows = 0;
  EXPECT_EQ(tokenizer.read(cells, 1, rows), Stop::Ragged);
  EXPECT_EQ(tokenizer.ragged().text, "a\"b\",\"c\n\",d");
}

TEST(CsvTokenizer, OnlyWholeRowsAreTaken) {
  size_t consumed = 0;
  EXPECT_EQ(read_rows("a,b\nc,\"d\ne", 2, false, consumed), (Rows{{"a", "b"}}));
  EXPECT_EQ(consumed, 4u);
  EXPECT_EQ(read_rows("a,b\nc,\"d\"", 2, false, consumed), (Rows{{"a", "b"}}));  // a second quote may follow
  EXPECT_EQ(consumed, 4u);
  EXPECT_EQ(read_rows("a,b", 2, false, consumed), Rows{});
  EXPECT_EQ(consumed, 0u);
  EXPECT_EQ(read_rows("a,b\nc,\"d\n\"\"", 2), (Rows{{"a", "b"}, {"open quote"}}));
}

// Arrow's parser, an implementation of its own, on texts of all kinds of quotes and line ends.
TEST(CsvTokenizer, AgreesWithArrowsParser) {
  auto options = arrow::csv::ParseOptions::Defaults();
  options.newlines_in_values = true;
  const std::string alphabet = "aab,,,\"\"\"\n\r\xC3\xA9";
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Rng rng(7, seed);
    constexpr size_t kColumns = 2;
    std::string text;
    for (uint64_t i = 0, count = rng.below(200); i < count; ++i) text += alphabet[rng.below(alphabet.size())];
    if (seed % 3 == 0) text.insert(rng.below(text.size() + 1), std::string(rng.below(9000), 'x'));  // beyond a window

    Rows expected;
    options.invalid_row_handler = [](const arrow::csv::InvalidRow&) { return arrow::csv::InvalidRowResult::Skip; };
    arrow::csv::BlockParser parser(options, kColumns, 0);
    uint32_t parsed = 0;
    ASSERT_TRUE(parser.ParseFinal(text, &parsed).ok());
    expected.resize(static_cast<size_t>(parser.num_rows()));
    for (int32_t c = 0; c < static_cast<int32_t>(kColumns); ++c) {
      size_t row = 0;
      ASSERT_TRUE(parser
                      .VisitColumn(c,
                                   [&](const uint8_t* data, uint32_t size, bool, bool) {
                                     expected[row++].emplace_back(reinterpret_cast<const char*>(data), size);
                                     return arrow::Status::OK();
                                   })
                      .ok());
    }
    Rows found = read_rows(text, kColumns);
    const bool open = !found.empty() && found.back()[0] == "open quote";
    std::erase_if(found, [](const auto& row) { return row.size() != kColumns; });
    if (open && expected.size() == found.size() + 1) expected.pop_back();  // Arrow takes the quote for closed
    ASSERT_EQ(found, expected) << text;
  }
}

// What the header of csv_tokenizer.h says, byte by byte; rows as read_rows() gives them.
Rows reference_rows(std::string_view text, size_t columns) {
  Rows rows;
  auto is_line_end = [](char c) { return c == '\n' || c == '\r'; };
  for (size_t at = 0;;) {
    while (at < text.size() && is_line_end(text[at])) ++at;
    if (at == text.size()) return rows;
    std::vector<std::string> row(1);
    bool at_begin = true, quoted = false;  // of the cell
    for (; at < text.size() && (quoted || !is_line_end(text[at])); ++at) {
      const char c = text[at];
      if (quoted && c == '"' && at + 1 < text.size() && text[at + 1] == '"') {
        row.back() += '"';
        ++at;
      } else if (quoted && c == '"') {
        quoted = false;
      } else if (!quoted && c == ',') {
        row.emplace_back();
        at_begin = true;
        continue;
      } else if (at_begin && c == '"') {
        quoted = true;
      } else {
        row.back() += c;
      }
      at_begin = false;
    }
    if (quoted) {
      rows.push_back({"open quote"});
      return rows;
    }
    if (row.size() != columns) row = {"ragged " + std::to_string(row.size())};
    rows.push_back(std::move(row));
  }
}

// A table with cells of all kinds, some of them long.
std::string random_csv(Rng& rng, size_t columns) {
  std::string text;
  for (uint64_t r = 0, rows = rng.below(20); r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      if (c > 0) text += ',';
      std::string cell;
      for (uint64_t i = 0, size = rng.below(12); i < size; ++i) cell += "ab1 \xC3\xA9"[rng.below(6)];
      if (rng.below(200) == 0) cell.append(rng.below(10000), 'x');  // beyond the window of marks
      if (rng.below(3) == 0) {
        for (uint64_t i = 0, count = rng.below(3); i < count; ++i)
          cell.insert(rng.below(cell.size() + 1), std::vector<std::string>{"\"\"", "\n", "\r\n", ","}[rng.below(4)]);
        cell = '"' + cell + '"';
      }
      text += cell;
    }
    text += std::vector<std::string>{"\n", "\r\n", "\r", "\n\n"}[rng.below(10) < 7 ? 0 : rng.below(4)];
  }
  return text;
}

void mutate(Rng& rng, std::string& text) {
  static const std::string kBytes = std::string("\"\"\"\n\r,\0\xff\xC3\xA9\xEF\xBB\xBFx", 14);
  for (uint64_t i = 0, count = rng.below(6); i < count; ++i) {
    const size_t at = rng.below(text.size() + 1), size = rng.below(std::min<size_t>(text.size() - at, 70) + 1);
    switch (rng.below(6)) {
      case 0: text.insert(at, 1, kBytes[rng.below(kBytes.size())]); break;
      case 1: text.insert(at, 1, static_cast<char>(rng.below(256))); break;
      case 2: text.erase(at, size); break;
      case 3: text.insert(rng.below(text.size() + 1), text.substr(at, size)); break;
      case 4: text.insert(at, rng.below(200), "\",\n\r"[rng.below(4)]); break;
      default:
        for (size_t k = at; k < at + size; ++k) text[k] = static_cast<char>(text[k] ^ (rng.below(8) == 0 ? 1 << rng.below(8) : 0));
    }
  }
}

TEST(CsvTokenizer, AgreesWithAnObviousParserOnDamagedTexts) {
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    Rng rng(8, seed);
    const size_t columns = 1 + rng.below(4);
    std::string text = random_csv(rng, columns);
    mutate(rng, text);
    const Rows expected = reference_rows(text, columns);
    size_t consumed = 0;
    // Memory of just this size, so that a sanitizer sees a read beyond it.
    const std::vector<char> bytes(text.begin(), text.end());
    const std::string_view view(bytes.data(), bytes.size());
    ASSERT_EQ(read_rows(view, columns, true, consumed, 1 + rng.below(5)), expected) << seed;
    if (expected.empty() || expected.back()[0] != "open quote") ASSERT_EQ(consumed, text.size()) << seed;

    // In blocks, each with what the one before has left.
    Rows rows;
    for (size_t begin = 0, end = 0; end < text.size();) {
      end = std::min<size_t>(text.size(), end + 1 + rng.below(rng.below(2) ? 30 : 3000));
      const Rows more = read_rows(view.substr(begin, end - begin), columns, end == text.size(), consumed);
      rows.insert(rows.end(), more.begin(), more.end());
      ASSERT_LE(consumed, end - begin);
      begin += consumed;
    }
    ASSERT_EQ(rows, expected) << seed;
  }
}

// A text in two blocks, wherever it is cut, gives the rows of the whole.
TEST(CsvTokenizer, TheCutDoesNotMatter) {
  const std::string text = "a,\"b\"\"c\"\r\n\r\n\"x\ny\",\n\"\",\"q\"z\ne,f\n";
  const Rows whole = read_rows(text, 2);
  ASSERT_EQ(whole.size(), 4u);
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    size_t consumed = 0;
    Rows rows = read_rows(std::string_view(text).substr(0, cut), 2, false, consumed);
    ASSERT_LE(consumed, cut);
    const Rows rest = read_rows(std::string_view(text).substr(consumed), 2);
    rows.insert(rows.end(), rest.begin(), rest.end());
    EXPECT_EQ(rows, whole) << cut;
  }
}

}  // namespace
}  // namespace ektm
