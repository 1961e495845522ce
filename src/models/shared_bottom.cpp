// Shared bottom (Caruana 1997, "Multitask Learning"): one network below, one tower a task.
//
//   f_t = T_t(f(x)),  p_t = sigmoid(w_t f_t + b_t)
//
// x [1,B,D] -> f [K,B,d].
#include "models/zoo.h"
#include "nn/layers.h"

namespace ektm {
namespace {

struct SharedBottomConfig {
  std::vector<int64_t> bottom_hidden{256, 128}, tower_hidden{64};
  std::string activation = "relu";
  double dropout = 0;
  void fields(FieldVisitor& v) {
    v.field("bottom_hidden", bottom_hidden, {1, 65536}, "sizes of the shared hidden layers");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class SharedBottom : public Backbone {
 public:
  SharedBottom(const SharedBottomConfig& config, const ModelSpec& spec, ParameterStore& store)
      : bottom_(store, "bottom", 1, spec.features, {config.bottom_hidden, config.activation, config.dropout}, true),
        towers_(store, "tower", static_cast<int64_t>(spec.tasks.size()), bottom_.out(),
                {config.tower_hidden, config.activation, config.dropout}, true) {}
  int64_t feature_width() const override { return towers_.out(); }
  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput&) override {
    return towers_.forward(bottom_.forward(x.squeeze(0), context).squeeze(0), context);
  }

 private:
  BatchedMlp bottom_, towers_;
};

}  // namespace

EKTM_BACKBONE(shared_bottom, SharedBottomConfig, SharedBottom, "one network for all tasks, one tower a task", "Caruana 1997")

}  // namespace ektm
