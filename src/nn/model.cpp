#include "nn/model.h"

namespace ektm {

LossTerms Model::loss(const ModelOutput& output, const Targets& targets) const {
  at::Tensor values = masked_mean(bce(output.logits, targets.labels), targets.weight);
  LossTerms terms;
  terms.task_losses = values * task_weights(values);
  terms.total = terms.task_losses.sum();
  for (const auto& task : spec_.tasks) terms.names.push_back(task.name);
  terms.values = values.detach();
  return terms;
}

at::Tensor Model::task_weights(const at::Tensor& like) const {
  return at::tensor(spec_.task_weights, at::TensorOptions().dtype(like.dtype()));
}

Targets make_targets(const Batch& batch, int64_t tasks, at::ScalarType dtype) {
  at::Tensor labels = at::empty({tasks, batch.rows}), weight = at::empty({tasks, batch.rows});
  float* label = labels.data_ptr<float>();
  float* mask = weight.data_ptr<float>();
  for (int64_t b = 0; b < batch.rows; ++b) {
    const float sample_weight = batch.weights.empty() ? 1.f : batch.weights[b];
    for (int64_t t = 0; t < tasks; ++t) {
      label[t * batch.rows + b] = batch.labels[b * tasks + t];
      mask[t * batch.rows + b] = batch.observed[b * tasks + t] ? sample_weight : 0.f;
    }
  }
  return {labels.to(dtype), weight.to(dtype)};
}

Targets path_targets(const Targets& targets, const std::vector<TaskInfo>& tasks, const std::vector<double>& known) {
  std::vector<at::Tensor> labels, weights;
  for (size_t t = 0; t < tasks.size(); ++t) {
    at::Tensor weight = targets.weight[static_cast<int64_t>(t)], label = targets.labels[static_cast<int64_t>(t)] * (weight > 0);
    if (const int32_t parent = tasks[t].parent; parent >= 0) {
      // Where the path broke off before, it is known not to have come this far; where it came to the parent, the rows whose label is known
      // stand for all. Their share is that of the batch, and 1 to the bit where every label is known.
      const at::Tensor came = weights[parent] * (labels[parent] != 0), seen = came * (weight > 0), of_seen = seen.sum(), of_came = came.sum();
      const at::Tensor broke_off = weights[parent] * (labels[parent] == 0);
      at::Tensor stand_for = of_came, without_seen = at::where(of_came > 0, 0, broke_off);
      if (const double share = known.empty() ? 0 : known[t]; share > 0 && share < 1) {
        // One of the n rows that came this far has its label with probability 1 - (1 - share)^n. In these batches they get the share of the mean
        // that is theirs, over that probability; in the others they get none. Beyond their own share they get kMost at most, lest the batch be theirs alone.
        constexpr double kMost = 0.9;
        const at::Tensor share_of_mean = of_came / weights[parent].sum(), any = 1 - at::pow(1 - share, (came > 0).sum().to(at::kDouble));
        const at::Tensor theirs = at::minimum(share_of_mean / any, share_of_mean.clamp_min(kMost)).to(of_came.scalar_type());
        stand_for = broke_off.sum() * theirs / (1 - theirs);
        stand_for = at::where(stand_for > 0, stand_for, of_came);  // every row came this far
        without_seen = broke_off;
      }
      weight = at::where(of_seen > 0, broke_off + seen * (stand_for / of_seen), without_seen);
      label = label * (weight > 0);
    }
    labels.push_back(label);
    weights.push_back(weight);
  }
  return {at::stack(labels), at::stack(weights)};
}

at::Tensor path_probabilities(const at::Tensor& probabilities, const std::vector<TaskInfo>& tasks) {
  std::vector<at::Tensor> paths;
  for (size_t t = 0; t < tasks.size(); ++t) {
    at::Tensor own = probabilities[static_cast<int64_t>(t)];
    paths.push_back(tasks[t].parent < 0 ? own : own * paths[tasks[t].parent]);
  }
  return at::stack(paths);
}

at::Tensor conditional_probabilities(const at::Tensor& paths, const std::vector<TaskInfo>& tasks) {
  std::vector<at::Tensor> conditional;
  for (size_t t = 0; t < tasks.size(); ++t) {
    at::Tensor own = paths[static_cast<int64_t>(t)];
    conditional.push_back(tasks[t].parent < 0 ? own : (own / paths[tasks[t].parent].clamp_min(1e-30)).clamp_max(1 - 1e-6));
  }
  return at::stack(conditional);
}

}  // namespace ektm
