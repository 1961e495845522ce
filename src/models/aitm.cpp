// Adaptive information transfer (AITM, Xi et al., KDD 2021): each task attends to its own feature and to what comes from the task before it.
//
//   q_t = T_t(x)
//   z_t = q_t                                                     for a task without `after`
//   u_t = act(W_t z_parent + b_t)                                 what is handed on
//   z_t = sum over u in {q_t, u_t} of softmax_u( <Q_t u, K_t u> / sqrt(d) ) V_t u
//   P_t = sigmoid(w_t z_t + c_t)                                  the probability of the whole path to t, over all impressions
//   L   = sum_t a_t ( BCE(path label of t, P_t) + constraint * weighted mean over all impressions of max(0, P_t - P_parent) )
//
// The paper's chain is one line of conversions; here information flows along `after`, so parallel conversions each take it from their
// common parent. The constraint is the paper's behavioral expectation calibrator; ports that serve conditional probabilities omit it, and it
// has no meaning for those. Impressions whose path label is unknown do not count in BCE. x [1,B,D] -> z [K,B,d]; Q, K, V are one product.
// As a backbone of EKTM, z are the task features.
#include <cmath>

#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/ops.h"
#include "nn/task_levels.h"

namespace ektm {
namespace {

struct AitmConfig {
  MlpConfig mlp{{128, 64}};
  double constraint = 0.6;
  void fields(FieldVisitor& v) {
    v.field("hidden", mlp.hidden, {1, 65536}, "sizes of each task's hidden layers; the last is the width of what is handed on");
    v.field("activation", mlp.activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer, and on what is handed on");
    v.field("dropout", mlp.dropout, {0, 0.95}, "share of hidden numbers dropped while training");
    v.field("constraint", constraint, {0, 1000}, "weight of max(0, P - P of the event before); without effect in a backbone of ektm");
  }
};

class AitmBackbone : public Backbone {
 public:
  AitmBackbone(const AitmConfig& config, const ModelSpec& spec, ParameterStore& store)
      : config_(config.mlp), levels_(spec.tasks), towers_(store, "tower", static_cast<int64_t>(spec.tasks.size()), spec.features, config.mlp, true) {
    for (size_t l = 1; l < levels_.count(); ++l)
      transfers_.emplace_back(store, "transfer" + std::to_string(l), static_cast<int64_t>(levels_.tasks(l).size()), towers_.out());
  }
  int64_t feature_width() const override { return towers_.out(); }

  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput&) override {
    at::Tensor q = towers_.forward(x.squeeze(0), context);  // [K,B,d]
    std::vector<at::Tensor> z{levels_.select(q, 0)};
    for (size_t l = 1; l < levels_.count(); ++l) {
      const Transfer& transfer = transfers_[l - 1];
      at::Tensor handed_on = transfer.info.forward(levels_.parents(z[l - 1], l), config_.activation, config_.dropout, context);
      z.push_back(attend(transfer, levels_.select(q, l), handed_on, context));
    }
    return levels_.join(z);
  }

 private:
  struct Transfer {
    Transfer(ParameterStore& store, const std::string& name, int64_t count, int64_t width)
        : info(store, name + ".info", count, width, width),
          weight(store.add(name + ".attention.weight", {count, width, 3 * width}, Init::Xavier, width, width)),
          bias(store.add(name + ".attention.bias", {count, 1, 3 * width}, Init::Zero)) {}
    BatchedLinear info;
    at::Tensor weight, bias;  // [n,d,3d], [n,1,3d]: query, key, value
  };

  // own, other [n,B,d] -> [n,B,d].
  static at::Tensor attend(const Transfer& transfer, const at::Tensor& own, const at::Tensor& other, Context& context) {
    const int64_t count = own.size(0), width = own.size(2);
    std::vector<at::Tensor> scores, values;
    for (const at::Tensor& u : {own, other}) {
      // Split, not three views: its gradient is written once.
      const auto parts = ops::stacked(u, {}, transfer.weight, transfer.bias, false, 0, context).split(width, 2);
      scores.push_back((parts[0] * parts[1]).sum(2) / std::sqrt(static_cast<double>(width)));
      values.push_back(parts[2]);
    }
    std::vector<int32_t> index;
    for (int64_t t = 0; t < count; ++t)
      for (int64_t place : {t, count + t}) index.push_back(static_cast<int32_t>(place));
    return ops::softmax_mix(at::stack(scores, 2), values, index);
  }

  MlpConfig config_;
  TaskLevels levels_;
  BatchedMlp towers_;
  std::vector<Transfer> transfers_;  // of level 1, 2, ...
};

class Aitm : public HeadedModel {
 public:
  Aitm(const AitmConfig& config, const ModelSpec& spec, ParameterStore& store)
      : HeadedModel(spec, store, std::make_unique<AitmBackbone>(config, spec, store)), constraint_(config.constraint) {
    for (size_t t = 0; t < spec.tasks.size(); ++t)
      if (spec.tasks[t].parent >= 0) {
        int64_t first = spec.tasks[t].parent;
        while (spec.tasks[first].parent >= 0) first = spec.tasks[first].parent;
        conversions_.push_back(static_cast<int64_t>(t)), parents_.push_back(spec.tasks[t].parent), first_events_.push_back(first);
      }
  }

  ModelOutput forward(const at::Tensor& x, Context& context) override {
    ModelOutput output = HeadedModel::forward(x, context);
    output.entire_space = true;
    return output;
  }

  LossTerms loss(const ModelOutput& output, const Targets& targets) const override {
    const Targets path = path_targets(targets, spec_.tasks, spec_.labels.known);
    LossTerms terms;
    at::Tensor shares = masked_mean(bce(output.logits, path.labels), path.weight);  // [K]
    terms.values = shares.detach();
    for (const auto& task : spec_.tasks) terms.names.push_back(task.parent < 0 ? task.name : task.name + ".path");
    if (!conversions_.empty()) {
      at::Tensor p = at::sigmoid(output.logits), conversions = at::tensor(conversions_);
      at::Tensor excess = at::relu(p.index_select(0, conversions) - p.index_select(0, at::tensor(parents_)));
      // It needs no label; but a task that the batch says nothing of is to have no gradient.
      const at::Tensor known = (path.weight.index_select(0, conversions).sum(1) > 0).to(excess.scalar_type());
      excess = masked_mean(excess, targets.weight.index_select(0, at::tensor(first_events_))) * known;
      shares = shares.index_add(0, conversions, constraint_ * excess);
      terms.values = at::cat({terms.values, excess.detach()});
      for (int64_t t : conversions_) terms.names.push_back(spec_.tasks[t].name + ".excess");
    }
    terms.task_losses = shares * task_weights(shares);
    terms.total = terms.task_losses.sum();
    return terms;
  }

 private:
  double constraint_;
  std::vector<int64_t> conversions_, parents_, first_events_;  // of the conversions: parents, and roots of their chains
};

}  // namespace

EKTM_MODEL(aitm, AitmConfig, Aitm, "attention of each task to the one before it in the chain, probabilities of whole paths", "Xi et al., KDD 2021",
           AitmBackbone)

}  // namespace ektm
