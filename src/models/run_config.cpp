#include "models/run_config.h"

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

}  // namespace ektm
