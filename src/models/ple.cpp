// Progressive layered extraction (Tang et al., RecSys 2020): L levels of customized gate control (CGC).
//
//   level l:  g_t = sum over e in (own_t + shared) of softmax(W_t in_t)_e * e(in),   in_t = g_t of the level below, x at the first
//             g_s = sum over e in (all experts)    of softmax(W_s in_s)_e * e(in)    absent in the last level
//   f_t = T_t(g_t of the last level),  p_t = sigmoid(w_t f_t + b_t)
//
// Task experts see in_t, shared experts in_s. The shared gate sees all experts, as in the paper (two public versions let it see the
// shared ones only). x [1,B,D] -> f [K,B,d].
#include <numeric>

#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct PleConfig {
  int64_t levels = 2, task_experts = 2, shared_experts = 2;
  std::vector<int64_t> expert_hidden{64}, tower_hidden{64};
  std::string activation = "relu";
  double dropout = 0;
  void fields(FieldVisitor& v) {
    v.field("levels", levels, {1, 16}, "levels of extraction; 1 is CGC");
    v.field("task_experts", task_experts, {1, 256}, "experts of each task in a level");
    v.field("shared_experts", shared_experts, {1, 256}, "shared experts in a level");
    v.field("expert_hidden", expert_hidden, {1, 65536}, "sizes of each expert's hidden layers, in every level");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class Ple : public Backbone {
 public:
  Ple(const PleConfig& config, const ModelSpec& spec, ParameterStore& store)
      : config_(config), tasks_(static_cast<int64_t>(spec.tasks.size())) {
    int64_t in = spec.features;
    const MlpConfig expert{config.expert_hidden, config.activation, config.dropout};
    for (int64_t l = 0; l < config.levels; ++l) levels_.emplace_back(config, tasks_, in, expert, l, store), in = levels_.back().out;
    towers_ = std::make_unique<BatchedMlp>(store, "tower", tasks_, in, MlpConfig{config.tower_hidden, config.activation, config.dropout},
                                           false);
  }
  int64_t feature_width() const override { return towers_->out(); }

  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput& output) override {
    at::Tensor task_in, shared_in = x.squeeze(0);  // [K,B,in], [B,in]; at the first level all see x
    for (size_t l = 0; l < levels_.size(); ++l) {
      Level& level = levels_[l];
      const int64_t own = config_.task_experts, shared = config_.shared_experts;
      // Task 0's own experts, task 1's, ..., then the shared ones, each [B,H].
      std::vector<at::Tensor> experts;
      if (l == 0)
        experts = {level.first->forward(shared_in, context)};
      else
        experts = {level.task_experts->forward(task_in, context), level.shared_experts->forward(shared_in, context)};
      at::Tensor logits = l == 0 ? level.first_gates->forward(shared_in, context) : level.gates->forward(task_in, context);  // [K,B,own+shared]
      if (context.diagnose && l + 1 == levels_.size())
        output.diagnostics.emplace_back("expert_gates", at::softmax(logits.detach(), 2).mean(1));
      std::vector<int32_t> seen;
      for (int64_t t = 0; t < tasks_; ++t) {
        for (int64_t e = 0; e < own; ++e) seen.push_back(static_cast<int32_t>(t * own + e));
        for (int64_t e = 0; e < shared; ++e) seen.push_back(static_cast<int32_t>(tasks_ * own + e));
      }
      task_in = ops::softmax_mix(logits, experts, seen);
      if (level.shared_gate) {
        std::vector<int32_t> all(tasks_ * own + shared);
        std::iota(all.begin(), all.end(), 0);
        shared_in = ops::softmax_mix(level.shared_gate->forward(shared_in, context), experts, all).squeeze(0);
      }
    }
    return towers_->forward(task_in, context);
  }

 private:
  struct Level {
    Level(const PleConfig& config, int64_t tasks, int64_t in, const MlpConfig& expert, int64_t index, ParameterStore& store) {
      const std::string name = "level" + std::to_string(index);
      const int64_t seen = config.task_experts + config.shared_experts;
      if (index == 0) {
        first = std::make_unique<BatchedMlp>(store, name + ".expert", tasks * config.task_experts + config.shared_experts, in, expert, true);
        first_gates = std::make_unique<FanOutLinear>(store, name + ".gate", tasks, in, seen, false);
        out = first->out();
      } else {
        task_experts = std::make_unique<BatchedMlp>(store, name + ".task_expert", tasks * config.task_experts, in, expert, false);
        shared_experts = std::make_unique<BatchedMlp>(store, name + ".shared_expert", config.shared_experts, in, expert, true);
        gates = std::make_unique<BatchedLinear>(store, name + ".gate", tasks, in, seen, false);
        out = task_experts->out();
      }
      if (index + 1 < config.levels)
        shared_gate = std::make_unique<FanOutLinear>(store, name + ".shared_gate", 1, in, tasks * config.task_experts + config.shared_experts, false);
    }
    // The first level has one input for all experts; later levels have one a task and a shared one.
    std::unique_ptr<BatchedMlp> first, task_experts, shared_experts;
    std::unique_ptr<FanOutLinear> first_gates, shared_gate;
    std::unique_ptr<BatchedLinear> gates;
    int64_t out = 0;
  };

  PleConfig config_;
  int64_t tasks_;
  std::vector<Level> levels_;
  std::unique_ptr<BatchedMlp> towers_;
};

}  // namespace

EKTM_BACKBONE(ple, PleConfig, Ple, "shared and task-specific experts, extracted in levels", "Tang et al., RecSys 2020")

}  // namespace ektm
