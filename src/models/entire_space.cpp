#include "models/entire_space.h"

#include "nn/ops.h"

namespace ektm {

EntireSpaceModel::EntireSpaceModel(const MlpConfig& mlp, const ModelSpec& spec, ParameterStore& store)
    : Model(spec), towers_(store, "tower", static_cast<int64_t>(spec.tasks.size()), spec.features, mlp, true), levels_(spec.tasks) {
  const int64_t tasks = static_cast<int64_t>(spec.tasks.size());
  head_weight_ = store.add("head.weight", {tasks, towers_.out(), 1}, Init::Xavier);
  head_bias_ = store.add("head.bias", {tasks, 1, 1}, Init::Zero);
  for (int64_t t = 0; t < tasks; ++t)
    if (spec.tasks[t].parent >= 0) conversions_.push_back(t), parents_.push_back(spec.tasks[t].parent);
}

at::Tensor EntireSpaceModel::logits(const at::Tensor& features) const { return ops::heads(features, head_weight_, head_bias_); }

at::Tensor EntireSpaceModel::of_conversions(const at::Tensor& all) const {
  const int64_t count = conversions();
  if (conversions_.back() - conversions_.front() + 1 == count) return all.narrow(0, conversions_.front(), count);
  return all.index_select(0, at::tensor(conversions_));
}

at::Tensor EntireSpaceModel::propensities(const at::Tensor& logits) const {
  return path_probabilities(at::sigmoid(logits), spec_.tasks).index_select(0, at::tensor(parents_));
}

void EntireSpaceModel::diagnose_clipping(const at::Tensor& logits, double clip, bool both_sides, ModelOutput& output) const {
  at::Tensor propensity = propensities(logits.detach()), clipped = propensity < clip;
  if (both_sides) clipped = clipped.logical_or(propensity > 1 - clip);
  output.diagnostics.emplace_back("clipped_propensities", clipped.to(propensity.scalar_type()).mean(1));
}

LossTerms EntireSpaceModel::path_loss(const at::Tensor& logits, const Targets& path, double path_weight,
                                      const std::vector<ConversionTerm>& terms) const {
  LossTerms result;
  at::Tensor shares = masked_mean(path_bce(logits, path.labels, levels_), path.weight);  // [K]
  std::vector<at::Tensor> values{shares.detach()};
  for (const auto& task : spec_.tasks) result.names.push_back(task.parent < 0 ? task.name : task.name + ".path");
  if (conversions() > 0) {
    at::Tensor own = path_weight * of_conversions(shares);
    for (const auto& term : terms) {
      own = own + term.weight * term.values;
      values.push_back(term.values.detach());
      for (int64_t t : conversions_) result.names.push_back(spec_.tasks[t].name + "." + term.name);
    }
    shares = shares.index_copy(0, at::tensor(conversions_), own);
  }
  result.values = at::cat(values);
  result.task_losses = shares * task_weights(shares);
  result.total = result.task_losses.sum();
  return result;
}

}  // namespace ektm
