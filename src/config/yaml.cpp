#include "config/yaml.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/files.h"

namespace ektm {
namespace {

std::string real_text(double value) {
  std::string text = fmt::format("{:.12g}", value);
  return text;
}

std::string range_text(IntRange range) {
  constexpr IntRange all;
  if (range.low == all.low && range.high == all.high) return "";
  if (range.high == all.high) return fmt::format(">= {}", range.low);
  if (range.low == all.low) return fmt::format("<= {}", range.high);
  return fmt::format("{} .. {}", range.low, range.high);
}

std::string range_text(RealRange range) {
  if (std::isinf(range.low) && std::isinf(range.high)) return "";
  if (std::isinf(range.high)) return ">= " + real_text(range.low);
  if (std::isinf(range.low)) return "<= " + real_text(range.high);
  return real_text(range.low) + " .. " + real_text(range.high);
}

template <class T>
std::string join(const std::vector<T>& values) {
  return fmt::format("{}", fmt::join(values, ", "));
}

std::string shown(const YAML::Node& node) {
  if (node.IsScalar()) return "'" + node.Scalar() + "'";
  if (node.IsNull()) return "nothing";
  return node.IsSequence() ? "a list" : "a map";
}

class Reader : public FieldVisitor {
 public:
  Reader(const YAML::Node& map, ConfigErrors& errors, std::string prefix) : map_(map), errors_(errors), prefix_(std::move(prefix)) {}

  void field(const char* key, bool& value, const char*) override {
    scalar(key, value, "true or false");
  }
  void field(const char* key, int64_t& value, IntRange range, const char*) override {
    int64_t read = value;
    if (scalar(key, read, "a whole number") && in_range(key, read, range)) value = read;
  }
  void field(const char* key, double& value, RealRange range, const char*) override {
    double read = value;
    if (scalar(key, read, "a number") && in_range(key, read, range)) value = read;
  }
  void field(const char* key, std::string& value, const char*) override { scalar(key, value, "text"); }
  void field(const char* key, std::string& value, std::vector<std::string> choices, const char*) override {
    std::string read = value;
    if (!scalar(key, read, "one of: " + join(choices))) return;
    for (const auto& choice : choices)
      if (choice == read) {
        value = read;
        return;
      }
    errors_.add(map_[key], prefix_ + key, fmt::format("found '{}'; expected one of: {}.{}", read, join(choices), did_you_mean(read, choices)));
  }
  void field(const char* key, std::vector<int64_t>& value, IntRange range, const char*) override {
    std::vector<int64_t> read;
    if (!list(key, read, "a list of whole numbers, e.g. [64, 32]")) return;
    for (int64_t item : read)
      if (!in_range(key, item, range)) return;
    value = read;
  }
  void field(const char* key, std::vector<std::string>& value, const char*) override {
    std::vector<std::string> read;
    if (list(key, read, "a list of names, e.g. [a, b]")) value = read;
  }
  void field(const char* key, std::vector<std::vector<std::string>>& value, const char*) override {
    std::vector<std::vector<std::string>> read;
    if (list(key, read, "a list of lists of names, e.g. [[a, b], [c]]")) value = read;
  }
  void field(const char* key, std::vector<std::pair<std::string, double>>& value, RealRange range, const char*) override {
    known_.push_back(key);
    const YAML::Node node = map_[key];
    if (!node) return;
    if (!node.IsMap()) {
      errors_.add(node, prefix_ + key, fmt::format("found {}; expected a map of name: number.", shown(node)));
      return;
    }
    value.clear();
    for (const auto& item : node) {
      double number = 0;
      std::string name = item.first.as<std::string>("");
      if (!item.second.IsScalar() || !YAML::convert<double>::decode(item.second, number)) {
        errors_.add(item.second, prefix_ + key + "." + name, fmt::format("found {}; expected a number.", shown(item.second)));
      } else if (in_range((std::string(key) + "." + name).c_str(), number, range, item.second)) {
        value.emplace_back(name, number);
      }
    }
  }
  void field(const char* key, std::vector<std::pair<std::string, std::string>>& value, const char*) override {
    known_.push_back(key);
    const YAML::Node node = map_[key];
    if (!node) return;
    if (!node.IsMap()) {
      errors_.add(node, prefix_ + key, fmt::format("found {}; expected a map of name: name.", shown(node)));
      return;
    }
    value.clear();
    for (const auto& item : node) {
      const std::string name = item.first.as<std::string>("");
      if (item.second.IsScalar() && !item.second.Scalar().empty())
        value.emplace_back(name, item.second.Scalar());
      else
        errors_.add(item.second, prefix_ + key + "." + name, fmt::format("found {}; expected a name.", shown(item.second)));
    }
  }
  void group_fields(const char* key, const FieldsFunction& fields, const char*) override {
    known_.push_back(key);
    for (const FieldHelp& inner : describe_fields(fields)) nested_.push_back(key + ("." + inner.key));
    const YAML::Node node = map_[key];
    if (node) read_fields(node, fields, errors_, prefix_ + key + ".");
  }

  void report_unknown(const std::vector<std::string>& also_known) {
    std::vector<std::string> known = known_;
    known.insert(known.end(), also_known.begin(), also_known.end());
    for (const auto& item : map_) {
      std::string key = item.first.as<std::string>("");
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      std::string near = nearest_name(key, known);
      std::vector<std::string> deeper;  // `learning_rate` is no key here, but two groups have one
      for (const auto& dotted : nested_)
        if (dotted.ends_with("." + key)) deeper.push_back(prefix_ + dotted);
      errors_.add(item.first, prefix_ + key,
                  !deeper.empty() ? fmt::format("unknown key here. Did you mean {}?", fmt::join(deeper, " or "))
                  : near.empty()  ? fmt::format("unknown key; known here: {}.", join(known))
                                  : fmt::format("unknown key. Did you mean '{}'?", prefix_ + near));
    }
  }

 private:
  template <class T>
  bool scalar(const char* key, T& value, const std::string& expected) {
    known_.push_back(key);
    const YAML::Node node = map_[key];
    if (!node) return false;
    T read{};
    if (!node.IsScalar() || !YAML::convert<T>::decode(node, read)) {
      errors_.add(node, prefix_ + key, fmt::format("found {}; expected {}.", shown(node), expected));
      return false;
    }
    value = read;
    return true;
  }
  template <class T>
  bool list(const char* key, std::vector<T>& values, const std::string& expected) {
    known_.push_back(key);
    const YAML::Node node = map_[key];
    if (!node) return false;
    const bool good = decode(node, values);
    if (!good) errors_.add(node, prefix_ + key, fmt::format("found {}; expected {}.", shown(node), expected));
    return good;
  }
  template <class T>
  static bool decode(const YAML::Node& node, T& value) {
    return node.IsScalar() && YAML::convert<T>::decode(node, value);
  }
  template <class T>
  static bool decode(const YAML::Node& node, std::vector<T>& values) {
    bool good = node.IsSequence();
    for (size_t i = 0; good && i < node.size(); ++i) {
      T value{};
      good = decode(node[i], value);
      values.push_back(value);
    }
    return good;
  }
  template <class T, class Range>
  bool in_range(const char* key, T value, Range range, YAML::Node node = {}) {
    if (value >= range.low && value <= range.high) return true;  // NaN fails
    errors_.add(node.IsDefined() && !node.IsNull() ? node : map_[key], prefix_ + key,
                fmt::format("found {}; expected a value in {}.", value, range_text(range)));
    return false;
  }

  const YAML::Node map_;
  ConfigErrors& errors_;
  std::string prefix_;
  std::vector<std::string> known_, nested_;  // keys of this map; dotted ones of its groups
};

// yaml-cpp keeps the first of two equal keys and drops the other without a word.
void refuse_repeated_keys(const YAML::Node& node, const std::string& name) {
  if (node.IsSequence())
    for (const auto& item : node) refuse_repeated_keys(item, name);
  if (!node.IsMap()) return;
  std::set<std::string> seen;
  for (const auto& item : node) {
    const std::string key = item.first.as<std::string>("");
    if (!seen.insert(key).second)
      fail(ErrorKind::Config, fmt::format("{}, line {}", name, item.first.Mark().line + 1), "the key '{}' stands here a second time. Keep one of the two.", key);
    refuse_repeated_keys(item.second, name);
  }
}

class Writer : public FieldVisitor {
 public:
  void field(const char* key, bool& value, const char*) override { map[key] = value; }
  void field(const char* key, int64_t& value, IntRange, const char*) override { map[key] = value; }
  void field(const char* key, double& value, RealRange, const char*) override { map[key] = real_text(value); }
  void field(const char* key, std::string& value, const char*) override { map[key] = value; }
  void field(const char* key, std::string& value, std::vector<std::string>, const char*) override { map[key] = value; }
  void field(const char* key, std::vector<int64_t>& value, IntRange, const char*) override { list(key, value); }
  void field(const char* key, std::vector<std::string>& value, const char*) override { list(key, value); }
  void field(const char* key, std::vector<std::vector<std::string>>& value, const char*) override { list(key, value); }
  void field(const char* key, std::vector<std::pair<std::string, double>>& value, RealRange, const char*) override {
    YAML::Node node(YAML::NodeType::Map);
    for (auto& [name, number] : value) node[name] = real_text(number);
    node.SetStyle(YAML::EmitterStyle::Flow);
    map[key] = node;
  }
  void field(const char* key, std::vector<std::pair<std::string, std::string>>& value, const char*) override {
    YAML::Node node(YAML::NodeType::Map);
    for (auto& [name, text] : value) node[name] = text;
    node.SetStyle(YAML::EmitterStyle::Flow);
    map[key] = node;
  }
  void group_fields(const char* key, const FieldsFunction& fields, const char*) override { map[key] = write_fields(fields); }

  YAML::Node map{YAML::NodeType::Map};

 private:
  template <class T>
  void list(const char* key, const std::vector<T>& values) {
    YAML::Node node(YAML::NodeType::Sequence);
    for (const auto& value : values) node.push_back(value);
    node.SetStyle(YAML::EmitterStyle::Flow);
    map[key] = node;
  }
};

class Describer : public FieldVisitor {
 public:
  void field(const char* key, bool& value, const char* help) override { add(key, "bool", value ? "true" : "false", "", help); }
  void field(const char* key, int64_t& value, IntRange range, const char* help) override {
    add(key, "int", std::to_string(value), range_text(range), help);
  }
  void field(const char* key, double& value, RealRange range, const char* help) override {
    add(key, "real", real_text(value), range_text(range), help);
  }
  void field(const char* key, std::string& value, const char* help) override {
    add(key, "text", value.empty() ? "\"\"" : value, "", help);
  }
  void field(const char* key, std::string& value, std::vector<std::string> choices, const char* help) override {
    add(key, "choice", value, join(choices), help);
  }
  void field(const char* key, std::vector<int64_t>& value, IntRange range, const char* help) override {
    add(key, "list of int", "[" + join(value) + "]", range_text(range), help);
  }
  void field(const char* key, std::vector<std::string>& value, const char* help) override {
    std::vector<std::string> items;
    for (const auto& item : value) items.push_back(item.empty() ? "\"\"" : item);
    add(key, "list of text", "[" + join(items) + "]", "", help);
  }
  void field(const char* key, std::vector<std::vector<std::string>>& value, const char* help) override {
    std::vector<std::string> items;
    for (const auto& item : value) items.push_back("[" + join(item) + "]");
    add(key, "list of lists of text", "[" + join(items) + "]", "", help);
  }
  void field(const char* key, std::vector<std::pair<std::string, double>>& value, RealRange range, const char* help) override {
    std::vector<std::string> items;
    for (auto& [name, number] : value) items.push_back(name + ": " + real_text(number));
    add(key, "map of real", "{" + join(items) + "}", range_text(range), help);
  }
  void field(const char* key, std::vector<std::pair<std::string, std::string>>& value, const char* help) override {
    std::vector<std::string> items;
    for (auto& [name, text] : value) items.push_back(name + ": " + text);
    add(key, "map of text", "{" + join(items) + "}", "", help);
  }
  void group_fields(const char* key, const FieldsFunction& fields, const char*) override {
    std::string outer = prefix_;
    prefix_ += std::string(key) + ".";
    fields(*this);
    prefix_ = outer;
  }

  std::vector<FieldHelp> rows;

 private:
  void add(const char* key, std::string type, std::string value, std::string range, const char* help) {
    rows.push_back({prefix_ + key, std::move(type), std::move(value), std::move(range), help});
  }
  std::string prefix_;
};

}  // namespace

std::vector<FieldHelp> describe_fields(const FieldsFunction& fields) {
  Describer describer;
  fields(describer);
  return std::move(describer.rows);
}

YAML::Node parse_yaml(const std::string& text, const std::string& name) {
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    fail(ErrorKind::Config, fmt::format("{}, line {}", name, error.mark.line + 1), "no valid YAML: {}.", error.msg);
  }
  if (!root.IsMap()) fail(ErrorKind::Config, name, "found {}; expected a YAML map of `key: value` lines.", shown(root));
  refuse_repeated_keys(root, name);
  return root;
}

YAML::Node load_yaml(const std::filesystem::path& file) { return parse_yaml(read_file(file), file.string()); }

namespace {

// A copy that stands in no line of any file, so that messages name none.
YAML::Node without_lines(const YAML::Node& node) {
  if (node.IsScalar()) return YAML::Node(node.Scalar());
  YAML::Node copy(node.Type());
  if (node.IsSequence())
    for (const auto& item : node) copy.push_back(without_lines(item));
  if (node.IsMap())
    for (const auto& item : node) copy[item.first.Scalar()] = without_lines(item.second);
  return copy;
}

}  // namespace

void apply_override(YAML::Node& root, const std::string& assignment) {
  size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    fail(ErrorKind::Config, "--set " + assignment, "expected KEY=VALUE, e.g. --set train.batch_rows=1024.");
  YAML::Node value;
  try {
    value = YAML::Load(assignment.substr(equals + 1));
  } catch (const YAML::Exception& error) {
    fail(ErrorKind::Config, "--set " + assignment, "the value is no valid YAML: {}.", error.msg);
  }
  std::string path = assignment.substr(0, equals);
  YAML::Node at = root;
  for (size_t dot; (dot = path.find('.')) != std::string::npos; path = path.substr(dot + 1)) {
    std::string key = path.substr(0, dot);
    if (!at[key]) at[key] = YAML::Node(YAML::NodeType::Map);
    if (!at[key].IsMap()) fail(ErrorKind::Config, "--set " + assignment, "'{}' is no map, so it has no key below it.", key);
    YAML::Node next = at[key];
    at.reset(next);
  }
  at[path] = without_lines(value);
}

void ConfigErrors::add(const YAML::Node& node, const std::string& key, const std::string& message) {
  int line = node.IsDefined() ? node.Mark().line : -1;
  messages_.push_back(line >= 0 ? fmt::format("line {}, {}: {}", line + 1, key, message) : fmt::format("{}: {}", key, message));
}

void ConfigErrors::throw_if_any() const {
  if (messages_.empty()) return;
  if (messages_.size() == 1) throw Error(ErrorKind::Config, file_, messages_[0]);
  throw Error(ErrorKind::Config, file_, fmt::format("{} problems:\n  - {}", messages_.size(), fmt::join(messages_, "\n  - ")));
}

void read_fields(const YAML::Node& map, const FieldsFunction& fields, ConfigErrors& errors, const std::string& prefix,
                 const std::vector<std::string>& also_known) {
  if (map.IsNull()) return;
  if (!map.IsMap()) {
    errors.add(map, prefix.empty() ? "(root)" : prefix.substr(0, prefix.size() - 1), fmt::format("found {}; expected a map.", shown(map)));
    return;
  }
  Reader reader(map, errors, prefix);
  fields(reader);
  reader.report_unknown(also_known);
}

YAML::Node write_fields(const FieldsFunction& fields) {
  Writer writer;
  fields(writer);
  return writer.map;
}

std::string to_text(const YAML::Node& node) {
  YAML::Emitter emitter;
  emitter << node;
  return std::string(emitter.c_str()) + "\n";
}

}  // namespace ektm
