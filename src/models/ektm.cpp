// EKTM, as reconstructed from "Effective Knowledge Transfer for Multi-Task Recommendation Models" (Cai et al. 2026, arXiv 2605.05730);
// every decision that the abstract leaves open is stated in docs/method.md.
//
// A backbone gives one feature a task, f_t [B,d]. Of the K tasks, R are roots (clicks) and T are conversions (CVR tasks); where no
// task follows another, all K are treated as CVR tasks and R = 0.
//
//   router       s_ij = similarity(f_i, f_j) per sample, i, j over the CVR tasks
//                F_i  = (sum_roots f_r + sum_j s^_ij f_j) / (R + T)
//   transmitter  t_i = sigmoid(G_i [f_i ; F_i]) * MLP_i(F_i)
//   mixing       a [T,K]: what task i takes of each task's own logit, u_j = w_j f_j: a regression of its label on them, fitted on rows of the
//                first pass before they are trained on (nn/online_regression.h); mix_own <= a_ii <= 1, -1 <= a_ij <= 1
//   heads        base p_i = sigmoid(u_i + b_i),  enhanced q_i = sigmoid(sum_j a_ij u_j + b_i + v_i t_i + c_i); served is q_i, or
//                p_i where it has the higher AUC on the validation split (serve: enhanced: always q_i). Outside training q_i's logit has a
//                shift e_i besides, with which it predicts as many events of the last training batches as p_i
//   loss         sum_roots a_r BCE(p_r) + sum_i a_i ( mean_m BCE(p_i) + lambda * mean_m hard_i BCE(q_i) ) / (1 + lambda)
//                hard_i = 1 + alpha |y_i - sg(p_i)|^gamma, divided by its mean over the observed rows of the same label (hard_balance):
//                without that, rare positives gain weight as a class and the served probabilities are too high
//
// Everything is batched over the tasks. x [G,B,D] -> logits [K,B].
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <cmath>
#include <optional>

#include "base/error.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/online_regression.h"
#include "nn/ops.h"
#include "nn/transfer.h"

namespace ektm {
namespace {

struct EktmConfig {
  bool router = true, transmitter = true, enhanced = true;
  std::string similarity = "dot", normalize = "softmax", transmit = "mix", hard = "weight";
  int64_t similarity_width = 16;
  bool detach_sources = true, detach_own = false;
  std::vector<int64_t> transmitter_hidden{32};
  double transmitter_dropout = 0;
  std::string activation = "relu";
  std::string mix_start = "own";
  double mix_prior = 10, mix_warmup = 200, mix_own = 0.5, mix_positives = 1000;
  double lambda = 1, alpha = 1, gamma = 1;
  bool hard_balance = true, share_weight = true;
  std::string serve = "validated";
  void fields(FieldVisitor& v) {
    v.field("router", router, "false: F_i is the click's feature alone (ablation)");
    v.field("transmitter", transmitter, "false: h_i = f_i + F_i (ablation)");
    v.field("enhanced", enhanced, "false: one head on h_i, plain BCE (ablation)");
    v.field("similarity", similarity, {"dot", "cosine", "label"},
            "dot: learned query and key; cosine: of the features; label: correlation of the labels on the training split");
    v.field("similarity_width", similarity_width, {1, 4096}, "dot: width of query and key");
    v.field("normalize", normalize, {"softmax", "none"}, "over the source tasks; none: sigmoid for dot, as it is otherwise");
    v.field("detach_sources", detach_sources, "no gradient from task i into another task's feature");
    v.field("detach_own", detach_own,
            "no gradient of the enhanced head into its own feature: with detach_sources, base heads are those of the bare backbone");
    v.field("transmit", transmit, {"mix", "residual", "gate", "concat"},
            "residual: logit q = logit p + v (sigmoid(G[f;F]) MLP(F)); mix: the same with a fitted mix of all tasks' logits in place of logit p; gate: "
            "h = f + sigmoid(G[f;F]) MLP(F); concat: h = [f; MLP(F)]");
    v.field("mix_prior", mix_prior, {0.001, 1e9},
            "mix: how firmly its weights hold to their start; about the number of a task's positives that must speak against it");
    v.field("mix_warmup", mix_warmup, {0, 1e9},
            "mix: steps of training after which its logits are half worth their evidence: after n steps the prior weighs 1 + mix_warmup / n times as much");
    v.field("mix_own", mix_own, {0, 1},
            "mix: least weight of the task's own logit, 1 at most, as every logit; 1: the others are only added. With mix_start: labels its start, where that is less");
    v.field("mix_start", mix_start, {"own", "labels"},
            "mix: where its weights start. own: at the task's own logit; labels: a task with few positives at those of tasks whose labels go with its own");
    v.field("mix_positives", mix_positives, {1e-6, 1e12},
            "mix_start: labels: a task with so many training positives starts with one half of its own logit where others are related");
    v.field("transmitter_hidden", transmitter_hidden, {1, 65536}, "sizes of the hidden layers of MLP_i");
    v.field("transmitter_dropout", transmitter_dropout, {0, 0.95}, "share of MLP_i's hidden numbers dropped while training");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "in MLP_i");
    v.field("lambda", lambda, {0, 1000}, "weight of the enhanced loss");
    v.field("hard", hard, {"weight", "none", "hinge", "focal"},
            "weight: 1 + alpha |y - p|^gamma; none: 1; hinge: adds max(0, BCE(q) - BCE(p)); focal: (1 - q of the true class)^gamma");
    v.field("alpha", alpha, {0, 1000}, "hard: weight");
    v.field("gamma", gamma, {0, 100}, "hard: weight, focal");
    v.field("hard_balance", hard_balance,
            "hard: weight: divide by the mean over the batch's rows of the same task and label, so that the balance of the classes, and with it "
            "calibration, stays");
    v.field("share_weight", share_weight,
            "divide a CVR task's two losses by 1 + lambda, so that it pulls at what all tasks share no harder than in the bare backbone; "
            "without effect with detach_own, where the base loss alone does");
    v.field("serve", serve, {"validated", "enhanced"},
            "validated: a task whose base head has the higher AUC on the validation split serves that; chosen at each validation, which measures what is then served. enhanced: "
            "always the enhanced head. The same with enhanced: false, which has one head");
  }
};

class Ektm : public Model {
 public:
  Ektm(const EktmConfig& config, const ModelSpec& spec, ParameterStore& store, std::unique_ptr<Backbone> backbone)
      : Model(spec), config_(config), backbone_(std::move(backbone)) {
    for (size_t t = 0; t < spec.tasks.size(); ++t) (spec.tasks[t].parent < 0 ? roots_ : conversions_).push_back(static_cast<int64_t>(t));
    if (conversions_.empty()) conversions_.swap(roots_);
    if (!config_.router && roots_.empty())
      fail(ErrorKind::Config, "model.router", "found false; without a click task (a task that others follow) F_i would be empty. Use true.");
    if (!config_.enhanced && config_.detach_own)
      fail(ErrorKind::Config, "model.detach_own",
           "found true beside enhanced: false; then no loss would train the features of the CVR tasks. Use false.");
    using Router = ops::Router;
    router_.similarity = config_.similarity == "dot" ? Router::Similarity::Dot
                         : config_.similarity == "cosine" ? Router::Similarity::Cosine : Router::Similarity::Fixed;
    router_.normalize = config_.normalize == "softmax" ? Router::Normalize::Softmax
                        : config_.similarity == "dot" ? Router::Normalize::Sigmoid : Router::Normalize::None;
    router_.to_sources = !config_.detach_sources;
    router_.to_own = !config_.detach_own;
    router_.parts = static_cast<double>(spec.tasks.size());
    router_.roots = roots_;
    router_.tasks = conversions_;
    const int64_t all = static_cast<int64_t>(spec.tasks.size()), count = static_cast<int64_t>(conversions_.size());
    const int64_t width = backbone_->feature_width();
    base_weight_ = store.add("head.weight", {all, width, 1}, Init::Xavier);
    base_bias_ = store.add("head.bias", {all, 1, 1}, Init::Zero);
    if (config_.router && config_.similarity == "dot") {
      router_.query = store.add("router.query", {width, config_.similarity_width}, Init::Xavier);
      router_.key = store.add("router.key", {width, config_.similarity_width}, Init::Xavier);
    }
    if (config_.router && config_.similarity == "label") {
      if (!spec.labels.similarity.defined())
        fail(ErrorKind::Internal, "model.similarity", "the correlation of the labels was not given.");
      router_.fixed = store.add_buffer("router.label_similarity", select(spec.labels.similarity.detach(), 0).index_select(1, at::tensor(conversions_)));
    }
    int64_t enhanced_width = width;
    const bool mix = config_.transmitter && config_.transmit == "mix";
    if (config_.transmitter) {
      mlp_.emplace_back(store, "transmitter.mlp", count, width, MlpConfig{config_.transmitter_hidden, config_.activation, config_.transmitter_dropout}, false);
      // Zero at the start: the transfer has to earn its place. The residual form has its zero in the head instead.
      mlp_out_.emplace_back(store, "transmitter.out", count, mlp_[0].out(), width, true, residual() ? Init::Xavier : Init::Zero);
      if (config_.transmit == "concat") {
        enhanced_width = 2 * width;
      } else {
        gate_.emplace_back(store, "transmitter.gate", count, 2 * width, width);
      }
    }
    if (mix) {
      own_ = at::zeros({count, all}, at::kBool);
      at::Tensor open = at::full({count, all}, config_.router, at::kBool);  // without a router only the roots and the task itself give
      for (int64_t i = 0; i < count; ++i) own_[i][conversions_[i]] = true, open[i][conversions_[i]] = true;
      for (int64_t root : roots_) open.select(1, root).fill_(true);
      const at::Tensor start = config_.mix_start == "own" ? own_.to(at::kDouble) : start_by_labels(spec.labels);
      const at::Tensor least = at::where(own_, start.clamp_max(config_.mix_own), at::full_like(start, -1));
      mix_.emplace(store, "transmitter.mix", start, open, least, at::ones_like(start), config_.mix_prior, config_.mix_warmup);
    }
    enhanced_weight_ = store.add("enhanced.weight", {count, enhanced_width, 1}, residual() ? Init::Zero : Init::Xavier);
    enhanced_bias_ = store.add("enhanced.bias", {count, 1, 1}, Init::Zero);
    if (config_.enhanced && config_.serve == "validated") head_choice_ = store.add_buffer("serve.enhanced", at::ones({all}));
    if (config_.enhanced) shift_ = store.add_buffer("serve.shift", at::zeros({count}));
  }

  at::Tensor head_choice() const override { return head_choice_; }

  int64_t embedding_groups() const override { return backbone_->embedding_groups(); }

  ModelOutput forward(const at::Tensor& x, Context& context) override {
    ModelOutput output;
    const at::Tensor features = backbone_->features(x, context, output);
    at::Tensor& enhanced = output.enhanced_logits;  // [T,B]
    if (fused()) {
      const std::vector<BatchedLinear>& hidden = mlp_[0].layers();
      const ops::Transferred moved =
          ops::transfer(features, router_, {hidden[0].weight(), hidden[0].bias(), mlp_out_[0].weight(), mlp_out_[0].bias(), gate_[0].weight(),
                                            gate_[0].bias(), enhanced_weight_, config_.transmitter_dropout}, context);
      output.base_logits = ops::heads(moved.features, base_weight_, base_bias_);
      enhanced = moved.logits;
      if (context.diagnose) diagnose(moved.similarity, gate_[0].forward(select(features, 0), context, moved.packet), output);
    } else {
      const ops::Routed routed = route(features);
      const at::Tensor own = config_.detach_own ? routed.own.detach() : routed.own;  // f [T,B,d]
      output.base_logits = ops::heads(routed.features, base_weight_, base_bias_);
      if (!config_.transmitter) {
        enhanced = ops::heads(own + routed.packet, enhanced_weight_, enhanced_bias_);
        if (context.diagnose) diagnose(routed.similarity, {}, output);
      } else {
        const at::Tensor message = mlp_out_[0].forward(mlp_[0].forward(routed.packet, context), context);
        at::Tensor gate;  // before its sigmoid
        if (config_.transmit == "concat") {
          const int64_t width = own.size(2);
          enhanced = ops::heads(own, enhanced_weight_.narrow(1, 0, width).contiguous(), enhanced_bias_) +
                     ops::heads(message, enhanced_weight_.narrow(1, width, width).contiguous(), {});
        } else {
          gate = gate_[0].forward(own, context, routed.packet_again);
          enhanced = ops::gated_heads(gate, message, enhanced_weight_);
          if (config_.transmit == "gate") enhanced = enhanced + ops::heads(own, enhanced_weight_, enhanced_bias_);
        }
        if (context.diagnose) diagnose(routed.similarity, gate, output);
      }
    }
    if (residual()) {
      const bool mix = mix_.has_value();
      if (context.diagnose && mix) output.diagnostics.emplace_back("mix", mix_->coefficients());
      enhanced = enhanced + (mix ? mixed(output.base_logits) : own_logits(select(output.base_logits, 0))) + enhanced_bias_.squeeze(2);
    }
    if (shift_.defined() && !context.training) enhanced = enhanced + shift_.unsqueeze(1);
    const at::Tensor served = head_choice_.defined() ? at::where(select(head_choice_, 0).unsqueeze(1) > 0, enhanced, select(output.base_logits, 0)) : enhanced;
    output.logits = roots_.empty() ? served : output.base_logits.index_copy(0, at::tensor(conversions_), served);
    if (!config_.enhanced) {
      if (mix_) output.extra.emplace_back("own_logits", output.base_logits);
      output.base_logits = at::Tensor();
    }
    return output;
  }

  void observe(const ModelOutput& output, const Targets& targets, bool first_pass) override {
    if (shift_.defined()) follow(output, targets);
    if (!mix_ || !first_pass) return;
    const at::Tensor& base = config_.enhanced ? output.base_logits : output.extra.at(0).second;
    mix_->observe(output.enhanced_logits.detach(), (base - base_bias_.squeeze(2)).detach(), select(targets.labels, 0), select(targets.weight, 0));
  }

  LossTerms loss(const ModelOutput& output, const Targets& targets) const override {
    if (!config_.enhanced) return Model::loss(output, targets);
    LossTerms terms;
    at::Tensor all_weights = task_weights(output.logits);
    at::Tensor base = bce(output.base_logits, targets.labels);
    at::Tensor base_means = masked_mean(base, targets.weight);

    at::Tensor labels = select(targets.labels, 0);
    at::Tensor enhanced = bce(output.enhanced_logits, labels);
    if (config_.hard == "weight") {
      at::Tensor error = (labels - at::sigmoid(select(output.base_logits, 0).detach())).abs();
      at::Tensor hard = 1 + config_.alpha * error.pow(config_.gamma);
      if (config_.hard_balance) hard = hard / class_mean(hard, labels, select(targets.weight, 0));
      enhanced = enhanced * hard;
    } else if (config_.hard == "focal") {
      const at::Tensor q = at::sigmoid(output.enhanced_logits), off = labels * (1 - q) + (1 - labels) * q;
      enhanced = enhanced * off.clamp_min(1e-7).pow(config_.gamma);  // at 0 pow has no gradient where gamma < 1
    } else if (config_.hard == "hinge") {
      enhanced = enhanced + at::relu(enhanced - select(base, 0).detach());
    }
    at::Tensor enhanced_means = masked_mean(enhanced, select(targets.weight, 0));
    const double share = config_.share_weight && !config_.detach_own ? 1 / (1 + config_.lambda) : 1;
    at::Tensor weights = select(all_weights, 0) * share;
    at::Tensor base_weights = roots_.empty() ? weights : all_weights.index_copy(0, at::tensor(conversions_), weights);
    terms.task_losses = (base_means * base_weights).index_add(0, at::tensor(conversions_), config_.lambda * enhanced_means * weights);
    terms.total = terms.task_losses.sum();
    for (const auto& task : spec_.tasks) terms.names.push_back(task.name);
    for (int64_t i : conversions_) terms.names.push_back(spec_.tasks[i].name + ".enhanced");
    terms.values = at::cat({base_means, enhanced_means}).detach();
    return terms;
  }

 private:
  // Moves the shift of the served enhanced logits a little towards where they predict as many events of the batch as the base logits: one step of Newton's
  // method. The mix moves the logits without a gradient, and a bias that learns with a falling learning rate falls behind it.
  void follow(const ModelOutput& output, const Targets& targets) {
    at::AutoGradMode no_grad(false);
    constexpr double kPart = 0.1, kPrior = 0.1;  // kPrior: of 0, in rows of the slope: heads that are sure of every row have next to none
    const at::Tensor weight = select(targets.weight, 0), p = at::sigmoid(select(output.base_logits, 0)), q = at::sigmoid(output.enhanced_logits + shift_.unsqueeze(1));
    const at::Tensor slope = (weight * q * (1 - q)).sum(1);
    const at::Tensor step = (((weight * (p - q)).sum(1) - kPrior * shift_) / (slope + kPrior)).clamp(-1, 1);
    shift_.add_(at::where(slope > 0, kPart * step, at::zeros_like(step)));
  }

  // The CVR tasks' part of a tensor whose first dimension is all tasks; a view where they lie side by side.
  at::Tensor select(const at::Tensor& all, int64_t dimension) const {
    const int64_t count = static_cast<int64_t>(conversions_.size());
    if (conversions_.back() - conversions_.front() + 1 == count) return all.narrow(dimension, conversions_.front(), count);
    return all.index_select(dimension, at::tensor(conversions_));
  }

  // Whether a CVR task's logit is a sum of base logits and v_i t_i.
  bool residual() const { return config_.transmitter && (config_.transmit == "mix" || config_.transmit == "residual"); }
  // Whether ops::transfer can make v_i t_i in one go.
  bool fused() const { return residual() && config_.router && config_.transmitter_hidden.size() == 1 && config_.activation == "relu"; }

  static void diagnose(const at::Tensor& similarity, const at::Tensor& gate, ModelOutput& output) {
    if (similarity.defined()) output.diagnostics.emplace_back("similarity", similarity.mean(0));
    if (gate.defined()) output.diagnostics.emplace_back("gate_opening", at::sigmoid(gate.detach()).mean({1, 2}));
  }

  at::Tensor own_logits(const at::Tensor& logits) const { return config_.detach_own ? logits.detach() : logits; }

  // sum_j a_ij u_j + b_i. [K,B] -> [T,B]
  at::Tensor mixed(const at::Tensor& base_logits) const {
    const at::Tensor u = base_logits - base_bias_.squeeze(2), own_u = select(u, 0), bias = select(base_bias_, 0).squeeze(2);
    const at::Tensor& a = mix_->coefficients();
    const at::Tensor from_others = at::matmul(a.masked_fill(own_, 0), config_.detach_sources ? u.detach() : u);
    const at::Tensor own_share = a.masked_fill(own_.logical_not(), 0).sum(1, /*keepdim=*/true);
    return from_others + own_share * own_logits(own_u) + own_logits(bias);
  }

  // Where the mix starts with mix_start: labels, [T,K]. r = n / (n + mix_positives), n the training rows of the rarer label: how far a task
  // can stand on its own. Task i takes 1 - r_i of the others, of each CVR task j the part r_j / sum r, times what is left of the correlation
  // of i's and j's labels after shrinkage, max(0, 1 - 1 / z^2) with z = correlation sqrt(rows) > 0; the rest is its own.
  at::Tensor start_by_labels(const LabelStatistics& labels) const {
    const int64_t count = static_cast<int64_t>(conversions_.size());
    at::Tensor start = at::zeros({count, static_cast<int64_t>(spec_.tasks.size())}, at::kDouble);
    auto rich = [&](int64_t task) {
      const double n = labels.rarer[task].item<double>();
      return n / (n + config_.mix_positives);
    };
    for (int64_t i = 0; i < count; ++i) {
      const int64_t own = conversions_[i];
      double total = 0, own_share = 1;
      for (int64_t j : conversions_)
        if (j != own) total += rich(j);
      for (int64_t j : conversions_) {
        const double correlation = labels.similarity[own][j].item<double>(), z = correlation * std::sqrt(labels.rows[own][j].item<double>());
        if (j == own || z <= 1 || !config_.router) continue;
        const double share = (1 - rich(own)) * rich(j) / total * (1 - 1 / (z * z));
        start[i][j] = share;
        own_share -= share;
      }
      start[i][own] = own_share;
    }
    return start;
  }

  // For each entry the weighted mean of `values` over the rows of the same task and label. All [T,B].
  static at::Tensor class_mean(const at::Tensor& values, const at::Tensor& labels, const at::Tensor& weight) {
    at::Tensor positive = labels * weight, negative = (1 - labels) * weight;
    auto mean = [&](const at::Tensor& of_class) {
      at::Tensor total = of_class.sum(1, /*keepdim=*/true);
      return at::where(total > 0, (values * of_class).sum(1, true) / total.clamp_min(1e-12), at::ones_like(total));
    };
    return labels * mean(positive) + (1 - labels) * mean(negative);
  }

  ops::Routed route(const at::Tensor& features) const {
    if (config_.router) return ops::route(features, router_);
    at::Tensor roots = features.index_select(0, at::tensor(roots_)).mean(0, /*keepdim=*/true);
    if (config_.detach_sources) roots = roots.detach();
    at::Tensor own = select(features, 0), packet = roots.expand(own.sizes());
    return {features, own, packet, packet, {}};
  }

  EktmConfig config_;
  std::unique_ptr<Backbone> backbone_;
  ops::Router router_;
  std::vector<int64_t> roots_, conversions_;
  at::Tensor base_weight_, base_bias_;          // [K,d,1], [K,1,1]
  at::Tensor enhanced_weight_, enhanced_bias_;  // [T,d or 2d,1], [T,1,1]
  at::Tensor head_choice_;                      // [K]
  at::Tensor shift_;                            // [T]
  std::optional<OnlineRegression> mix_;
  at::Tensor own_;                              // [T,K] bool: the task itself
  std::vector<BatchedMlp> mlp_;                 // 0 or 1 of each
  std::vector<BatchedLinear> mlp_out_, gate_;
};

YAML::Node backbone_node(const YAML::Node& config) {
  if (config["backbone"]) return config["backbone"];
  YAML::Node node(YAML::NodeType::Map);
  node["name"] = "mmoe";
  return node;
}

}  // namespace

ModelEntry zoo_entry_ektm() {
  ModelEntry entry;
  entry.name = "ektm";
  entry.summary = "router, transmitters and enhanced heads over a backbone (key `backbone`: a map with the backbone's name and keys)";
  entry.source = "Cai et al. 2026, arXiv 2605.05730, as reconstructed";
  entry.describe = [] { return describe(EktmConfig{}); };
  entry.resolve = [](const YAML::Node& node, ConfigErrors& errors, const std::string& prefix) {
    EktmConfig config;
    read_config(node, config, errors, prefix, {"name", "backbone"});
    YAML::Node resolved(YAML::NodeType::Map);
    resolved["name"] = "ektm";
    YAML::Node backbone = backbone_node(node);
    if (!backbone.IsMap() || !backbone["name"]) {
      errors.add(backbone, "model.backbone", "expected a map with the key `name`, e.g. backbone: {name: mmoe, experts: 4}.");
    } else {
      const ModelEntry& inner = find_model(backbone["name"].as<std::string>(""), errors.file() + ", model.backbone.name");
      if (!inner.make_backbone)
        errors.add(backbone["name"], "model.backbone.name", fmt::format("'{}' yields no task features. Take one of: {}.", inner.name, fmt::join(backbone_names(), ", ")));
      else
        resolved["backbone"] = inner.resolve(backbone, errors, prefix + "backbone.");
    }
    for (const auto& item : write_config(config)) resolved[item.first] = item.second;
    return resolved;
  };
  entry.make = [](const YAML::Node& node, const ModelSpec& spec, ParameterStore& store) -> std::unique_ptr<Model> {
    const YAML::Node backbone = node["backbone"];
    const ModelEntry& inner = find_model(backbone["name"].as<std::string>(), "model.backbone.name");
    return std::make_unique<Ektm>(read_resolved<EktmConfig>(node), spec, store, inner.make_backbone(backbone, spec, store));
  };
  return entry;
}

}  // namespace ektm
