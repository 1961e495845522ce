#include "models/network.h"

#include <fmt/ranges.h>

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "models/zoo.h"
#include "nn/profiler.h"

namespace ektm {
namespace {

ModelSpec make_spec(const RunConfig& config, const DatasetInfo& info, LabelStatistics labels) {
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
      fail(ErrorKind::Config, "loss.task_weights." + name, "no task has this name; the data set's tasks are: {}.{}",
           fmt::join(names, ", "), did_you_mean(name, names));
    spec.task_weights[found - names.begin()] = weight;
  }
  const int64_t tasks = static_cast<int64_t>(info.tasks.size());
  spec.labels.similarity = labels.similarity.defined() ? labels.similarity : at::zeros({tasks, tasks});
  spec.labels.rows = labels.rows.defined() ? labels.rows : at::zeros({tasks, tasks});
  spec.labels.rarer = labels.rarer.defined() ? labels.rarer : at::zeros({tasks});
  spec.labels.known = std::move(labels.known);
  return spec;
}

std::vector<std::string> names_of(const std::vector<FieldInfo>& fields) {
  std::vector<std::string> names;
  for (const auto& field : fields) names.push_back(field.name);
  return names;
}

// Bag -> field, from the names in attention.targets.
std::map<int64_t, int64_t> attention_pairs(const AttentionConfig& config, const DatasetInfo& info) {
  const std::vector<std::string> bags = names_of(info.bags), fields = names_of(info.fields);
  std::map<int64_t, int64_t> pairs;
  for (const auto& [sequence, target] : config.targets) {
    const std::string where = "attention.targets." + sequence;
    const int64_t bag = std::find(bags.begin(), bags.end(), sequence) - bags.begin();
    if (bag == static_cast<int64_t>(bags.size()))
      fail(ErrorKind::Config, where, "no feature of kind ids or sequence has this name; the data set's are: {}.{}", fmt::join(bags, ", "),
           did_you_mean(sequence, bags));
    const int32_t table = info.bags[bag].table;
    std::vector<std::string> fitting;
    for (const auto& field : info.fields)
      if (field.table == table) fitting.push_back(field.name);
    const std::string expected = fitting.empty() ? "no feature of kind id shares the sequence's table: give one the same `table` in the schema, and prepare again"
                                                 : fmt::format("expected one of kind id that shares the sequence's table: {}", fmt::join(fitting, ", "));
    const int64_t field = std::find(fields.begin(), fields.end(), target) - fields.begin();
    if (field == static_cast<int64_t>(fields.size()))
      fail(ErrorKind::Config, where, "no embedded feature is called '{}'; {}.{}", target, expected, did_you_mean(target, fitting));
    if (info.fields[field].table != table)
      fail(ErrorKind::Config, where, "'{}' is of the table '{}', the sequence of the table '{}'; {}.", target, info.tables[info.fields[field].table].name,
           info.tables[table].name, expected);
    pairs.emplace(bag, field);
  }
  return pairs;
}

}  // namespace

Network::Network(const RunConfig& config, const DatasetInfo& info, LabelStatistics labels)
    : info_(info), parameters_(static_cast<uint64_t>(config.seed)) {
  ModelSpec spec = make_spec(config, info, std::move(labels));
  const ModelEntry& entry = find_model(config.model["name"].as<std::string>(), "model.name");
  model_ = entry.make(config.model, spec, parameters_);
  std::vector<int64_t> unpooled;
  for (const auto& [bag, field] : attention_pairs(config.attention, info)) {
    const int64_t dim = config.embedding.dim;
    sequences_.push_back({bag, (static_cast<int64_t>(info.fields.size()) + bag) * dim, field * dim,
                          TargetAttention(parameters_, "attention." + info.bags[bag].name, model_->embedding_groups(), dim, config.attention)});
    unpooled.push_back(bag);
  }
  parameters_.flatten();
  embeddings_ = std::make_unique<EmbeddingStore>(info, config.embedding, model_->embedding_groups(), static_cast<uint64_t>(config.seed), unpooled);
  EKTM_CHECK(embeddings_->features() == spec.features);
}

Network::Pass Network::forward(const Batch& batch, Context& context) const {
  Pass pass;
  {
    EKTM_PROFILE("gather");
    pass.x = embeddings_->gather(batch, context.training);
    for (const Sequence& sequence : sequences_) {
      pass.values.push_back(embeddings_->look_up(batch, sequence.bag, context.training));
      pass.pooled.push_back(sequence.column);
      // A leaf of its own, on x's memory: a slice of x would make backward fill the rest of x with zeros.
      pass.queries.push_back(pass.x.detach().narrow(2, sequence.target_column, embeddings_->dim()).set_requires_grad(context.training));
    }
  }
  EKTM_PROFILE("forward");
  at::Tensor x = pass.x;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const std::vector<int32_t>& offsets = batch.bags[sequences_[i].bag].offsets;
    at::Tensor starts = at::empty({static_cast<int64_t>(offsets.size())}, at::kInt);
    std::memcpy(starts.data_ptr<int32_t>(), offsets.data(), offsets.size() * sizeof(int32_t));
    x = ops::put_columns(x, sequences_[i].attention.forward(pass.values[i], pass.queries[i], starts), sequences_[i].column);
  }
  pass.output = model_->forward(x, context);
  return pass;
}

double Network::collect(const Batch& batch, const Pass& pass) {
  at::Tensor x_grad = pass.x.grad();
  std::vector<at::Tensor> value_grads;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    value_grads.push_back(pass.values[i].grad());
    x_grad.narrow(2, sequences_[i].target_column, embeddings_->dim()).add_(pass.queries[i].grad());
  }
  return embeddings_->collect(batch, x_grad, value_grads);
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
