#include "models/zoo.h"

#include <fmt/ranges.h>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "nn/ops.h"

namespace ektm {

#define EKTM_ZOO(name) ModelEntry zoo_entry_##name();
#include "models/zoo.def"
#undef EKTM_ZOO

const std::vector<ModelEntry>& zoo() {
#define EKTM_ZOO(name) zoo_entry_##name(),
  static const std::vector<ModelEntry> entries = {
#include "models/zoo.def"
  };
#undef EKTM_ZOO
  return entries;
}

const ModelEntry& find_model(const std::string& name, const std::string& where) {
  std::vector<std::string> names;
  for (const auto& entry : zoo()) {
    if (entry.name == name) return entry;
    names.push_back(entry.name);
  }
  fail(ErrorKind::Config, where, "found the model '{}'; expected one of: {}.{}", name, fmt::join(names, ", "), did_you_mean(name, names));
}

std::vector<std::string> backbone_names() {
  std::vector<std::string> names;
  for (const auto& entry : zoo())
    if (entry.make_backbone) names.push_back(entry.name);
  return names;
}

HeadedModel::HeadedModel(const ModelSpec& spec, ParameterStore& store, std::unique_ptr<Backbone> backbone)
    : Model(spec), backbone_(std::move(backbone)) {
  const int64_t tasks = static_cast<int64_t>(spec.tasks.size());
  head_weight_ = store.add("head.weight", {tasks, backbone_->feature_width(), 1}, Init::Xavier);
  head_bias_ = store.add("head.bias", {tasks, 1, 1}, Init::Zero);
}

ModelOutput HeadedModel::forward(const at::Tensor& x, Context& context) {
  ModelOutput output;
  at::Tensor f = backbone_->features(x, context, output);
  output.logits = ops::heads(f, head_weight_, head_bias_);
  return output;
}

}  // namespace ektm
