#include "data/expression.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <variant>

#include "base/error.h"

namespace ektm {
namespace {

enum class Op { Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual };

// Whole numbers of 64 bits, signed or not, compare exactly; anything else as double.
struct Number {
  bool whole = false;
  __int128 integer = 0;
  double real = 0;
};

std::optional<Number> parse_number(std::string_view text) {
  const char* first = text.data();
  const char* last = first + text.size();
  bool negative = first != last && *first == '-';
  if (first != last && (*first == '-' || *first == '+')) ++first;
  if (first == last || *first == '-' || *first == '+') return std::nullopt;
  Number number;
  uint64_t magnitude = 0;
  if (auto [end, error] = std::from_chars(first, last, magnitude); error == std::errc() && end == last) {
    number.whole = true;
    number.integer = negative ? -static_cast<__int128>(magnitude) : static_cast<__int128>(magnitude);
    number.real = static_cast<double>(number.integer);
    return number;
  }
  auto [end, error] = std::from_chars(first, last, number.real);
  if (error != std::errc() || end != last || std::isnan(number.real)) return std::nullopt;
  if (negative) number.real = -number.real;
  return number;
}

template <class T>
bool holds(Op op, const T& a, const T& b) {
  switch (op) {
    case Op::Equal: return a == b;
    case Op::NotEqual: return a != b;
    case Op::Less: return a < b;
    case Op::LessEqual: return a <= b;
    case Op::Greater: return a > b;
    case Op::GreaterEqual: return a >= b;
  }
  return false;
}

bool compare(Op op, const Number& a, const Number& b) {
  return a.whole && b.whole ? holds(op, a.integer, b.integer) : holds(op, a.real, b.real);
}

bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  return std::equal(text.begin(), text.end(), lower.begin(), lower.end(),
                    [](unsigned char a, char b) { return std::tolower(a) == b; });
}

Truth truth(bool value) { return value ? Truth::True : Truth::False; }

}  // namespace

using Literal = std::variant<std::string, Number>;

struct Expression::Node {
  enum class Kind { Column, Compare, In, Not, And, Or } kind;
  size_t column = 0;                        // Column, Compare, In: index into columns()
  Op op = Op::Equal;                        // Compare
  std::vector<Literal> literals;            // Compare: one; In: at least one
  std::shared_ptr<const Node> left, right;  // Not: left only
};

namespace {

using Node = Expression::Node;
using NodePtr = std::shared_ptr<const Node>;

// or := and ("or" and)*    and := not ("and" not)*    not := "not" not | "(" or ")" | test
// test := column [op literal | ["not"] "in" "[" literal ("," literal)* "]"]
class Parser {
 public:
  Parser(const std::string& text, const std::string& where, std::vector<std::string>& columns)
      : text_(text), where_(where), columns_(columns) {
    advance();
  }

  NodePtr parse() {
    if (token_.kind == Kind::End) fail_here("the expression is empty; expected e.g. is_click, or income == \"1\"");
    NodePtr root = parse_or();
    if (token_.kind != Kind::End) fail_here("expected 'and', 'or' or the end");
    return root;
  }

 private:
  enum class Kind { End, Name, Text, Number, Symbol };
  struct Token {
    Kind kind = Kind::End;
    std::string text;  // without quotes
    size_t start = 0;
    bool quoted_name = false;  // `name`: never a keyword
  };

  [[noreturn]] void fail_at(size_t position, const std::string& problem) {
    fail(ErrorKind::Config, where_, "at position {} of '{}': {}.", position + 1, text_, problem);
  }
  [[noreturn]] void fail_here(const std::string& expected) {
    fail_at(token_.start, token_.kind == Kind::End
                              ? "found the end; " + expected
                              : fmt::format("found '{}'; {}", text_.substr(token_.start, at_ - token_.start), expected));
  }

  static bool starts_name(unsigned char c) { return std::isalpha(c) || c == '_' || c >= 0x80; }
  static bool continues_name(unsigned char c) { return starts_name(c) || std::isdigit(c) || c == '.'; }

  void advance() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    token_ = {};
    token_.start = at_;
    if (at_ == text_.size()) return;
    char c = text_[at_];
    if (starts_name(c)) {
      while (at_ < text_.size() && continues_name(text_[at_])) ++at_;
      token_.kind = Kind::Name;
      token_.text = text_.substr(token_.start, at_ - token_.start);
    } else if (c == '"' || c == '\'' || c == '`') {
      read_quoted(c);
    } else if (std::isdigit(static_cast<unsigned char>(c)) || c == '-' || c == '+' || c == '.') {
      ++at_;
      while (at_ < text_.size() &&
             (continues_name(text_[at_]) || ((text_[at_] == '-' || text_[at_] == '+') && (text_[at_ - 1] | 32) == 'e')))
        ++at_;
      token_.kind = Kind::Number;
      token_.text = text_.substr(token_.start, at_ - token_.start);
    } else {
      static const std::string_view symbols[] = {"==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ","};
      for (std::string_view symbol : symbols)
        if (text_.compare(at_, symbol.size(), symbol) == 0) {
          token_.kind = Kind::Symbol;
          token_.text = symbol;
          at_ += symbol.size();
          return;
        }
      const char* hint = c == '='   ? "; write '==' to compare"
                         : c == '&' ? "; write 'and'"
                         : c == '|' ? "; write 'or'"
                         : c == '!' ? "; write 'not'"
                                    : "";
      fail_at(at_, fmt::format("found '{}', which has no meaning here{}", c, hint));
    }
  }

  void read_quoted(char quote) {
    token_.kind = quote == '`' ? Kind::Name : Kind::Text;
    token_.quoted_name = quote == '`';
    for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size() && (text_[at_ + 1] == quote || text_[at_ + 1] == '\\')) ++at_;
      token_.text += text_[at_];
    }
    if (at_ == text_.size()) fail_at(token_.start, fmt::format("the quote {} is not closed", quote));
    ++at_;
    if (quote == '`' && token_.text.empty()) fail_at(token_.start, "found an empty name; expected a column");
  }

  bool at_word(const char* word) const { return token_.kind == Kind::Name && !token_.quoted_name && token_.text == word; }
  bool at_symbol(const char* symbol) const { return token_.kind == Kind::Symbol && token_.text == symbol; }
  bool at_keyword() const { return at_word("and") || at_word("or") || at_word("not") || at_word("in"); }

  NodePtr parse_or() {
    NodePtr left = parse_and();
    while (at_word("or")) left = both(Node::Kind::Or, left, &Parser::parse_and);
    return left;
  }
  NodePtr parse_and() {
    NodePtr left = parse_not();
    while (at_word("and")) left = both(Node::Kind::And, left, &Parser::parse_not);
    return left;
  }
  NodePtr both(Node::Kind kind, NodePtr left, NodePtr (Parser::*next)()) {
    advance();
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->left = std::move(left);
    node->right = (this->*next)();
    return node;
  }
  NodePtr parse_not() {
    if (++depth_ > kMaxDepth) fail_here(fmt::format("the expression is nested deeper than {} levels", kMaxDepth));
    NodePtr result;
    if (at_word("not")) {
      advance();
      auto node = std::make_shared<Node>();
      node->kind = Node::Kind::Not;
      node->left = parse_not();
      result = node;
    } else if (at_symbol("(")) {
      advance();
      result = parse_or();
      if (!at_symbol(")")) fail_here("expected ')'");
      advance();
    } else {
      result = parse_test();
    }
    --depth_;
    return result;
  }

  NodePtr parse_test() {
    if (token_.kind != Kind::Name || at_keyword())
      fail_here("expected a column, 'not' or '('; a column comes first in a comparison");
    auto node = std::make_shared<Node>();
    node->column = std::find(columns_.begin(), columns_.end(), token_.text) - columns_.begin();
    if (node->column == columns_.size()) columns_.push_back(token_.text);
    advance();
    bool negated = at_word("not");
    if (negated) {
      advance();
      if (!at_word("in")) fail_here("expected 'in' after 'not'");
    }
    if (at_word("in")) {
      advance();
      parse_list(*node);
      if (!negated) return node;
      auto outer = std::make_shared<Node>();
      outer->kind = Node::Kind::Not;
      outer->left = node;
      return outer;
    }
    static const std::pair<const char*, Op> ops[] = {{"==", Op::Equal},     {"!=", Op::NotEqual}, {"<", Op::Less},
                                                     {"<=", Op::LessEqual}, {">", Op::Greater},   {">=", Op::GreaterEqual}};
    node->kind = Node::Kind::Column;
    for (auto [symbol, op] : ops)
      if (at_symbol(symbol)) {
        node->kind = Node::Kind::Compare;
        node->op = op;
        advance();
        if (token_.kind == Kind::Text && op != Op::Equal && op != Op::NotEqual)
          fail_here("texts compare only by == and !=; leave out the quotes to compare numbers");
        node->literals.push_back(parse_literal());
        break;
      }
    return node;
  }

  void parse_list(Node& node) {
    node.kind = Node::Kind::In;
    if (!at_symbol("[")) fail_here("expected '[' and a list of values");
    do {
      advance();
      node.literals.push_back(parse_literal());
    } while (at_symbol(","));
    if (!at_symbol("]")) fail_here("expected ',' or ']'");
    advance();
  }

  Literal parse_literal() {
    Literal literal;
    if (token_.kind == Kind::Text) {
      literal = token_.text;
    } else if (token_.kind == Kind::Number) {
      std::optional<Number> number = parse_number(token_.text);
      if (!number) fail_here("expected a number");
      literal = *number;
    } else {
      fail_here("expected a text in quotes or a number");
    }
    advance();
    return literal;
  }

  static constexpr int kMaxDepth = 200;  // of recursion
  const std::string& text_;
  const std::string& where_;
  std::vector<std::string>& columns_;
  size_t at_ = 0;
  Token token_;
  int depth_ = 0;
};

class Evaluator {
 public:
  Evaluator(const std::vector<std::string>& columns, const std::vector<Cell>& cells) : columns_(columns), cells_(cells) {}

  // Three-valued logic of Kleene: what a missing value cannot change is known.
  Truth evaluate(const Node& node) const {
    switch (node.kind) {
      case Node::Kind::Column: return column_truth(node);
      case Node::Kind::Compare:
      case Node::Kind::In: return test(node);
      case Node::Kind::Not: {
        Truth inner = evaluate(*node.left);
        return inner == Truth::Unknown ? inner : truth(inner == Truth::False);
      }
      case Node::Kind::And:
      case Node::Kind::Or: {
        Truth decisive = truth(node.kind == Node::Kind::Or);
        Truth left = evaluate(*node.left);
        if (left == decisive) return left;
        Truth right = evaluate(*node.right);
        if (right == decisive) return right;
        return left == Truth::Unknown ? left : right;
      }
    }
    return Truth::Unknown;
  }

 private:
  Truth column_truth(const Node& node) const {
    const Cell& cell = cells_[node.column];
    if (cell.missing) return Truth::Unknown;
    std::string_view text = cell.text;
    if (text == "1") return Truth::True;
    if (text == "0") return Truth::False;
    if (text == "1.0" || equals_ignoring_case(text, "true")) return Truth::True;
    if (text == "0.0" || equals_ignoring_case(text, "false")) return Truth::False;
    fail(ErrorKind::Data, columns_[node.column],
         "found '{}'; expected 0 or 1 (or true, false). Write a comparison in the schema's label, such as {} > 0, or correct the "
         "data.",
         text, columns_[node.column]);
  }

  Truth test(const Node& node) const {
    const Cell& cell = cells_[node.column];
    if (cell.missing) return Truth::Unknown;
    std::optional<Number> number;
    for (const Literal& literal : node.literals) {
      bool result;
      if (const std::string* text = std::get_if<std::string>(&literal)) {
        result = (cell.text == *text) == (node.op == Op::Equal);
      } else {
        if (!number) number = parse_number(cell.text);
        if (!number)
          fail(ErrorKind::Data, columns_[node.column],
               "found '{}'; expected a number, since the schema's label compares with one. Put quotes around it to compare "
               "texts, or correct the data.",
               cell.text);
        result = compare(node.op, *number, std::get<Number>(literal));
      }
      if (result) return Truth::True;
    }
    return Truth::False;
  }

  const std::vector<std::string>& columns_;
  const std::vector<Cell>& cells_;
};

}  // namespace

Expression Expression::parse(const std::string& text, const std::string& where) {
  Expression expression;
  expression.text_ = text;
  expression.root_ = Parser(expression.text_, where, expression.columns_).parse();
  return expression;
}

const std::string& Expression::text() const { return text_; }
const std::vector<std::string>& Expression::columns() const { return columns_; }

Truth Expression::evaluate(const std::vector<Cell>& cells) const {
  EKTM_CHECK(cells.size() == columns_.size());
  return Evaluator(columns_, cells).evaluate(*root_);
}

}  // namespace ektm
