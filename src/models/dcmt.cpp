// Direct entire-space causal multi-task framework (DCMT, Zhu et al., ICDE 2023): ESMM with a twin head a conversion. One head learns from
// clicks whether there is a conversion, the other from non-clicks whether there is none; at every impression the two should sum to 1.
//
//   p_t, P_t, T_t as in ESMM.  For a conversion t, at an impression: o = 1 where its `after` event happened and its label r is known,
//   n = 1 where that event did not happen,  pi = P_parent(t), a constant for the gradient (sg),
//   p*_t = sigmoid(w*_t T_t(x) + b*_t)                                      the counterfactual head
//
//   R_t = mean of BCE(p_t, r) over o with weights 1 / pi + mean of BCE(p*_t, 1 - r) over n with weights 1 / (1 - pi), r = 0 there
//         + lambda * mean over all impressions of |1 - p_t - p*_t|
//   L   = sum_t a_t ( c_t BCE(path label of t, P_t) + [t is a conversion] cvr_weight R_t ),  c_t = path_weight for conversions, else 1
//
// The weighted means are divided by the sum of their weights in the batch (self-normalised inverse propensities) or, without
// self_normalize, by the number of impressions. pi and 1 - pi are at least `clip`; `ektm inspect` reports the share of clipped rows.
// The two heads share the deep tower, as the paper's twin tower does; its linear part on wide features is left out. p_t is served.
// Public versions give the counterfactual head a tower of its own. Without conversions it is plain BCE.
// x [1,B,D] -> logits [K,B], conditional on the event before; extra: "counterfactual" [T,B], the logits of p*.
#include "models/entire_space.h"
#include "models/zoo.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct DcmtConfig {
  MlpConfig mlp{{128, 64}};
  double cvr_weight = 1, path_weight = 1, lambda = 0.001, clip = 0.05;
  bool self_normalize = true, stop_gradients = true;
  void fields(FieldVisitor& v) {
    v.field("hidden", mlp.hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("activation", mlp.activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", mlp.dropout, {0, 0.95}, "share of hidden numbers dropped while training");
    v.field("cvr_weight", cvr_weight, {0, 1000}, "weight of a conversion's factual and counterfactual losses");
    v.field("path_weight", path_weight, {0, 1000}, "weight of a conversion's loss on whole paths");
    v.field("lambda", lambda, {0, 1000}, "weight of |1 - p - p*|, within that of cvr_weight");
    v.field("self_normalize", self_normalize, "divide the weighted losses by the sum of their weights; false: by the number of impressions");
    v.field("clip", clip, {0.000001, 0.5}, "smallest propensity of a click and of a non-click: a label counts at most 1 / clip");
    v.field("stop_gradients", stop_gradients, "propensities are constants; false: they get gradients too (ablation)");
  }
};

class Dcmt : public EntireSpaceModel {
 public:
  Dcmt(const DcmtConfig& config, const ModelSpec& spec, ParameterStore& store) : EntireSpaceModel(config.mlp, spec, store), config_(config) {
    if (conversions() == 0) return;
    counterfactual_weight_ = store.add("counterfactual.weight", {conversions(), feature_width(), 1}, Init::Xavier);
    counterfactual_bias_ = store.add("counterfactual.bias", {conversions(), 1, 1}, Init::Zero);
  }

  ModelOutput forward(const at::Tensor& x, Context& context) override {
    ModelOutput output;
    at::Tensor f = features(x, context);
    output.logits = logits(f);
    if (conversions() == 0) return output;
    output.extra.emplace_back("counterfactual", ops::heads(of_conversions(f), counterfactual_weight_, counterfactual_bias_));
    if (context.diagnose) diagnose_clipping(output.logits, config_.clip, true, output);
    return output;
  }

  LossTerms loss(const ModelOutput& output, const Targets& targets) const override {
    const Targets path = path_targets(targets, spec_.tasks, spec_.labels.known);
    if (conversions() == 0) return path_loss(output.logits, path, 1, {});
    at::Tensor impressions = of_conversions(path.weight), label = of_conversions(path.labels);
    at::Tensor clicked = (of_conversions(targets.weight) > 0).to(impressions.scalar_type());
    at::Tensor propensity = propensities(output.logits);
    if (config_.stop_gradients) propensity = propensity.detach();
    at::Tensor z = of_conversions(output.logits), twin = output.extra[0].second;
    // Where a path is unknown its weight in `impressions` is 0, so that not clicked means: known not to be clicked.
    at::Tensor factual = weighted(bce(z, label), clicked / propensity.clamp_min(config_.clip), impressions);
    at::Tensor counterfactual = weighted(bce(twin, 1 - label), (1 - clicked) / (1 - propensity).clamp_min(config_.clip), impressions);
    at::Tensor gap = masked_mean((1 - at::sigmoid(z) - at::sigmoid(twin)).abs(), impressions);
    return path_loss(output.logits, path, config_.path_weight,
                     {{"factual", config_.cvr_weight, factual},
                      {"counterfactual", config_.cvr_weight, counterfactual},
                      {"gap", config_.cvr_weight * config_.lambda, gap}});
  }

 private:
  // All [T,B] -> [T]. `scale`: o / pi, or (1 - o) / (1 - pi).
  at::Tensor weighted(const at::Tensor& loss, const at::Tensor& scale, const at::Tensor& impressions) const {
    return config_.self_normalize ? masked_mean(loss, scale * impressions) : masked_mean(loss * scale, impressions);
  }

  DcmtConfig config_;
  at::Tensor counterfactual_weight_, counterfactual_bias_;  // [T,d,1], [T,1,1]
};

}  // namespace

EKTM_MODEL(dcmt, DcmtConfig, Dcmt, "factual and counterfactual CVR heads over all impressions", "Zhu et al., ICDE 2023")

}  // namespace ektm
