// MKT, multi-entity knowledge transfer (Guan et al. 2024, arXiv 2402.19101), as reconstructed; its entities are scenarios here.
//
//   alignment  a = 2 sigmoid(W' relu(W [x_e ; sg x] + b) + b') * x       scales every number by the entity; x_e: the columns of `entity` in x
//   stage 1: the multi-entity model, trained on the rows of all entities
//     common       c^l, the hidden layers of one extractor of a
//     independent  s = sum_k softmax(G x_e)_k I_k(a)                     `extractors` of them, chosen by the entity
//     m_t = head_t(M_t([c^L ; s]))
//   stage 2: the target model, which is served; it takes the common knowledge layer by layer through gates
//     h_t^0 = x,  h_t^l = act(W_t^l h_t^(l-1) + b_t^l),  h_t^l += sigmoid(Q_t^l [h_t^l ; sg c^l] + q_t^l) * sg c^l
//     p_t = sigmoid(w_t h_t^L + b_t)
//   loss       sum_t a_t ( mean BCE(p_t) + pretrain * mean BCE(m_t) + polar * mean cos(c^L, s)^2 ),  the last over all rows with a label
//
// The cosine polarises: what is common and what is an entity's own may not say the same. Reconstructed: the equations were not at hand, the form
// is that of the paper's abstract and of its reviews. The paper trains the stages one after the other; here both learn at once, and the
// stop-gradients (sg) keep them apart: the target never shapes what stage 1 finds, as if that were frozen. The paper has one target entity, whose
// extractor is chosen by hand; here the choice is soft, so that an entity may be any feature, and every entity is a target.
// x [1,B,D] -> logits [K,B]; extra "pretrain" [K,B] and "polar" [1,B].
#include "base/error.h"
#include "models/feature_columns.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct MktConfig {
  std::vector<std::string> entity;
  int64_t extractors = 2, gate_hidden = 32;
  std::vector<int64_t> hidden{128, 64}, tower_hidden{32};
  double pretrain = 1, polar = 0.1;
  bool stop_gradients = true;
  std::string activation = "relu";
  double dropout = 0;
  void fields(FieldVisitor& v) {
    v.field("entity", entity, "features that tell the entities (scenarios) apart. Empty: the first feature");
    v.field("extractors", extractors, {1, 1024}, "extractors of independent knowledge, mixed by the entity; about one an entity");
    v.field("gate_hidden", gate_hidden, {1, 65536}, "size of the hidden layer that scales the input by the entity");
    v.field("hidden", hidden, {1, 65536}, "sizes of the hidden layers of each extractor and of each task's served network, at least one");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of each task's hidden layers in the multi-entity model");
    v.field("pretrain", pretrain, {0, 1000}, "weight of the multi-entity model's loss; 0: the common knowledge is not taught anything");
    v.field("polar", polar, {0, 1000}, "weight of the squared cosine between common and independent knowledge");
    v.field("stop_gradients", stop_gradients, "the served network does not shape the common knowledge; false: one joint model");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class Mkt : public Model {
 public:
  Mkt(const MktConfig& config, const ModelSpec& spec, ParameterStore& store)
      : Model(spec), config_(config), tasks_(static_cast<int64_t>(spec.tasks.size())),
        entity_(at::tensor(feature_columns("model mkt, key entity", config.entity, 1, spec.columns), at::kLong)),
        scale_hidden_(store, "scale.hidden", 1, entity_.numel() + spec.features, config.gate_hidden),
        scale_(store, "scale.out", 1, config.gate_hidden, spec.features),
        choice_(store, "choice", 1, entity_.numel(), config.extractors, false) {
    if (config.hidden.empty())
      fail(ErrorKind::Config, "model mkt, key hidden", "found []; knowledge is what a hidden layer holds. Give one size at least, e.g. [64].");
    int64_t in = spec.features;
    for (size_t l = 0; l < config.hidden.size(); ++l) {
      const std::string layer = std::to_string(l);
      const int64_t out = config.hidden[l];
      if (l == 0) {
        extract_first_.emplace_back(store, "extractor." + layer, 1 + config.extractors, in, out);
        target_first_.emplace_back(store, "target." + layer, tasks_, in, out);
      } else {
        extract_rest_.emplace_back(store, "extractor." + layer, 1 + config.extractors, in, out);
        target_rest_.emplace_back(store, "target." + layer, tasks_, in, out);
      }
      gate_own_.emplace_back(store, "gate.own" + layer, tasks_, out, out);
      gate_common_.emplace_back(store, "gate.common" + layer, tasks_, out, out, false);
      in = out;
    }
    head_weight_ = store.add("head.weight", {tasks_, in, 1}, Init::Xavier);
    head_bias_ = store.add("head.bias", {tasks_, 1, 1}, Init::Zero);
    towers_.emplace_back(store, "pretrain.tower", tasks_, 2 * in, MlpConfig{config.tower_hidden, config.activation, config.dropout}, true);
    pretrain_weight_ = store.add("pretrain.head.weight", {tasks_, towers_[0].out(), 1}, Init::Xavier);
    pretrain_bias_ = store.add("pretrain.head.bias", {tasks_, 1, 1}, Init::Zero);
  }
  int64_t embedding_groups() const override { return 1; }

  ModelOutput forward(const at::Tensor& x_in, Context& context) override {
    ModelOutput output;
    const at::Tensor x = x_in.squeeze(0);
    auto read_only = [&](const at::Tensor& values) { return config_.stop_gradients ? values.detach() : values; };
    const at::Tensor entity = x.index_select(1, entity_);
    const at::Tensor scale_hidden = scale_hidden_.forward(at::cat({entity, read_only(x)}, 1), "relu", 0, context).squeeze(0);
    const at::Tensor aligned = 2 * at::sigmoid(scale_.forward(scale_hidden, context).squeeze(0)) * x;

    at::Tensor e, h;  // extractors [1+E,B,w], the common one first; target networks [K,B,w]
    for (size_t l = 0; l < config_.hidden.size(); ++l) {
      e = l == 0 ? extract_first_[0].forward(aligned, config_.activation, config_.dropout, context)
                 : extract_rest_[l - 1].forward(e, config_.activation, config_.dropout, context);
      h = l == 0 ? target_first_[0].forward(x, config_.activation, config_.dropout, context)
                 : target_rest_[l - 1].forward(h, config_.activation, config_.dropout, context);
      const at::Tensor common = read_only(e.select(0, 0));
      h = h + at::sigmoid(gate_own_[l].forward(h, context) + gate_common_[l].forward(common, context)) * common;
    }
    output.logits = ops::heads(h, head_weight_, head_bias_);

    const at::Tensor choice = choice_.forward(entity, context);                                                // [1,B,E]
    const at::Tensor common = e.select(0, 0), own = mix_experts(choice, e.narrow(0, 1, config_.extractors)).squeeze(0);  // [B,w]
    output.extra.emplace_back("pretrain", ops::heads(towers_[0].forward(at::cat({common, own}, 1), context), pretrain_weight_, pretrain_bias_));
    const at::Tensor dot = (common * own).sum(1), lengths = common.square().sum(1) * own.square().sum(1);
    output.extra.emplace_back("polar", (dot.square() / (lengths + 1e-12)).unsqueeze(0));
    return output;
  }

  LossTerms loss(const ModelOutput& output, const Targets& targets) const override {
    const at::Tensor served = masked_mean(bce(output.logits, targets.labels), targets.weight);
    const at::Tensor pretrain = masked_mean(bce(output.extra[0].second, targets.labels), targets.weight);
    const at::Tensor polar = masked_mean(output.extra[1].second, targets.weight.amax(0, /*keepdim=*/true)).squeeze(0);
    // A task that the batch says nothing of is to have no gradient.
    const at::Tensor known = (targets.weight.sum(1) > 0).to(served.scalar_type());
    const at::Tensor sum = served + config_.pretrain * pretrain + config_.polar * polar * known;
    LossTerms terms;
    terms.task_losses = sum * task_weights(sum);
    terms.total = terms.task_losses.sum();
    for (const char* suffix : {"", ".pretrain"})
      for (const auto& task : spec_.tasks) terms.names.push_back(task.name + suffix);
    terms.names.push_back("polar");
    terms.values = at::cat({served, pretrain, polar.unsqueeze(0)}).detach();
    return terms;
  }

 private:
  MktConfig config_;
  int64_t tasks_;
  at::Tensor entity_;  // numbers of x's columns
  FanOutLinear scale_hidden_, scale_, choice_;
  std::vector<FanOutLinear> extract_first_, target_first_;  // 1
  std::vector<BatchedLinear> extract_rest_, target_rest_;   // [L-1]
  std::vector<BatchedLinear> gate_own_;                     // [L]
  std::vector<FanOutLinear> gate_common_;                   // [L]
  std::vector<BatchedMlp> towers_;                          // 1
  at::Tensor head_weight_, head_bias_, pretrain_weight_, pretrain_bias_;
};

}  // namespace

EKTM_MODEL(mkt, MktConfig, Mkt, "what is common to all scenarios, taught apart and let in through gates", "Guan et al. 2024, as reconstructed")

}  // namespace ektm
