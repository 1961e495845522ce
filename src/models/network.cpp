#include "models/network.h"

#include <fmt/ranges.h>

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "models/zoo.h"
#include "nn/profiler.h"

namespace ektm {
namespace {

ModelSpec make_spec(const RunConfig& config, const DatasetInfo& info, at::Tensor label_similarity) {
  ModelSpec spec;
  spec.tasks = info.tasks;
  spec.features = static_cast<int64_t>(info.fields.size() + info.bags.size()) * config.embedding.dim + static_cast<int64_t>(info.numbers.size());
  auto add_column = [&](const std::string& name, int64_t width, bool embedded) {
    spec.columns.push_back({name, spec.columns.empty() ? 0 : spec.columns.back().first + spec.columns.back().width, width, embedded});
  };
  for (const auto& field : info.fields) add_column(field.name, config.embedding.dim, true);
  for (const auto& bag : info.bags) add_column(bag.name, config.embedding.dim, true);
  for (const auto& number : info.numbers) add_column(number, 1, false);
  spec.task_weights.assign(info.tasks.size(), 1.0);
  std::vector<std::string> names;
  for (const auto& task : info.tasks) names.push_back(task.name);
  for (const auto& [name, weight] : config.loss.task_weights) {
    auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
      fail(ErrorKind::Config, "loss.task_weights." + name, "no task has this name; the data set's tasks are: {}. Nearest: '{}'.",
           fmt::join(names, ", "), nearest_name(name, names));
    spec.task_weights[found - names.begin()] = weight;
  }
  const int64_t tasks = static_cast<int64_t>(info.tasks.size());
  spec.label_similarity = label_similarity.defined() ? label_similarity : at::zeros({tasks, tasks});
  return spec;
}

}  // namespace

Network::Network(const RunConfig& config, const DatasetInfo& info, at::Tensor label_similarity)
    : info_(info), parameters_(static_cast<uint64_t>(config.seed)) {
  ModelSpec spec = make_spec(config, info, std::move(label_similarity));
  const ModelEntry& entry = find_model(config.model["name"].as<std::string>(), "model.name");
  model_ = entry.make(config.model, spec, parameters_);
  parameters_.flatten();
  embeddings_ = std::make_unique<EmbeddingStore>(info, config.embedding, model_->embedding_groups(), static_cast<uint64_t>(config.seed));
  EKTM_CHECK(embeddings_->features() == spec.features);
}

Network::Pass Network::forward(const Batch& batch, Context& context) const {
  Pass pass;
  {
    EKTM_PROFILE("gather");
    pass.x = embeddings_->gather(batch, context.training);
  }
  EKTM_PROFILE("forward");
  pass.output = model_->forward(pass.x, context);
  return pass;
}

Network::Scores Network::score(const Batch& batch, bool diagnose) const {
  at::NoGradGuard no_grad;
  Context context;
  context.diagnose = diagnose;
  ModelOutput output = forward(batch, context).output;
  Scores scores;
  if (output.entire_space) {
    scores.path = at::sigmoid(output.logits);
    scores.served = conditional_probabilities(scores.path, info_.tasks);
  } else {
    scores.served = at::sigmoid(output.logits);
    scores.path = path_probabilities(scores.served, info_.tasks);
  }
  if (output.base_logits.defined()) scores.base = at::sigmoid(output.base_logits);
  scores.diagnostics = std::move(output.diagnostics);
  return scores;
}

std::vector<std::pair<std::string, at::Tensor>> Network::state(bool optimizer_state) const {
  auto tensors = embeddings_->state(optimizer_state);
  for (const auto& entry : parameters_.entries()) tensors.emplace_back(entry.name, entry.tensor);
  return tensors;
}

}  // namespace ektm
