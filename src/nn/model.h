#pragma once
// What a model is: features of the embedded batch -> logits of all tasks, and a loss over them.
#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"
#include "nn/losses.h"
#include "nn/parameters.h"

namespace ektm {

// A feature's place in x.
struct ColumnInfo {
  std::string name;
  int64_t first = 0, width = 0;
  bool embedded = true;  // false: a number, width 1
};

// Of the labels that training sees.
struct LabelStatistics {
  at::Tensor similarity;  // [K,K]: correlation of the tasks' labels over the rows where both are observed
  at::Tensor rows;        // [K,K]: rows where both are observed
  at::Tensor rarer;       // [K]: observed rows of the rarer of the two labels
  // [K]: of the rows where the event before happened, the share whose own label is known; 1 for roots. Empty: unknown.
  std::vector<double> known = {};
};

// What a model is built for.
struct ModelSpec {
  std::vector<TaskInfo> tasks;       // K
  int64_t features = 0;              // D, width of one group's input
  std::vector<ColumnInfo> columns;   // that x is made of, side by side
  std::vector<double> task_weights;  // [K]
  LabelStatistics labels;            // zeros when unknown
};

struct ModelOutput {
  at::Tensor logits;       // [K,B] of the served heads; a CVR task's is conditional on its `after` event, or with
  bool entire_space = false;   // ... this, of the whole path: sigmoid(logits_t) = P(every event up to t)
  at::Tensor base_logits;  // [K,B] of EKTM's base heads; undefined for other models
  at::Tensor enhanced_logits;  // [T,B] of EKTM's enhanced heads (CVR tasks only); undefined for other models
  // What else the model's own loss reads, by name: "imputation" [T,B] of the conversions.
  std::vector<std::pair<std::string, at::Tensor>> extra;
  // Batch means that `ektm inspect` averages: "similarity" [T,T], "mix" [T,K], "gate_opening" [T], "expert_gates" [K,E], "clipped_propensities" [T].
  std::vector<std::pair<std::string, at::Tensor>> diagnostics;
};

// Yields one feature a task. Owns nothing but its layers; its parameters live in the store.
class Backbone {
 public:
  virtual ~Backbone() = default;
  // Embeddings that it wants for each row: 1 = shared, K = each task its own, K + 1 = and shared ones after them.
  virtual int64_t embedding_groups() const { return 1; }
  virtual int64_t feature_width() const = 0;  // d
  // x [G,B,D] -> f [K,B,d]. Adds to output.diagnostics when context.diagnose.
  virtual at::Tensor features(const at::Tensor& x, Context& context, ModelOutput& output) = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual int64_t embedding_groups() const = 0;
  // x [G,B,D].
  virtual ModelOutput forward(const at::Tensor& x, Context& context) = 0;
  // Default: sum_t task_weight_t * masked mean of BCE(logits_t).
  virtual LossTerms loss(const ModelOutput& output, const Targets& targets) const;

  // What a model learns from a training batch other than by gradients. Called between its loss and its step. first_pass: no step has seen its rows before.
  virtual void observe(const ModelOutput&, const Targets&, bool /*first_pass*/) {}

  // EKTM that serves each task's better head: a buffer [K], 1: the enhanced head (at first), 0: the base head. Filled after training, by
  // what the validation split says. Undefined where nothing is to be chosen.
  virtual at::Tensor head_choice() const { return {}; }

  explicit Model(const ModelSpec& spec) : spec_(spec) {}
  const ModelSpec& spec() const { return spec_; }

 protected:
  at::Tensor task_weights(const at::Tensor& like) const;  // [K]
  ModelSpec spec_;
};

// labels, observed, weights of a batch as [K,B] tensors of `dtype`.
Targets make_targets(const Batch& batch, int64_t tasks, at::ScalarType dtype = at::kFloat);

// Targets of whole paths, over all impressions: label 1 where a task's event and every event before it happened; weight 0 where that is
// unknown (no label although the event before happened). The known ones of the rows that came to the event before count for all of these:
// else every missing label would make the path look rarer. That supposes that labels are missing at random there. Where a batch has such rows
// and none of their labels, only the others count; with `known` (LabelStatistics) batches that have one make up for it, so that over many
// batches each kind of row has its share of the means. That needs about one known label a batch; with fewer the path still comes out too rare,
// since in a batch they get nine times the weight of all others at most. Without `known` such a batch says nothing of the path.
Targets path_targets(const Targets& targets, const std::vector<TaskInfo>& tasks, const std::vector<double>& known = {});

// Probability of the whole path to each task: the product of sigmoid(logits) along the chain of `after` events. [K,B] -> [K,B]
at::Tensor path_probabilities(const at::Tensor& probabilities, const std::vector<TaskInfo>& tasks);
// The other way: of paths, what each event's probability is given the one before it; at most 1 - 1e-6. [K,B] -> [K,B]
at::Tensor conditional_probabilities(const at::Tensor& paths, const std::vector<TaskInfo>& tasks);

}  // namespace ektm
