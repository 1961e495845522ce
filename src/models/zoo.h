#pragma once
// The zoo: every model by name. To add one: src/models/<name>.cpp with EKTM_BACKBONE or EKTM_MODEL at its end, and a line in zoo.def.
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "config/yaml.h"
#include "nn/model.h"

namespace ektm {

struct ModelEntry {
  std::string name, summary, source;
  std::vector<FieldHelp> (*describe)() = nullptr;
  // The config with every default filled in. Problems go into `errors`, under `prefix` ("model.", "model.backbone.") and their keys.
  YAML::Node (*resolve)(const YAML::Node& config, ConfigErrors& errors, const std::string& prefix) = nullptr;
  // `config` as resolve() returned it.
  std::unique_ptr<Model> (*make)(const YAML::Node& config, const ModelSpec& spec, ParameterStore& store) = nullptr;
  // Null for models that are no backbone.
  std::unique_ptr<Backbone> (*make_backbone)(const YAML::Node& config, const ModelSpec& spec, ParameterStore& store) = nullptr;
};

const std::vector<ModelEntry>& zoo();
// Error Config that names the nearest model.
const ModelEntry& find_model(const std::string& name, const std::string& where);
std::vector<std::string> backbone_names();

// A model from a backbone: one linear head a task on its feature, trained on the standard loss.
class HeadedModel : public Model {
 public:
  HeadedModel(const ModelSpec& spec, ParameterStore& store, std::unique_ptr<Backbone> backbone);
  int64_t embedding_groups() const override { return backbone_->embedding_groups(); }
  ModelOutput forward(const at::Tensor& x, Context& context) override;

 private:
  std::unique_ptr<Backbone> backbone_;
  at::Tensor head_weight_, head_bias_;  // [K,d,1], [K,1,1]
};

// A resolved config holds every key, so reading it back cannot fail.
template <class Config>
Config read_resolved(const YAML::Node& node) {
  Config config;
  ConfigErrors errors("model");
  read_config(node, config, errors, "model.", {"name", "backbone"});
  errors.throw_if_any();
  return config;
}

template <class Config>
YAML::Node resolve_config(const YAML::Node& node, ConfigErrors& errors, const std::string& prefix, const char* name) {
  Config config;
  read_config(node, config, errors, prefix, {"name"});
  YAML::Node resolved(YAML::NodeType::Map);
  resolved["name"] = name;
  for (const auto& item : write_config(config)) resolved[item.first] = item.second;
  return resolved;
}

// ModelEntry::make_backbone; null where there is no class.
template <class Config, class Class = void>
auto backbone_maker() -> std::unique_ptr<Backbone> (*)(const YAML::Node&, const ModelSpec&, ParameterStore&) {
  if constexpr (std::is_void_v<Class>) {
    return nullptr;
  } else {
    return [](const YAML::Node& node, const ModelSpec& spec, ParameterStore& store) -> std::unique_ptr<Backbone> {
      return std::make_unique<Class>(read_resolved<Config>(node), spec, store);
    };
  }
}

}  // namespace ektm

// At the end of src/models/<name>.cpp, inside namespace ektm: a backbone with linear heads.
#define EKTM_BACKBONE(name, Config, Class, summary, source)                                                                       \
  ModelEntry zoo_entry_##name() {                                                                                                 \
    return {#name, summary, source,                                                                                               \
            [] { return describe(Config{}); },                                                                                    \
            [](const YAML::Node& node, ConfigErrors& errors, const std::string& prefix) {                                         \
              return resolve_config<Config>(node, errors, prefix, #name);                                                         \
            },                                                                                                                    \
            [](const YAML::Node& node, const ModelSpec& spec, ParameterStore& store) -> std::unique_ptr<Model> {                  \
              return std::make_unique<HeadedModel>(spec, store, std::make_unique<Class>(read_resolved<Config>(node), spec, store)); \
            },                                                                                                                    \
            [](const YAML::Node& node, const ModelSpec& spec, ParameterStore& store) -> std::unique_ptr<Backbone> {               \
              return std::make_unique<Class>(read_resolved<Config>(node), spec, store);                                           \
            }};                                                                                                                   \
  }

// The same for a class derived from Model. Where its task features serve other models, the class of its backbone follows.
#define EKTM_MODEL(name, Config, Class, summary, source, ...)                                                                     \
  ModelEntry zoo_entry_##name() {                                                                                                 \
    return {#name, summary, source,                                                                                               \
            [] { return describe(Config{}); },                                                                                    \
            [](const YAML::Node& node, ConfigErrors& errors, const std::string& prefix) {                                         \
              return resolve_config<Config>(node, errors, prefix, #name);                                                         \
            },                                                                                                                    \
            [](const YAML::Node& node, const ModelSpec& spec, ParameterStore& store) -> std::unique_ptr<Model> {                  \
              return std::make_unique<Class>(read_resolved<Config>(node), spec, store);                                           \
            },                                                                                                                    \
            backbone_maker<Config __VA_OPT__(, ) __VA_ARGS__>()};                                                                  \
  }
