#include "data/expression.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>

#include "base/error.h"

namespace ektm {
namespace {

using Row = std::map<std::string, std::optional<std::string>>;  // nullopt = missing

Truth evaluate(const std::string& text, const Row& row) {
  Expression expression = Expression::parse(text, "label");
  std::vector<Cell> cells;
  for (const auto& column : expression.columns()) {
    const auto& value = row.at(column);
    cells.push_back(value ? Cell{*value, false} : Cell{"", true});
  }
  return expression.evaluate(cells);
}

Error parse_error(const std::string& text) {
  try {
    Expression::parse(text, "schema.yaml, tasks.click.label");
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "parsed: " << text;
  return Error(ErrorKind::Internal, "", "");
}

TEST(Expression, NamesItsColumnsOnceInOrderOfFirstUse) {
  Expression expression = Expression::parse("b and (a or not b) and `odd name` > 3 and c in [1]", "label");
  EXPECT_EQ(expression.columns(), (std::vector<std::string>{"b", "a", "odd name", "c"}));
  EXPECT_EQ(expression.text(), "b and (a or not b) and `odd name` > 3 and c in [1]");
}

TEST(Expression, BareColumnIsZeroOrOne) {
  for (const char* text : {"1", "1.0", "true", "True", "TRUE"}) EXPECT_EQ(evaluate("a", {{"a", text}}), Truth::True) << text;
  for (const char* text : {"0", "0.0", "false", "False"}) EXPECT_EQ(evaluate("a", {{"a", text}}), Truth::False) << text;
  EXPECT_EQ(evaluate("a", {{"a", std::nullopt}}), Truth::Unknown);
  for (const char* text : {"2", "yes", "", " 1", "0.5", "-1"}) {
    try {
      evaluate("a", {{"a", text}});
      FAIL() << "accepted '" << text << "'";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Data);
      EXPECT_EQ(error.where(), "a");
      EXPECT_NE(error.message().find(std::string("'") + text + "'"), std::string::npos) << error.message();
    }
  }
}

TEST(Expression, QuotedTextComparesTexts) {
  EXPECT_EQ(evaluate("a == \"Never married\"", {{"a", "Never married"}}), Truth::True);
  EXPECT_EQ(evaluate("a == 'Never married'", {{"a", "never married"}}), Truth::False);
  EXPECT_EQ(evaluate("a != \"x\"", {{"a", "y"}}), Truth::True);
  EXPECT_EQ(evaluate("a == \"1\"", {{"a", "1.0"}}), Truth::False);  // as text
  EXPECT_EQ(evaluate("a == \"say \\\"hi\\\" \\\\\"", {{"a", "say \"hi\" \\"}}), Truth::True);
  EXPECT_EQ(evaluate("a == \"\"", {{"a", ""}}), Truth::True);
}

TEST(Expression, NumberComparesNumbers) {
  EXPECT_EQ(evaluate("a == 1", {{"a", "1.0"}}), Truth::True);
  EXPECT_EQ(evaluate("a > 3000", {{"a", "3000"}}), Truth::False);
  EXPECT_EQ(evaluate("a >= 3000", {{"a", "3e3"}}), Truth::True);
  EXPECT_EQ(evaluate("a < -1.5", {{"a", "-2"}}), Truth::True);
  EXPECT_EQ(evaluate("a <= .5", {{"a", "0.5"}}), Truth::True);
  EXPECT_EQ(evaluate("a != 3", {{"a", "4"}}), Truth::True);
  for (const char* text : {"x", "", "1 ", "0x10", "nan", "--1", "1,000"})
    EXPECT_THROW(evaluate("a > 3", {{"a", text}}), Error) << text;
}

TEST(Expression, WholeNumbersAreExactTo64Bits) {
  EXPECT_EQ(evaluate("a == 18446744073709551615", {{"a", "18446744073709551615"}}), Truth::True);
  EXPECT_EQ(evaluate("a == 18446744073709551615", {{"a", "18446744073709551614"}}), Truth::False);
  EXPECT_EQ(evaluate("a < 9223372036854775807", {{"a", "9223372036854775806"}}), Truth::True);
  EXPECT_EQ(evaluate("a > -9223372036854775808", {{"a", "-9223372036854775807"}}), Truth::True);
  EXPECT_EQ(evaluate("a > 18446744073709551615", {{"a", "-1"}}), Truth::False);
}

TEST(Expression, InList) {
  std::string text = "e in [\"Masters degree\", 'Doctorate degree']";
  EXPECT_EQ(evaluate(text, {{"e", "Doctorate degree"}}), Truth::True);
  EXPECT_EQ(evaluate(text, {{"e", "Masters"}}), Truth::False);
  EXPECT_EQ(evaluate(text, {{"e", std::nullopt}}), Truth::Unknown);
  EXPECT_EQ(evaluate("e in [1, 2.5]", {{"e", "2.50"}}), Truth::True);
  EXPECT_EQ(evaluate("e not in [1, 2]", {{"e", "3"}}), Truth::True);
  EXPECT_EQ(evaluate("e not in [1, 2]", {{"e", "2"}}), Truth::False);
  EXPECT_EQ(evaluate("e not in [1, 2]", {{"e", std::nullopt}}), Truth::Unknown);
}

TEST(Expression, PrecedenceIsNotAndOr) {
  for (const char* a : {"0", "1"})
    for (const char* b : {"0", "1"})
      for (const char* c : {"0", "1"}) {
        bool x = *a == '1', y = *b == '1', z = *c == '1';
        Row row = {{"a", a}, {"b", b}, {"c", c}};
        EXPECT_EQ(evaluate("a or b and c", row) == Truth::True, x || (y && z));
        EXPECT_EQ(evaluate("(a or b) and c", row) == Truth::True, (x || y) && z);
        EXPECT_EQ(evaluate("not a and b or not (b and c)", row) == Truth::True, (!x && y) || !(y && z));
        EXPECT_EQ(evaluate("not not a", row) == Truth::True, x);
      }
}

// What a missing value cannot change is known (Kleene).
TEST(Expression, ThreeValuedLogic) {
  const std::optional<std::string> values[] = {"0", "1", std::nullopt};
  auto truth = [](const std::optional<std::string>& v) { return !v ? 0.5 : *v == "1" ? 1.0 : 0.0; };
  auto expected = [](double v) { return v == 0.5 ? Truth::Unknown : v == 1 ? Truth::True : Truth::False; };
  for (const auto& a : values)
    for (const auto& b : values) {
      Row row = {{"a", a}, {"b", b}};
      EXPECT_EQ(evaluate("a and b", row), expected(std::min(truth(a), truth(b))));
      EXPECT_EQ(evaluate("a or b", row), expected(std::max(truth(a), truth(b))));
      EXPECT_EQ(evaluate("not a", row), expected(1 - truth(a)));
      if (!a) {
        EXPECT_EQ(evaluate("a == 3", row), Truth::Unknown);
        EXPECT_EQ(evaluate("a != \"x\"", row), Truth::Unknown);
      }
    }
}

TEST(Expression, ErrorsGivePlaceAndPosition) {
  struct Case {
    const char* text;
    int position;
    const char* hint;
  } cases[] = {
      {"", 1, "empty"},
      {"   ", 4, "empty"},
      {"a and", 6, "found the end"},
      {"a b", 3, "'b'"},
      {"(a or b", 8, "')'"},
      {"a)", 2, "')'"},
      {"a == b", 6, "text in quotes or a number"},
      {"a = 1", 3, "'=='"},
      {"a && b", 3, "'and'"},
      {"a || b", 3, "'or'"},
      {"!a", 1, "'not'"},
      {"a == \"x", 6, "not closed"},
      {"a < \"x\"", 5, "=="},
      {"3 < a", 1, "column"},
      {"a in []", 7, "text in quotes or a number"},
      {"a in [1, 2", 11, "']'"},
      {"a in 3", 6, "'['"},
      {"a not 3", 7, "'in'"},
      {"a == 1x", 6, "number"},
      {"a == -", 6, "number"},
      {"and a", 1, "column"},
      {"``", 1, "empty name"},
      {"a # b", 3, "'#'"},
  };
  for (const auto& c : cases) {
    Error error = parse_error(c.text);
    EXPECT_EQ(error.kind(), ErrorKind::Config) << c.text;
    EXPECT_EQ(error.where(), "schema.yaml, tasks.click.label");
    EXPECT_NE(error.message().find("position " + std::to_string(c.position) + " "), std::string::npos)
        << c.text << ": " << error.message();
    EXPECT_NE(error.message().find(c.hint), std::string::npos) << c.text << ": " << error.message();
  }
}

TEST(Expression, DeepNestingIsAnErrorNotAnOverflow) {
  EXPECT_NE(parse_error(std::string(100000, '(') + "a").message().find("nested deeper"), std::string::npos);
  std::string nots;
  for (int i = 0; i < 100000; ++i) nots += "not ";
  EXPECT_NE(parse_error(nots + "a").message().find("nested deeper"), std::string::npos);
  EXPECT_EQ(evaluate(std::string(100, '(') + "a" + std::string(100, ')'), {{"a", "1"}}), Truth::True);
}

TEST(Expression, OddColumnNames) {
  EXPECT_EQ(evaluate("`migration_code-change_in_msa` == \"Nonmover\"", {{"migration_code-change_in_msa", "Nonmover"}}),
            Truth::True);
  EXPECT_EQ(evaluate("user.age > 3 and größe < 2", {{"user.age", "4"}, {"größe", "1"}}), Truth::True);
  EXPECT_EQ(evaluate("`in` and `not`", {{"in", "1"}, {"not", "1"}}), Truth::True);
  EXPECT_EQ(evaluate("order and android or information", {{"order", "1"}, {"android", "1"}, {"information", "0"}}), Truth::True);
}

}  // namespace
}  // namespace ektm
