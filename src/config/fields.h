#pragma once
// One description a config struct: `void fields(FieldVisitor& v)` names key, member, range and meaning in one line each.
// From it come parsing, checking, `ektm models`, the reference docs and the record in the run folder.
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace ektm {

struct IntRange {
  int64_t low = std::numeric_limits<int64_t>::min(), high = std::numeric_limits<int64_t>::max();
};
struct RealRange {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
};

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void field(const char* key, bool& value, const char* help) = 0;
  virtual void field(const char* key, int64_t& value, IntRange range, const char* help) = 0;
  virtual void field(const char* key, double& value, RealRange range, const char* help) = 0;
  virtual void field(const char* key, std::string& value, const char* help) = 0;
  // One of `choices`.
  virtual void field(const char* key, std::string& value, std::vector<std::string> choices, const char* help) = 0;
  virtual void field(const char* key, std::vector<int64_t>& value, IntRange range, const char* help) = 0;
  virtual void field(const char* key, std::vector<std::string>& value, const char* help) = 0;
  virtual void field(const char* key, std::vector<std::vector<std::string>>& value, const char* help) = 0;
  // Name -> number, e.g. task weights. Any key is allowed; the component checks the names.
  virtual void field(const char* key, std::vector<std::pair<std::string, double>>& value, RealRange range, const char* help) = 0;
  // Name -> name, likewise.
  virtual void field(const char* key, std::vector<std::pair<std::string, std::string>>& value, const char* help) = 0;
  // A nested map.
  template <class Config>
  void group(const char* key, Config& config, const char* help) {
    group_fields(key, [&config](FieldVisitor& v) { config.fields(v); }, help);
  }
  virtual void group_fields(const char* key, const std::function<void(FieldVisitor&)>& fields, const char* help) = 0;
};

using FieldsFunction = std::function<void(FieldVisitor&)>;

struct FieldHelp {
  std::string key;            // dotted
  std::string type;           // "int", "real", "bool", "text", "one of: a, b", "list of int", ...
  std::string default_value;  // as YAML
  std::string range;          // "1 .. 4096", "" when unbounded
  std::string help;
};

// The keys of a config with the values it has now.
std::vector<FieldHelp> describe_fields(const FieldsFunction& fields);
template <class Config>
std::vector<FieldHelp> describe(Config config) {
  return describe_fields([&](FieldVisitor& v) { config.fields(v); });
}

}  // namespace ektm
