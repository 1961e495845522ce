// Cross-stitch networks (Misra et al., CVPR 2016): a network a task; after each hidden layer every task takes a learned linear
// combination of all tasks' activations.
//
//   h_t^l = act(W_t^l h'_t^(l-1) + b_t^l),  h'_t^l = sum_j a_tj^l h_j^l,  h'_t^0 = x
//   f_t = h'_t of the last layer,  p_t = sigmoid(w_t f_t + b_t)
//
// a^l is [K,K], one scalar a pair of tasks and layer, as in the paper's equation; some public versions have one a channel. It starts at
// `own` on the diagonal and (1 - own) / (K - 1) beside it, so that its rows sum to 1 (the paper's convex start); it is not kept so.
// The networks see the same embeddings x, as the paper's networks see the same image. x [1,B,D] -> f [K,B,d].
#include "base/error.h"
#include "models/zoo.h"
#include "nn/layers.h"

namespace ektm {
namespace {

struct CrossStitchConfig {
  MlpConfig mlp{{128, 64}};
  double own = 0.9;
  void fields(FieldVisitor& v) {
    v.field("hidden", mlp.hidden, {1, 65536}, "sizes of each task's hidden layers; at least one");
    v.field("own", own, {0, 1}, "weight of a task's own activations at the start; the other tasks share the rest");
    v.field("activation", mlp.activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", mlp.dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class CrossStitch : public Backbone {
 public:
  CrossStitch(const CrossStitchConfig& config, const ModelSpec& spec, ParameterStore& store) : config_(config.mlp) {
    if (config_.hidden.empty())
      fail(ErrorKind::Config, "model.hidden", "found an empty list; a cross-stitch unit stands behind a hidden layer. Give at least one size.");
    const int64_t tasks = static_cast<int64_t>(spec.tasks.size());
    const double other = tasks == 1 ? 0 : (1 - config.own) / static_cast<double>(tasks - 1);
    int64_t in = spec.features;
    for (size_t l = 0; l < config_.hidden.size(); ++l) {
      const std::string layer = "network." + std::to_string(l);
      if (l == 0)
        first_ = std::make_unique<FanOutLinear>(store, layer, tasks, in, config_.hidden[l]);
      else
        rest_.emplace_back(store, layer, tasks, in, config_.hidden[l]);
      at::Tensor stitch = store.add("stitch." + std::to_string(l), {tasks, tasks}, Init::Zero, 0, 0, /*map_dim=*/0);
      stitch.detach().fill_(other).fill_diagonal_(tasks == 1 ? 1 : config.own);
      stitches_.push_back(stitch);
      in = config_.hidden[l];
    }
  }
  int64_t feature_width() const override { return config_.hidden.back(); }
  at::Tensor features(const at::Tensor& x, Context& context, ModelOutput&) override {
    at::Tensor h = mix(stitches_[0], first_->forward(x.squeeze(0), config_.activation, config_.dropout, context));
    for (size_t l = 0; l < rest_.size(); ++l)
      h = mix(stitches_[l + 1], rest_[l].forward(h, config_.activation, config_.dropout, context));
    return h;
  }

 private:
  // stitch [K,K], h [K,B,n] -> [K,B,n]. One product of all rows, for which a stack has to be copied task by task; products row by row, as
  // it lies in memory, took two to three times as long.
  static at::Tensor mix(const at::Tensor& stitch, const at::Tensor& h) {
    return at::mm(stitch, h.reshape({h.size(0), -1})).view(h.sizes());
  }

  MlpConfig config_;
  std::unique_ptr<FanOutLinear> first_;
  std::vector<BatchedLinear> rest_;
  std::vector<at::Tensor> stitches_;  // [K,K] a layer
};

}  // namespace

EKTM_BACKBONE(cross_stitch, CrossStitchConfig, CrossStitch, "a network a task, activations of all tasks combined after each layer",
              "Misra et al., CVPR 2016")

}  // namespace ektm
