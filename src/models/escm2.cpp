// Entire-space counterfactual multi-task models (ESCM2, Wang et al., SIGIR 2022): ESMM plus a CVR risk over all impressions that is
// unbiased although conversions are seen after clicks only.
//
//   p_t, P_t as in ESMM.  For a conversion t, at an impression: o = 1 where its `after` event happened and its label r is known,
//   pi = P_parent(t), at least `clip`, a constant for the gradient (sg),  e = BCE(p_t, r)
//
//   escm2_ipw   R_t = mean( o e / pi )
//   escm2_dr    R_t = mean( e^ + o (e - e^) / pi ),  e^ = softplus(v_t I_t(x) + c_t) with an imputation tower I_t,
//               trained by R_t and by J_t = mean( o (sg(e) - e^)^2 / pi )
//   L = sum_t a_t ( c_t BCE(path label of t, P_t) + [t is a conversion] (lambda_c R_t + lambda_i J_t) ),  c_t = lambda_g for conversions, else 1
//
// All means run over the impressions whose path label is known (rows with a label count for those without one, as in ESMM). Where pi is clipped,
// R_t moves e^ too: its rest is e^'s gradient 1 - o / pi, whose mean is 0 only without clipping. Public versions cap 1 / pi at 15 without saying so; here that is the key
// `clip`, and `ektm inspect` reports the share of clipped rows. They also let the imputation's loss move e, which can make the CVR tower
// worse on purpose where e < e^ - 1/2; here e is its constant target. Without conversions it is plain BCE.
// x [1,B,D] -> logits [K,B], conditional on the event before; extra: "imputation" [T,B], e^ before softplus.
#include <optional>

#include "models/entire_space.h"
#include "models/zoo.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct Escm2Config {
  MlpConfig mlp{{128, 64}};
  double lambda_c = 1, lambda_g = 1, lambda_i = 1, clip = 0.05;
  bool doubly_robust = false, stop_gradients = true;
  void fields(FieldVisitor& v) {
    v.field("hidden", mlp.hidden, {1, 65536}, doubly_robust ? "sizes of the hidden layers of each task's tower and imputation tower"
                                                            : "sizes of each task's hidden layers");
    v.field("activation", mlp.activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", mlp.dropout, {0, 0.95}, "share of hidden numbers dropped while training");
    v.field("lambda_c", lambda_c, {0, 1000}, "weight of the counterfactual CVR risk");
    v.field("lambda_g", lambda_g, {0, 1000}, "weight of a conversion's loss on whole paths");
    if (doubly_robust) v.field("lambda_i", lambda_i, {0.001, 1000}, "weight of the imputation's loss; without it the risk has no lower bound");
    v.field("clip", clip, {0.000001, 1}, "smallest propensity: an observed conversion label counts at most 1 / clip");
    v.field("stop_gradients", stop_gradients,
            doubly_robust ? "propensities and the imputation's target are constants; false: they get gradients too (ablation)"
                          : "propensities are constants; false: they get gradients too (ablation)");
  }
};

struct Escm2IpwConfig : Escm2Config {};

struct Escm2DrConfig : Escm2Config {
  Escm2DrConfig() { doubly_robust = true; }
};

class Escm2 : public EntireSpaceModel {
 public:
  Escm2(const Escm2Config& config, const ModelSpec& spec, ParameterStore& store) : EntireSpaceModel(config.mlp, spec, store), config_(config) {
    if (!config_.doubly_robust || conversions() == 0) return;
    imputation_.emplace(store, "imputation.tower", conversions(), spec.features, config.mlp, true);
    imputation_weight_ = store.add("imputation.weight", {conversions(), imputation_->out(), 1}, Init::Xavier);
    imputation_bias_ = store.add("imputation.bias", {conversions(), 1, 1}, Init::Zero);
  }

  ModelOutput forward(const at::Tensor& x, Context& context) override {
    ModelOutput output;
    output.logits = logits(features(x, context));
    if (imputation_)
      output.extra.emplace_back("imputation", ops::heads(imputation_->forward(x.squeeze(0), context), imputation_weight_, imputation_bias_));
    if (context.diagnose && conversions() > 0) diagnose_clipping(output.logits, config_.clip, false, output);
    return output;
  }

  LossTerms loss(const ModelOutput& output, const Targets& targets) const override {
    const Targets path = path_targets(targets, spec_.tasks, spec_.labels.known);
    if (conversions() == 0) return path_loss(output.logits, path, 1, {});
    at::Tensor observed = (of_conversions(targets.weight) > 0).to(output.logits.scalar_type()), impressions = of_conversions(path.weight);
    at::Tensor error = bce(of_conversions(output.logits), of_conversions(path.labels));
    at::Tensor scale = observed / constant(propensities(output.logits)).clamp_min(config_.clip);  // o / pi
    if (!imputation_) return path_loss(output.logits, path, config_.lambda_g, {{"ipw", config_.lambda_c, masked_mean(scale * error, impressions)}});
    at::Tensor imputed = at::softplus(output.extra[0].second);
    at::Tensor risk = masked_mean(imputed + scale * (error - imputed), impressions);
    at::Tensor imputation = masked_mean(scale * (constant(error) - imputed).square(), impressions);
    return path_loss(output.logits, path, config_.lambda_g, {{"dr", config_.lambda_c, risk}, {"imputation", config_.lambda_i, imputation}});
  }

 private:
  at::Tensor constant(const at::Tensor& x) const { return config_.stop_gradients ? x.detach() : x; }

  Escm2Config config_;
  std::optional<BatchedMlp> imputation_;
  at::Tensor imputation_weight_, imputation_bias_;  // [T,d,1], [T,1,1]
};

}  // namespace

EKTM_MODEL(escm2_ipw, Escm2IpwConfig, Escm2, "ESMM and a CVR risk over all impressions by inverse propensities", "Wang et al., SIGIR 2022")
EKTM_MODEL(escm2_dr, Escm2DrConfig, Escm2, "ESMM and a doubly robust CVR risk over all impressions", "Wang et al., SIGIR 2022")

}  // namespace ektm
