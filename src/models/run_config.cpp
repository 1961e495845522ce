#include "models/run_config.h"

#include <fmt/format.h>

#include <map>

#include "base/error.h"
#include "models/zoo.h"

namespace ektm {

std::string RunConfig::model_name() const {
  std::string name = model["name"].as<std::string>();
  const YAML::Node backbone = model["backbone"];
  return backbone ? name + "(" + backbone["name"].as<std::string>() + ")" : name;
}

RunConfig load_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  return parse_run_config(load_yaml(file), file.string(), overrides);
}

RunConfig parse_run_config(YAML::Node root, const std::string& name, const std::vector<std::string>& overrides) {
  for (const auto& assignment : overrides) apply_override(root, assignment);
  RunConfig config;
  ConfigErrors errors(name);
  read_config(root, config, errors, "", {"model"});
  const YAML::Node model = root["model"];
  if (!model) {
    errors.add(root, "model", "is missing; expected a map, e.g. model: {name: ektm, backbone: {name: mmoe}}. `ektm models` lists the names.");
  } else if (!model.IsMap() || !model["name"]) {
    errors.add(model, "model", "expected a map with the key `name`, e.g. model: {name: mmoe}. `ektm models` lists the names.");
  } else {
    config.model = find_model(model["name"].as<std::string>(""), name + ", model.name").resolve(model, errors, "model.");
  }
  errors.throw_if_any();
  return config;
}

std::string run_config_text(const RunConfig& config) {
  YAML::Node root = write_config(config);
  YAML::Node ordered(YAML::NodeType::Map);
  for (const auto& item : root)
    if (item.second.IsScalar()) ordered[item.first] = item.second;
  ordered["model"] = config.model;
  for (const auto& item : root)
    if (!item.second.IsScalar()) ordered[item.first] = item.second;
  return to_text(ordered);
}

std::vector<std::string> config_differences(const RunConfig& before, const RunConfig& now, const std::vector<std::string>& ignored) {
  auto keys = [&](const RunConfig& config) {
    std::map<std::string, std::string> values;
    auto collect = [&](const auto& self, const YAML::Node& node, const std::string& key) -> void {
      if (!node.IsMap()) {
        std::string text = to_text(node);
        values[key] = text.substr(0, text.find_last_not_of('\n') + 1);
      } else {
        for (const auto& item : node) self(self, item.second, (key.empty() ? "" : key + ".") + item.first.as<std::string>());
      }
    };
    collect(collect, parse_yaml(run_config_text(config), "config"), "");
    for (const auto& key : ignored) values.erase(key);
    return values;
  };
  auto old_values = keys(before), new_values = keys(now);
  std::vector<std::string> differences;
  for (const auto& [key, value] : old_values) new_values.try_emplace(key, "absent");
  for (const auto& [key, value] : new_values)
    if (const std::string& old = old_values.try_emplace(key, "absent").first->second; old != value)
      differences.push_back(fmt::format("{} is {} instead of {}", key, value, old));
  return differences;
}

}  // namespace ektm
