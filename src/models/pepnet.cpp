// PEPNet (Chang et al., KDD 2023): what is known of the domain gates the embeddings, what is known of user and item gates the towers.
//
//   gate   U(in) = gamma * sigmoid(W' relu(W in + b) + b')             "Gate NU", numbers in (0, gamma)
//   EPNet  e' = U([x_domain ; sg(x)]) * x                              x_domain: the columns of `domain` in x
//   PPNet  h_t^0 = e',  h_t^l = d_t^l * act(W_t^l h_t^(l-1) + b_t^l),  [d_1^l ; ... ; d_K^l] = U^l([x_prior ; sg(e')])
//   f_t = h_t^L,  p_t = sigmoid(w_t f_t + b_t)
//
// The stop-gradients keep the gates from shaping the embeddings that they only read; x_domain and x_prior are trained through them. A layer
// has one gate for the hidden units of all tasks, as in the paper; e', which EPNet gated already, is not gated again.
// x [1,B,D] -> f [K,B,d].
#include "base/error.h"
#include "models/feature_columns.h"
#include "models/zoo.h"
#include "nn/layers.h"

namespace ektm {
namespace {

struct PepnetConfig {
  std::vector<std::string> domain, prior;
  std::vector<int64_t> tower_hidden{128, 64};
  int64_t gate_hidden = 32;
  double gamma = 2;
  bool detach_gates = true;
  std::string activation = "relu";
  double dropout = 0;
  void fields(FieldVisitor& v) {
    v.field("domain", domain, "features that say where an impression was shown; they gate the embeddings. Empty: the first feature");
    v.field("prior", prior, "features that say who saw what; they gate the towers. Empty: the first two features");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of each task's hidden layers, at least one");
    v.field("gate_hidden", gate_hidden, {1, 65536}, "size of the hidden layer of each gate");
    v.field("gamma", gamma, {0.001, 1000}, "largest factor of a gate; 2: a gate starts near 1");
    v.field("detach_gates", detach_gates, "no gradient through the embeddings that the gates read beside domain and prior");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of the towers' hidden numbers dropped while training");
  }
};

class Pepnet : public Backbone {
 public:
  Pepnet(const PepnetConfig& config, const ModelSpec& spec, ParameterStore& store)
      : config_(config), domain_(at::tensor(feature_columns("model pepnet, key domain", config.domain, 1, spec.columns), at::kLong)),
        prior_(at::tensor(feature_columns("model pepnet, key prior", config.prior, 2, spec.columns), at::kLong)),
        domain_hidden_(store, "domain_gate.hidden", 1, domain_.numel() + spec.features, config.gate_hidden),
        domain_gate_(store, "domain_gate.out", 1, config.gate_hidden, spec.features),
        prior_hidden_(store, "prior_gate.hidden", layers(), prior_.numel() + spec.features, config.gate_hidden) {
    const int64_t tasks = static_cast<int64_t>(spec.tasks.size());
    if (config.tower_hidden.empty())
      fail(ErrorKind::Config, "model pepnet, key tower_hidden",
           "found []; the gates of PPNet act on the towers' hidden layers. Give one size at least, e.g. [64].");
    int64_t in = spec.features;
    for (int64_t l = 0; l < layers(); ++l) {
      const std::string layer = std::to_string(l);
      const int64_t out = config.tower_hidden[l];
      prior_gates_.emplace_back(store, "prior_gate.out" + layer, tasks, config.gate_hidden, out);
      if (l == 0)
        first_.emplace_back(store, "tower." + layer, tasks, in, out);
      else
        rest_.emplace_back(store, "tower." + layer, tasks, in, out);
      in = out;
    }
  }
  int64_t feature_width() const override { return config_.tower_hidden.back(); }

  at::Tensor features(const at::Tensor& x_in, Context& context, ModelOutput&) override {
    const at::Tensor x = x_in.squeeze(0);
    auto read_only = [&](const at::Tensor& embeddings) { return config_.detach_gates ? embeddings.detach() : embeddings; };
    const at::Tensor domain = at::cat({x.index_select(1, domain_), read_only(x)}, 1);
    const at::Tensor e = gated(x, domain_gate_.forward(domain_hidden_.forward(domain, "relu", 0, context).squeeze(0), context).squeeze(0));
    const at::Tensor prior = at::cat({x.index_select(1, prior_), read_only(e)}, 1);
    const std::vector<at::Tensor> hidden = prior_hidden_.forward(prior, "relu", 0, context).unbind(0);  // of each layer's gate [B,gate_hidden]
    at::Tensor h;
    for (int64_t l = 0; l < layers(); ++l) {
      h = l == 0 ? first_[0].forward(e, config_.activation, config_.dropout, context)
                 : rest_[l - 1].forward(h, config_.activation, config_.dropout, context);
      h = gated(h, prior_gates_[l].forward(hidden[l], context));
    }
    return h;
  }

 private:
  int64_t layers() const { return static_cast<int64_t>(config_.tower_hidden.size()); }
  at::Tensor gated(const at::Tensor& values, const at::Tensor& gate) const { return config_.gamma * at::sigmoid(gate) * values; }

  PepnetConfig config_;
  at::Tensor domain_, prior_;  // numbers of x's columns
  FanOutLinear domain_hidden_, domain_gate_, prior_hidden_;
  std::vector<FanOutLinear> prior_gates_;  // [L], of all tasks
  std::vector<FanOutLinear> first_;        // 1
  std::vector<BatchedLinear> rest_;        // [L-1]
};

}  // namespace

EKTM_BACKBONE(pepnet, PepnetConfig, Pepnet, "the domain gates the embeddings, user and item gate the towers", "Chang et al., KDD 2023")

}  // namespace ektm
