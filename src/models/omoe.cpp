// One-gate mixture of experts, the baseline of Ma et al., KDD 2018: MMoE with a single gate for all tasks.
//
//   f_t = T_t( sum_k softmax(W x)_k e_k(x) ),  p_t = sigmoid(w_t f_t + b_t)
//
// All experts' first layers are one product, all towers' first layers another. x [1,B,D] -> f [K,B,d].
#include "models/zoo.h"
#include "nn/layers.h"

namespace ektm {
namespace {

struct OmoeConfig {
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

class Omoe : public Backbone {
 public:
  Omoe(const OmoeConfig& config, const ModelSpec& spec, ParameterStore& store)
      : tasks_(static_cast<int64_t>(spec.tasks.size())),
        experts_(store, "expert", config.experts, spec.features, {config.expert_hidden, config.activation, config.dropout}, true),
        gate_(store, "gate", 1, spec.features, config.experts, false),
        towers_(store, "tower", tasks_, experts_.out(), {config.tower_hidden, config.activation, config.dropout}, true) {}
  int64_t feature_width() const override { return towers_.out(); }
  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput& output) override {
    at::Tensor experts = experts_.forward(x.squeeze(0), context);  // [E,B,H]
    at::Tensor logits = gate_.forward(x.squeeze(0), context);      // [1,B,E]
    if (context.diagnose) output.diagnostics.emplace_back("expert_gates", at::softmax(logits.detach(), 2).mean(1).expand({tasks_, -1}));
    return towers_.forward(mix_experts(logits, experts).squeeze(0), context);
  }

 private:
  int64_t tasks_;
  BatchedMlp experts_;
  FanOutLinear gate_;
  BatchedMlp towers_;
};

}  // namespace

EKTM_BACKBONE(omoe, OmoeConfig, Omoe, "experts mixed by one gate for all tasks", "Ma et al., KDD 2018")

}  // namespace ektm
