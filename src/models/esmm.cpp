// Entire-space multi-task model (Ma et al., SIGIR 2018): a tower a task on shared embeddings, trained on whole paths over all
// impressions.
//
//   p_t = sigmoid(w_t T_t(x) + b_t),  P_t = p_t P_parent(t), P_t = p_t for a task without `after`
//   L   = sum_t a_t mean over all impressions of BCE(path label of t, P_t)
//
// That is the paper's BCE(click, pCTR) + BCE(click * conversion, pCTR * pCVR), for any number of conversions and events in a chain.
// A conversion's p_t has no loss of its own (some public versions add one). Impressions whose path label is unknown count nothing. Without
// conversions it is plain BCE. x [1,B,D] -> logits [K,B], conditional on the event before.
#include "models/entire_space.h"
#include "models/zoo.h"

namespace ektm {
namespace {

struct EsmmConfig {
  MlpConfig mlp{{128, 64}};
  void fields(FieldVisitor& v) {
    v.field("hidden", mlp.hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("activation", mlp.activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", mlp.dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class Esmm : public EntireSpaceModel {
 public:
  Esmm(const EsmmConfig& config, const ModelSpec& spec, ParameterStore& store) : EntireSpaceModel(config.mlp, spec, store) {}

  ModelOutput forward(const at::Tensor& x, Context& context) override {
    ModelOutput output;
    output.logits = logits(features(x, context));
    return output;
  }

  LossTerms loss(const ModelOutput& output, const Targets& targets) const override {
    return path_loss(output.logits, path_targets(targets, spec_.tasks, spec_.labels.known), 1, {});
  }
};

}  // namespace

EKTM_MODEL(esmm, EsmmConfig, Esmm, "towers trained on whole paths over all impressions", "Ma et al., SIGIR 2018")

}  // namespace ektm
