#pragma once
// What the models of the ESMM family have in common: a tower a task on shared embeddings, and losses over all impressions.
#include "nn/layers.h"
#include "nn/model.h"
#include "nn/task_levels.h"

namespace ektm {

// Of the K tasks, T are conversions, those with an `after` event; o [T,B] says where that event happened and the label is known.
class EntireSpaceModel : public Model {
 public:
  int64_t embedding_groups() const override { return 1; }

 protected:
  EntireSpaceModel(const MlpConfig& mlp, const ModelSpec& spec, ParameterStore& store);
  // x [1,B,D] -> features [K,B,d] of the towers.
  at::Tensor features(const at::Tensor& x, Context& context) const { return towers_.forward(x.squeeze(0), context); }
  // [K,B] conditional logits.
  at::Tensor logits(const at::Tensor& features) const;
  int64_t feature_width() const { return towers_.out(); }

  int64_t conversions() const { return static_cast<int64_t>(conversions_.size()); }  // T
  at::Tensor of_conversions(const at::Tensor& all) const;                            // rows of [K,...] -> [T,...]
  // P(a conversion's `after` event and all before it), the propensity of its label: [K,B] logits -> [T,B].
  at::Tensor propensities(const at::Tensor& logits) const;
  // Diagnostics: "clipped_propensities" [T], the share of rows whose propensity is below `clip`, or with `both_sides` above 1 - clip.
  void diagnose_clipping(const at::Tensor& logits, double clip, bool both_sides, ModelOutput& output) const;

  // Means of a loss whose terms have one number a conversion.
  struct ConversionTerm {
    const char* name;   // reported as <task>.<name>
    double weight;      // in the task's loss
    at::Tensor values;  // [T]
  };
  // sum_t a_t ( c_t BCE(path label, P_t) over all impressions whose path is known + sum of the conversions' terms );
  // c_t is 1 for roots and `path_weight` for conversions. `path`: path_targets().
  LossTerms path_loss(const at::Tensor& logits, const Targets& path, double path_weight, const std::vector<ConversionTerm>& terms) const;

 private:
  BatchedMlp towers_;
  at::Tensor head_weight_, head_bias_;  // [K,d,1], [K,1,1]
  TaskLevels levels_;
  std::vector<int64_t> conversions_, parents_;  // parents_: of the conversions
};

}  // namespace ektm
