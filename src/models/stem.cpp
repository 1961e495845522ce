// STEM-Net (Su et al., AAAI 2024): embeddings of each task's own and shared ones; all experts forward, own and shared experts backward.
//
//   x_t, x_s       the row's embeddings of task t, and the shared ones
//   experts        n own ones of each task see x_t, m shared ones see x_s
//   g_t = sum over e in (all experts) of softmax(MLP_t(x_t + x_s))_e * e,   another task's e behind a stop-gradient
//   f_t = T_t(g_t),  p_t = sigmoid(w_t f_t + b_t)
//
// So task t learns from what the other tasks' experts say without changing them or their embeddings. Further levels (key `levels`)
// take g_t as x_t and, as x_s, g_s = sum over e in (all experts) of softmax(MLP_s(x_s))_e * e, which is absent in the last level. The
// paper has one level; its authors' code stacks them like this, with no stop-gradient before g_s.
//
// A public port sends the gates' logits through the hidden layers' ReLU before the softmax; here the last layer of MLP_t is linear.
// x [K+1,B,D], the shared embeddings last -> f [K,B,d].
#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct StemConfig {
  int64_t levels = 1, task_experts = 1, shared_experts = 1;
  std::vector<int64_t> expert_hidden{128, 64}, gate_hidden{32}, tower_hidden{64};
  bool detach_others = true;
  std::string activation = "relu";
  double dropout = 0;
  MlpConfig mlp(const std::vector<int64_t>& hidden) const { return {hidden, activation, dropout}; }
  void fields(FieldVisitor& v) {
    v.field("levels", levels, {1, 16}, "levels of experts; the paper has 1");
    v.field("task_experts", task_experts, {1, 256}, "experts of each task in a level");
    v.field("shared_experts", shared_experts, {1, 256}, "shared experts in a level");
    v.field("expert_hidden", expert_hidden, {1, 65536}, "sizes of each expert's hidden layers, in every level");
    v.field("gate_hidden", gate_hidden, {1, 65536}, "sizes of each gate's hidden layers");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("detach_others", detach_others, "no gradient from task t into another task's experts and embeddings; with more levels the gates of the next ones let one through");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class Stem : public Backbone {
 public:
  Stem(const StemConfig& config, const ModelSpec& spec, ParameterStore& store)
      : tasks_(static_cast<int64_t>(spec.tasks.size())), own_(config.task_experts), all_(tasks_ * own_ + config.shared_experts) {
    int64_t in = spec.features;
    for (int64_t l = 0; l < config.levels; ++l) in = levels_.emplace_back(config, tasks_, in, l, store).task_experts.out();
    towers_.emplace_back(store, "tower", tasks_, in, config.mlp(config.tower_hidden), false);
    for (int64_t t = 0; t < tasks_; ++t)
      for (int64_t e = 0; e < all_; ++e) {
        seen_.push_back(static_cast<int32_t>(e));
        if (config.detach_others) reached_.push_back(e / own_ == t || e >= tasks_ * own_);
      }
  }
  int64_t embedding_groups() const override { return tasks_ + 1; }
  int64_t feature_width() const override { return towers_[0].out(); }

  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput& output) override {
    const std::vector<at::Tensor> parts = x.split_with_sizes({tasks_, 1});
    at::Tensor task_in = parts[0], shared_in = parts[1];  // [K,B,in], [1,B,in]
    for (const Level& level : levels_) {
      const std::vector<at::Tensor> experts{level.task_experts.forward(task_in, context),
                                            level.shared_experts.forward(shared_in.squeeze(0), context)};
      at::Tensor logits = level.gates.forward(level.gate_hidden.forward(task_in + shared_in, context), context);  // [K,B,E]
      if (context.diagnose && &level == &levels_.back())
        output.diagnostics.emplace_back("expert_gates", at::softmax(logits.detach(), 2).mean(1));
      task_in = ops::softmax_mix(logits, experts, seen_, reached_);
      if (level.shared_gate.empty()) break;
      at::Tensor shared_logits = level.shared_gate[0].forward(level.shared_gate_hidden[0].forward(shared_in, context), context);
      shared_in = ops::softmax_mix(shared_logits, experts, {seen_.begin(), seen_.begin() + all_});
    }
    return towers_[0].forward(task_in, context);
  }

 private:
  struct Level {
    Level(const StemConfig& config, int64_t tasks, int64_t in, int64_t index, ParameterStore& store)
        : task_experts(store, name(index, "task_expert"), tasks * config.task_experts, in, config.mlp(config.expert_hidden), false),
          shared_experts(store, name(index, "shared_expert"), config.shared_experts, in, config.mlp(config.expert_hidden), true),
          gate_hidden(store, name(index, "gate_hidden"), tasks, in, config.mlp(config.gate_hidden), false),
          gates(store, name(index, "gate"), tasks, gate_hidden.out(), tasks * config.task_experts + config.shared_experts) {
      if (index + 1 == config.levels) return;
      shared_gate_hidden.emplace_back(store, name(index, "shared_gate_hidden"), 1, in, config.mlp(config.gate_hidden), false);
      shared_gate.emplace_back(store, name(index, "shared_gate"), 1, gate_hidden.out(), tasks * config.task_experts + config.shared_experts);
    }
    static std::string name(int64_t index, const char* part) { return "level" + std::to_string(index) + "." + part; }
    BatchedMlp task_experts, shared_experts, gate_hidden;
    BatchedLinear gates;
    std::vector<BatchedMlp> shared_gate_hidden;  // 0 in the last level, or 1
    std::vector<BatchedLinear> shared_gate;
  };

  int64_t tasks_, own_, all_;     // K, own experts of a task, experts of a level
  std::vector<int32_t> seen_;     // [K*E] every gate sees every expert: task 0's, task 1's, ..., the shared ones
  std::vector<uint8_t> reached_;  // [K*E] which of them learn from the gate's task
  std::vector<Level> levels_;
  std::vector<BatchedMlp> towers_;  // 1
};

}  // namespace

EKTM_BACKBONE(stem, StemConfig, Stem,
              "each task's own embeddings and experts beside shared ones; a task hears all of them and trains its own and the shared ones",
              "Su et al., AAAI 2024")

}  // namespace ektm
