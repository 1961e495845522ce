// Cross-task knowledge distillation, as reconstructed from "Cross-Task Knowledge Distillation in Multi-Task Recommendation" (Yang et al.,
// AAAI 2022).
//
//   experts   e_k(x), shared by students and teachers; a softmax gate, a tower and a linear head for each: student s_t, teacher r_t
//   teacher   of task t ranks pairs of rows (i, j): by the label of t, and where that is equal by the label of another task u
//             (++ before +- before -+ before --):  L_rank = mean softplus(-(r_i - r_j)) over pairs that t orders
//                                                           + auxiliary * mean over pairs that t does not order, but u does
//   calibration (Platt)  c_t = P_t sg(r_t) + Q_t,  L_cal = mean BCE(c_t, y_t)
//   correction  of what is taught: label 1: max(sg(c_t), margin), label 0: min(sg(c_t), -margin)
//   student   L = (1 - distill) mean BCE(s_t, y_t) + distill mean BCE(s_t, sigmoid(corrected c_t))
//   loss      sum_t a_t (L + L_rank + L_cal);  served: sigmoid(s_t)
//
// All means are over observed rows, those of pairs over pairs of observed rows, with the product of their weights.
// Reconstructed: the paper has two tasks, here u runs over all others; pairs are those of row i with rows i+1 .. i+pairs of the (shuffled)
// batch; the paper optimises students, teachers and calibration in turns, here their losses are added, with the same stop-gradients (sg).
// x [1,B,D] -> logits [K,B]; extra "teacher" and (distill > 0) "calibrated" [K,B].
#include <algorithm>

#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct CrossDistilConfig {
  int64_t experts = 6, pairs = 8;
  std::vector<int64_t> expert_hidden{128, 64}, tower_hidden{64};
  std::string activation = "relu";
  double dropout = 0, distill = 0.3, auxiliary = 0.5, margin = 0;
  void fields(FieldVisitor& v) {
    v.field("experts", experts, {1, 1024}, "number of experts, seen by students and teachers");
    v.field("expert_hidden", expert_hidden, {1, 65536}, "sizes of each expert's hidden layers");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of the hidden layers of each student and teacher");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
    v.field("distill", distill, {0, 1}, "share of the teacher's soft label in a student's loss; 0 = teachers are auxiliary tasks only");
    v.field("auxiliary", auxiliary, {0, 1000}, "weight of the pairs that only another task's label orders");
    v.field("pairs", pairs, {1, 4096}, "rows that each row of a batch is ranked against");
    v.field("margin", margin, {-100, 100}, "least logit taught for a label 1, its negative the largest for a label 0; -100 = no correction");
  }
};

class CrossDistil : public Model {
 public:
  CrossDistil(const CrossDistilConfig& config, const ModelSpec& spec, ParameterStore& store)
      : Model(spec), config_(config), tasks_(static_cast<int64_t>(spec.tasks.size())),
        experts_(store, "expert", config.experts, spec.features, {config.expert_hidden, config.activation, config.dropout}, true),
        gates_(store, "gate", 2 * tasks_, spec.features, config.experts, false),
        towers_(store, "tower", 2 * tasks_, experts_.out(), {config.tower_hidden, config.activation, config.dropout}, false) {
    head_weight_ = store.add("head.weight", {tasks_, towers_.out(), 1}, Init::Xavier);
    head_bias_ = store.add("head.bias", {tasks_, 1, 1}, Init::Zero);
    // Without a bias: differences of scores do not see it.
    teacher_weight_ = store.add("teacher.weight", {tasks_, towers_.out(), 1}, Init::Xavier);
    if (config.distill == 0) return;
    scale_ = store.add("calibration.scale", {tasks_, 1, 1}, Init::One);
    shift_ = store.add("calibration.shift", {tasks_, 1, 1}, Init::Zero);
  }
  int64_t embedding_groups() const override { return 1; }

  ModelOutput forward(const at::Tensor& x, Context& context) override {
    ModelOutput output;
    const at::Tensor experts = experts_.forward(x.squeeze(0), context);  // [E,B,H]
    const at::Tensor gates = gates_.forward(x.squeeze(0), context);      // [2K,B,E]
    if (context.diagnose) output.diagnostics.emplace_back("expert_gates", at::softmax(gates.detach().narrow(0, 0, tasks_), 2).mean(1));
    const at::Tensor towers = towers_.forward(mix_experts(gates, experts), context);  // [2K,B,d]: students, then teachers
    output.logits = ops::heads(towers.narrow(0, 0, tasks_), head_weight_, head_bias_);
    const at::Tensor teacher = ops::heads(towers.narrow(0, tasks_, tasks_), teacher_weight_, {});
    output.extra.emplace_back("teacher", teacher);
    if (config_.distill > 0) output.extra.emplace_back("calibrated", scale_.squeeze(2) * teacher.detach() + shift_.squeeze(2));
    return output;
  }

  LossTerms loss(const ModelOutput& output, const Targets& targets) const override {
    const at::Tensor& teacher = output.extra[0].second;
    const at::Tensor student = masked_mean(bce(output.logits, targets.labels), targets.weight), ranking = ranking_loss(teacher, targets);
    std::vector<at::Tensor> values = {student, ranking};
    at::Tensor sum = (1 - config_.distill) * student + ranking;
    if (config_.distill > 0) {
      const at::Tensor& calibrated = output.extra[1].second;
      const at::Tensor calibration = masked_mean(bce(calibrated, targets.labels), targets.weight);
      const at::Tensor known = calibrated.detach();
      const at::Tensor corrected = at::where(targets.labels > 0, known.clamp_min(config_.margin), known.clamp_max(-config_.margin));
      const at::Tensor taught = masked_mean(bce(output.logits, at::sigmoid(corrected)), targets.weight);
      sum = sum + config_.distill * taught + calibration;
      values.insert(values.end(), {calibration, taught});
    }
    LossTerms terms;
    terms.task_losses = sum * task_weights(sum);
    terms.total = terms.task_losses.sum();
    const char* const suffixes[] = {"", ".ranking", ".calibration", ".taught"};
    for (size_t i = 0; i < values.size(); ++i)
      for (const auto& task : spec_.tasks) terms.names.push_back(task.name + suffixes[i]);
    terms.values = at::cat(values).detach();
    return terms;
  }

 private:
  // [K]. Each pair once: row i and row i + k of the batch, counted on from its start, for every k that is not longer than half a batch.
  at::Tensor ranking_loss(const at::Tensor& teacher, const Targets& targets) const {
    const int64_t rows = teacher.size(1);
    at::Tensor own = at::zeros({tasks_}, teacher.options()), own_weight = own, other = own, other_weight = own;
    for (int64_t k = 1; k <= std::min(config_.pairs, (rows - 1) / 2); ++k) {
      const at::Tensor difference = teacher - teacher.roll({-k}, {1});                            // [K,B]
      const at::Tensor order = targets.labels - targets.labels.roll({-k}, {1});                   // 1, 0, -1
      const at::Tensor weight = targets.weight * targets.weight.roll({-k}, {1});
      const at::Tensor decided = weight * order.abs();
      own = own + (decided * at::softplus(-order * difference)).sum(1);
      own_weight = own_weight + decided.sum(1);
      if (tasks_ == 1) continue;
      // Task t's pair by task u's labels: [t,u,B].
      const at::Tensor between = (weight * (1 - order.abs())).unsqueeze(1) * ((weight > 0) * order.abs()).unsqueeze(0);
      other = other + (between * at::softplus(-order.unsqueeze(0) * difference.unsqueeze(1))).sum({1, 2});
      other_weight = other_weight + between.sum({1, 2});
    }
    auto mean = [](const at::Tensor& sum, const at::Tensor& weight) { return sum / at::where(weight > 0, weight, at::ones_like(weight)); };
    return mean(own, own_weight) + config_.auxiliary * mean(other, other_weight);
  }

  CrossDistilConfig config_;
  int64_t tasks_;
  BatchedMlp experts_;
  FanOutLinear gates_;
  BatchedMlp towers_;
  at::Tensor head_weight_, head_bias_, teacher_weight_;  // [K,d,1], [K,1,1], [K,d,1]
  at::Tensor scale_, shift_;                             // [K,1,1]; undefined without distillation
};

}  // namespace

EKTM_MODEL(cross_distil, CrossDistilConfig, CrossDistil, "students taught by teachers that rank over all tasks' labels",
           "Yang et al., AAAI 2022, as reconstructed")

}  // namespace ektm
