// A pool of modules for all tasks, a soft selection of them for each (after Bashkirova et al. 2021).
//
//   h_t^0 = x
//   h_t^l = sum_m softmax(s_t^l)_m * act(W_m^l h_t^(l-1) + b_m^l)      s_t^l [M]: learned, one a task and layer, the same for every row
//   f_t   = T_t(h_t^L),  p_t = sigmoid(w_t f_t + b_t)
//
// What is a task's own is its selection, its tower and its head: a few numbers that can be tuned, or added for a new task, while the modules
// and the other tasks stay as they are. Selections start equal. The paper's text was not at hand; this is the form that its summaries
// describe: modules a layer, selected softly by task and not by row (that is what gates of mmoe do).
// x [1,B,D] -> f [K,B,d].
#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct ModularConfig {
  int64_t modules = 4;
  std::vector<int64_t> hidden{128, 64}, tower_hidden{32};
  std::string activation = "relu";
  double dropout = 0;
  void fields(FieldVisitor& v) {
    v.field("modules", modules, {1, 1024}, "modules in each layer of the pool");
    v.field("hidden", hidden, {1, 65536}, "width of the modules in each layer of the pool");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class Modular : public Backbone {
 public:
  Modular(const ModularConfig& config, const ModelSpec& spec, ParameterStore& store)
      : config_(config), tasks_(static_cast<int64_t>(spec.tasks.size())) {
    int64_t in = spec.features;
    for (size_t l = 0; l < config.hidden.size(); ++l) {
      const std::string layer = std::to_string(l);
      modules_.emplace_back(store, "module." + layer, config.modules, in, config.hidden[l]);
      selection_.push_back(store.add("selection." + layer, {tasks_, config.modules}, Init::Zero, 0, 0, /*map_dim=*/0));
      in = config.hidden[l];
    }
    towers_.emplace_back(store, "tower", tasks_, in, MlpConfig{config.tower_hidden, config.activation, config.dropout}, false);
  }
  int64_t feature_width() const override { return towers_[0].out(); }

  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput& output) override {
    const int64_t rows = x.size(1), count = config_.modules;
    at::Tensor h = x;  // [1,B,in] for all tasks, after the first layer [K,B,in], in memory [B,K,in]
    for (size_t l = 0; l < modules_.size(); ++l) {
      // Every module sees the input of every task: as many rows for one as there are inputs.
      const int64_t inputs = h.size(0), width = config_.hidden[l];
      const at::Tensor by_input = h.transpose(0, 1).reshape({rows * inputs, h.size(2)});
      const at::Tensor pool = modules_[l].forward(by_input, config_.activation, config_.dropout, context);
      if (inputs == 1) {
        h = mix_experts(selection_[l].unsqueeze(1).expand({tasks_, rows, count}), pool);
      } else {
        const at::Tensor by_row = selection_[l].unsqueeze(0).expand({rows, tasks_, count}).reshape({1, rows * tasks_, count});
        h = mix_experts(by_row, pool).view({rows, tasks_, width}).transpose(0, 1);
      }
    }
    if (context.diagnose && !selection_.empty()) output.diagnostics.emplace_back("expert_gates", at::softmax(selection_.back().detach(), 1));
    return towers_[0].forward(h.size(0) == tasks_ ? h : h.expand({tasks_, rows, h.size(2)}), context);
  }

 private:
  ModularConfig config_;
  int64_t tasks_;
  std::vector<FanOutLinear> modules_;   // [L], M maps each
  std::vector<at::Tensor> selection_;   // [L] of [K,M], before softmax
  std::vector<BatchedMlp> towers_;      // 1
};

}  // namespace

EKTM_BACKBONE(modular, ModularConfig, Modular, "a pool of modules a layer, a soft selection of them a task", "after Bashkirova et al. 2021")

}  // namespace ektm
