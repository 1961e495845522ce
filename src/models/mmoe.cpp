// Multi-gate mixture of experts, and its baseline with one gate (Ma et al., KDD 2018).
//
//   mmoe:  f_t = T_t( sum_k softmax(W_t x)_k e_k(x) ),  p_t = sigmoid(w_t f_t + b_t)
//   omoe:  the same with one W for all tasks
//
// All experts' first layers are one product, all gates another, and so are omoe's towers'. x [1,B,D] -> f [K,B,d].
#include "models/zoo.h"
#include "nn/layers.h"

namespace ektm {
namespace {

struct MmoeConfig {
  int64_t experts = 6;
  std::vector<int64_t> expert_hidden{128, 64}, tower_hidden{64};
  std::string activation = "relu";
  double dropout = 0;
  void fields(FieldVisitor& v) {
    v.field("experts", experts, {1, 1024}, "number of experts");
    v.field("expert_hidden", expert_hidden, {1, 65536}, "sizes of each expert's hidden layers");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class MixtureOfExperts : public Backbone {
 public:
  MixtureOfExperts(const MmoeConfig& config, const ModelSpec& spec, ParameterStore& store, bool one_gate)
      : tasks_(static_cast<int64_t>(spec.tasks.size())), one_gate_(one_gate),
        experts_(store, "expert", config.experts, spec.features, {config.expert_hidden, config.activation, config.dropout}, true),
        gates_(store, "gate", one_gate ? 1 : tasks_, spec.features, config.experts, false),
        towers_(store, "tower", tasks_, experts_.out(), {config.tower_hidden, config.activation, config.dropout}, one_gate) {}
  int64_t feature_width() const override { return towers_.out(); }
  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput& output) override {
    at::Tensor experts = experts_.forward(x.squeeze(0), context);   // [E,B,H]
    at::Tensor logits = gates_.forward(x.squeeze(0), context);      // [K or 1,B,E]
    if (context.diagnose) output.diagnostics.emplace_back("expert_gates", at::softmax(logits.detach(), 2).mean(1).expand({tasks_, -1}));
    at::Tensor mixed = mix_experts(logits, experts);
    return towers_.forward(one_gate_ ? mixed.squeeze(0) : mixed, context);
  }

 private:
  int64_t tasks_;
  bool one_gate_;
  BatchedMlp experts_;
  FanOutLinear gates_;
  BatchedMlp towers_;
};

struct Mmoe : MixtureOfExperts {
  Mmoe(const MmoeConfig& config, const ModelSpec& spec, ParameterStore& store) : MixtureOfExperts(config, spec, store, false) {}
};
struct Omoe : MixtureOfExperts {
  Omoe(const MmoeConfig& config, const ModelSpec& spec, ParameterStore& store) : MixtureOfExperts(config, spec, store, true) {}
};

}  // namespace

EKTM_BACKBONE(mmoe, MmoeConfig, Mmoe, "experts for all tasks, a softmax gate a task", "Ma et al., KDD 2018")
EKTM_BACKBONE(omoe, MmoeConfig, Omoe, "experts mixed by one gate for all tasks", "Ma et al., KDD 2018")

}  // namespace ektm
