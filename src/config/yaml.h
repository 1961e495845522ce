#pragma once
// YAML text <-> config structs.
#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <string>
#include <vector>

#include "config/fields.h"

namespace ektm {

// Error Config with file and line when the text is no YAML or no map.
YAML::Node load_yaml(const std::filesystem::path& file);
YAML::Node parse_yaml(const std::string& text, const std::string& name);

// `assignment`: "a.b=c"; c is parsed as YAML. Creates missing maps on the way.
void apply_override(YAML::Node& root, const std::string& assignment);

// Collects every error of a file, so that they are reported together.
class ConfigErrors {
 public:
  explicit ConfigErrors(std::string file) : file_(std::move(file)) {}
  // `node` gives the line, when it has one; `key` is dotted.
  void add(const YAML::Node& node, const std::string& key, const std::string& message);
  bool empty() const { return messages_.empty(); }
  void throw_if_any() const;  // one Error Config that lists them all
  const std::string& file() const { return file_; }

 private:
  std::string file_;
  std::vector<std::string> messages_;
};

// Fills `fields` from a YAML map: absent keys keep their defaults; an unknown key, a wrong type or a value out of range is an
// error (the nearest known key is named). `prefix` stands before the keys in messages ("model."). `also_known`: keys that the
// caller reads itself.
void read_fields(const YAML::Node& map, const FieldsFunction& fields, ConfigErrors& errors, const std::string& prefix = "",
                 const std::vector<std::string>& also_known = {});
template <class Config>
void read_config(const YAML::Node& map, Config& config, ConfigErrors& errors, const std::string& prefix = "",
                 const std::vector<std::string>& also_known = {}) {
  read_fields(map, [&](FieldVisitor& v) { config.fields(v); }, errors, prefix, also_known);
}

// The whole config as a YAML map, in the order of fields().
YAML::Node write_fields(const FieldsFunction& fields);
template <class Config>
YAML::Node write_config(Config config) {
  return write_fields([&](FieldVisitor& v) { config.fields(v); });
}
std::string to_text(const YAML::Node& node);

}  // namespace ektm
