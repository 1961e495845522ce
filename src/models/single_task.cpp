// Single-task learning: every task has its own embeddings and its own network; nothing is shared.
//
//   f_t = MLP_t(x_t),  p_t = sigmoid(w_t f_t + b_t)
//
// The reference for negative transfer. The K networks have the same sizes and run as one batched product.
// x [K,B,D] -> f [K,B,d].
#include "models/zoo.h"
#include "nn/layers.h"

namespace ektm {
namespace {

struct SingleTaskConfig {
  MlpConfig mlp{{256, 128, 64}};
  void fields(FieldVisitor& v) {
    v.field("hidden", mlp.hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("activation", mlp.activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", mlp.dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class SingleTask : public Backbone {
 public:
  SingleTask(const SingleTaskConfig& config, const ModelSpec& spec, ParameterStore& store)
      : tasks_(static_cast<int64_t>(spec.tasks.size())), mlp_(store, "network", tasks_, spec.features, config.mlp, false) {}
  int64_t embedding_groups() const override { return tasks_; }
  int64_t feature_width() const override { return mlp_.out(); }
  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput&) override { return mlp_.forward(x, context); }

 private:
  int64_t tasks_;
  BatchedMlp mlp_;
};

}  // namespace

EKTM_BACKBONE(single_task, SingleTaskConfig, SingleTask, "each task its own embeddings and network", "the reference for negative transfer")

}  // namespace ektm
