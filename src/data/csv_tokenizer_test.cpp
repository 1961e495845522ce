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
