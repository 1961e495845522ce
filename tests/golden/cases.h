#pragma once
// The cases of golden parity: every model of the zoo, EKTM over every backbone, every switch, every optimiser.
#include <string>
#include <vector>

namespace ektm {

struct GoldenCase {
  std::string name, chain;  // chain: see toy_info
  std::vector<std::string> overrides;  // over kGoldenBase
  bool weights = false;
};

// Small, with large embeddings' start so that gradients are far from rounding noise.
inline constexpr const char* kGoldenBase =
    "seed: 3\n"
    "threads: 1\n"
    "model: {name: mmoe}\n"
    "embedding: {dim: 4, init_std: 0.3, learning_rate: 0.01}\n"
    "optimizer: {learning_rate: 0.01}\n";

inline std::vector<GoldenCase> golden_cases() {
  const std::string sizes = "expert_hidden: [8, 6], tower_hidden: [5]";
  const std::string mmoe = "{name: mmoe, experts: 3, " + sizes + "}";
  const std::string single = "{name: single_task, hidden: [8, 5]}";
  const std::string bottom = "{name: shared_bottom, bottom_hidden: [8, 6], tower_hidden: [5]}";
  const std::string ple = "{name: ple, levels: 2, task_experts: 2, shared_experts: 1, " + sizes + "}";
  const std::string omoe = "{name: omoe, experts: 3, " + sizes + "}";
  const std::string stitch = "{name: cross_stitch, hidden: [8, 6]}";
  const std::string aitm = "{name: aitm, hidden: [8, 6]}";
  std::vector<GoldenCase> cases;
  for (const std::string chain : {"parallel", "sequential", "roots"}) {
    cases.push_back({"single_task_" + chain, chain, {"model=" + single}});
    cases.push_back({"shared_bottom_" + chain, chain, {"model=" + bottom}});
    cases.push_back({"mmoe_" + chain, chain, {"model=" + mmoe}});
    cases.push_back({"ple_" + chain, chain, {"model=" + ple, "seed=5"}});  // with seed 3 a ReLU lies on either side of 0 by rounding
    cases.push_back({"omoe_" + chain, chain, {"model=" + omoe}});
    cases.push_back({"cross_stitch_" + chain, chain, {"model=" + stitch}});
    cases.push_back({"aitm_" + chain, chain, {"model=" + aitm}});
    for (const std::string name : {"esmm", "dcmt"}) cases.push_back({name + "_" + chain, chain, {"model={name: " + name + ", hidden: [8, 6]}"}});
    for (const std::string name : {"escm2_ipw", "escm2_dr"})
      cases.push_back({name + "_" + chain, chain, {"model={name: " + name + ", hidden: [8, 6], clip: 0.2}"}});
    for (const auto& [name, backbone] : {std::pair{"single_task", single}, {"shared_bottom", bottom}, {"mmoe", mmoe}, {"ple", ple},
                                         {"omoe", omoe}, {"cross_stitch", stitch}, {"aitm", aitm}})
      cases.push_back({std::string("ektm_") + name + "_" + chain, chain, {"model={name: ektm, transmitter_hidden: [6], similarity_width: 3, backbone: " + backbone + "}"}});
  }
  auto model = [&](const std::string& name, const std::string& keys, bool backbone = true) {
    const std::string node = "{name: " + name + ", " + keys + "}";
    for (const std::string chain : {"parallel", "sequential", "roots"}) cases.push_back({name + "_" + chain, chain, {"model=" + node}});
    const std::string ektm = "model={name: ektm, transmitter_hidden: [6], similarity_width: 3, backbone: " + node + "}";
    if (backbone) cases.push_back({"ektm_" + name, "parallel", {ektm}});
  };
  auto variant = [&](const std::string& name, const std::string& suffix, const std::string& keys) {
    cases.push_back({name + "_" + suffix, "parallel", {"model={name: " + name + ", " + keys + "}"}});
  };
  const std::string stem = "task_experts: 2, shared_experts: 1, gate_hidden: [4], " + sizes;
  model("stem", stem);
  variant("stem", "attached", "detach_others: false, " + stem);
  variant("stem", "three_levels", "levels: 3, " + stem);
  variant("stem", "linear_gates", "task_experts: 1, shared_experts: 2, gate_hidden: [], " + sizes);
  const std::string metaheac = "experts: 3, critics: 2, task_width: 3, critic_hidden: [5], expert_hidden: [8, 6]";
  model("metaheac", metaheac, false);
  variant("metaheac", "linear_critics", "critics: 3, experts: 2, critic_hidden: [], expert_hidden: [6]");
  const std::string pepnet = "gate_hidden: 4, tower_hidden: [7, 5]";
  model("pepnet", pepnet);
  variant("pepnet", "columns", "domain: [age, tags], prior: [history, price, user], gamma: 3, " + pepnet);
  variant("pepnet", "attached", "detach_gates: false, " + pepnet);
  const std::string modular = "modules: 3, hidden: [8, 6, 5], tower_hidden: [4]";
  model("modular", modular);
  variant("modular", "no_towers", "modules: 2, hidden: [6], tower_hidden: []");
  const std::string home = "expert_hidden: [6], tower_hidden: [5], gate_rank: 3";
  model("home", home);
  variant("home", "groups", "groups: [[b, click], [c], [a]], momentum: 0.3, " + home);
  variant("home", "deep_experts", "expert_hidden: [8, 6], tower_hidden: [5], gate_rank: 3, meta_experts: 1, task_experts: 1");
  const std::string mkt = "extractors: 2, gate_hidden: 4, hidden: [7, 5], tower_hidden: [4], polar: 0.5";
  model("mkt", mkt, false);
  variant("mkt", "entity", "entity: [age, tags], extractors: 3, gate_hidden: 4, hidden: [6], tower_hidden: [], pretrain: 0.5");
  variant("mkt", "joint", "stop_gradients: false, " + mkt);
  for (const std::string chain : {"one", "two_roots"})
    cases.push_back({"ektm_mmoe_" + chain, chain, {"model={name: ektm, transmitter_hidden: [6], similarity_width: 3, backbone: " + mmoe + "}"}});
  cases.push_back({"ektm_gate_two_roots", "two_roots", {"model={name: ektm, transmit: gate, similarity: cosine, transmitter_hidden: [], backbone: " + single + "}"}});
  cases.push_back({"single_task_linear", "parallel", {"model={name: single_task, hidden: []}"}});
  cases.push_back({"ple_three_levels", "parallel", {"model={name: ple, levels: 3, task_experts: 1, shared_experts: 2, " + sizes + "}"}});
  cases.push_back({"mmoe_silu", "parallel", {"model={name: mmoe, experts: 3, activation: silu, " + sizes + "}"}});
  cases.push_back({"cross_stitch_silu", "parallel", {"model={name: cross_stitch, hidden: [8, 7, 6], activation: silu}"}});
  cases.push_back({"aitm_silu", "two_roots", {"model={name: aitm, hidden: [8, 6], activation: silu, constraint: 0.3}"}});
  cases.push_back({"esmm_two_roots", "two_roots", {"model={name: esmm, hidden: []}"}, true});
  cases.push_back({"esmm_task_weights", "parallel", {"model={name: esmm, hidden: [8, 6]}", "loss.task_weights={click: 0.5, b: 3}"}});
  cases.push_back({"escm2_ipw_weights", "sequential", {"model={name: escm2_ipw, hidden: [8, 6], lambda_c: 0.3, lambda_g: 2, clip: 0.4}"}, true});
  cases.push_back({"escm2_ipw_attached", "two_roots", {"model={name: escm2_ipw, hidden: [8, 6], stop_gradients: false}"}});
  cases.push_back({"escm2_dr_weights", "two_roots",
                   {"model={name: escm2_dr, hidden: [8, 6], lambda_c: 0.3, lambda_g: 2, lambda_i: 0.7, clip: 0.4}"}, true});
  cases.push_back({"escm2_dr_attached", "parallel", {"model={name: escm2_dr, hidden: [8, 6], stop_gradients: false}"}});
  cases.push_back({"dcmt_weights", "two_roots",
                   {"model={name: dcmt, hidden: [8, 6], cvr_weight: 0.3, path_weight: 2, lambda: 0.5, clip: 0.45}"}, true});
  cases.push_back({"dcmt_not_normalized", "parallel",
                   {"model={name: dcmt, hidden: [8, 6], self_normalize: false}", "loss.task_weights={click: 0.5, b: 3}"}, true});
  cases.push_back({"dcmt_attached", "sequential", {"model={name: dcmt, hidden: [8, 6], stop_gradients: false, lambda: 0.5}"}});
  auto ektm = [&](const std::string& name, const std::string& keys) {
    cases.push_back({"ektm_" + name, "parallel", {"model={name: ektm, transmitter_hidden: [6], similarity_width: 3, backbone: " + mmoe + ", " + keys + "}"}});
  };
  ektm("cosine", "similarity: cosine");
  ektm("label", "similarity: label");
  ektm("dot_none", "normalize: none");
  ektm("cosine_none", "similarity: cosine, normalize: none");
  ektm("label_none", "similarity: label, normalize: none");
  ektm("attached", "detach_sources: false");
  ektm("detach_own", "detach_sources: false, detach_own: true");
  ektm("detach_both", "detach_own: true");
  ektm("gate", "transmit: gate");
  ektm("gate_attached", "transmit: gate, detach_sources: false");
  ektm("gate_detach_own", "transmit: gate, detach_sources: false, detach_own: true");
  ektm("gate_detach_both", "transmit: gate, detach_own: true");
  ektm("concat", "transmit: concat");
  ektm("concat_attached", "transmit: concat, detach_sources: false");
  ektm("mix", "transmit: mix, mix_start: labels");
  ektm("mix_own", "transmit: mix, mix_prior: 0.5");
  ektm("residual", "transmit: residual");
  ektm("residual_attached", "transmit: residual, detach_sources: false");
  ektm("residual_detach_both", "transmit: residual, detach_own: true");
  ektm("mix_attached", "transmit: mix, detach_sources: false, mix_prior: 2");
  ektm("mix_detach_own", "transmit: mix, detach_sources: false, detach_own: true, mix_start: labels, mix_positives: 50");
  ektm("mix_detach_both", "transmit: mix, detach_own: true");
  ektm("mix_no_router", "transmit: mix, router: false");
  // Not as one operation (nn/transfer.h).
  cases.push_back({"ektm_mix_deep", "parallel", {"model={name: ektm, transmit: mix, transmitter_hidden: [6, 5], similarity_width: 3, backbone: " + mmoe + "}"}});
  ektm("mix_silu", "transmit: mix, activation: silu");
  cases.push_back({"ektm_mix_roots", "roots", {"model={name: ektm, transmit: mix, transmitter_hidden: [6], similarity_width: 3, backbone: " + single + "}"}});
  cases.push_back({"ektm_mix_two_roots", "two_roots", {"model={name: ektm, transmit: mix, mix_start: labels, mix_positives: 5, transmitter_hidden: [6], similarity_width: 3, backbone: " + mmoe + "}"}});
  ektm("no_transmitter_attached", "transmitter: false, detach_sources: false");
  ektm("no_router", "router: false");
  ektm("no_transmitter", "transmitter: false");
  ektm("no_enhanced", "enhanced: false");
  ektm("serve_enhanced", "serve: enhanced");
  ektm("hard_none", "hard: none");
  ektm("hinge", "hard: hinge");
  ektm("focal", "hard: focal, gamma: 2");
  ektm("weights", "lambda: 0.5, alpha: 2, gamma: 2");
  ektm("unbalanced", "lambda: 0.5, alpha: 2, gamma: 2, hard_balance: false");
  ektm("full_weight", "lambda: 0.5, share_weight: false");
  // Attention over history (mean-pooled else) for the item, and over tags (sum-pooled else) for the user.
  const std::string history = "attention.targets={history: item}", both = "attention.targets={history: last_item, tags: user}";
  cases.push_back({"attention", "parallel", {"model=" + mmoe, history, "attention.hidden=[6]"}});
  cases.push_back({"attention_softmax", "parallel", {"model=" + mmoe, both, "attention.hidden=[6, 5]", "attention.normalize=softmax"}});
  cases.push_back({"attention_linear", "roots", {"model=" + mmoe, both, "attention.hidden=[]"}});
  cases.push_back({"single_task_attention", "parallel", {"model=" + single, both, "attention.hidden=[6]"}});
  // Where a unit is active in a whole softmax its bias has no gradient; an epsilon above its rounding, which is another one on each processor, keeps Adam
  // from following it.
  cases.push_back({"single_task_attention_softmax", "sequential",
                   {"model=" + single, history, "attention.hidden=[6]", "attention.normalize=softmax", "optimizer.epsilon=1e-5"}});
  cases.push_back({"ektm_attention", "parallel",
                   {"model={name: ektm, transmitter_hidden: [6], similarity_width: 3, backbone: " + mmoe + "}", history, "attention.hidden=[6, 5]"}});
  cases.push_back({"sample_weights", "parallel", {"model=" + mmoe}, true});
  cases.push_back({"ektm_sample_weights", "parallel", {"model={name: ektm, transmitter_hidden: [6], similarity_width: 3, backbone: " + mmoe + "}"}, true});
  cases.push_back({"ektm_gate_sample_weights", "roots", {"model={name: ektm, transmit: gate, transmitter_hidden: [6], similarity_width: 3, backbone: " + mmoe + "}"}, true});
  cases.push_back({"aitm_sample_weights", "sequential", {"model=" + aitm}, true});
  cases.push_back({"mkt_sample_weights", "parallel", {"model={name: mkt, " + mkt + "}"}, true});
  cases.push_back({"mgda_sample_weights", "parallel", {"model=" + mmoe, "loss={balance: mgda}"}, true});
  cases.push_back({"task_weights", "parallel", {"model=" + mmoe, "loss.task_weights={click: 0.5, b: 3}"}});
  cases.push_back({"adagrad", "parallel", {"model=" + mmoe, "embedding.optimizer=adagrad"}});
  cases.push_back({"rowwise_adagrad", "parallel", {"model=" + mmoe, "embedding.optimizer=rowwise_adagrad"}});
  cases.push_back({"sgd", "parallel", {"model=" + mmoe, "embedding.optimizer=sgd"}});
  cases.push_back({"l2_and_decay", "parallel", {"model=" + mmoe, "embedding.l2=0.1", "optimizer.weight_decay=0.1"}});
  cases.push_back({"clip", "parallel", {"model=" + mmoe, "optimizer.clip_norm=0.05"}});
  cases.push_back({"warmup_cosine", "parallel", {"model=" + mmoe, "optimizer.schedule=cosine", "optimizer.warmup_steps=1", "optimizer.final_ratio=0.1"}});
  for (const auto& [name, model] : {std::pair{"mmoe", mmoe}, {"ektm", "{name: ektm, transmitter_hidden: [6], similarity_width: 3, backbone: " + mmoe + "}"}})
    cases.push_back({name + std::string("_bf16"), "parallel", {"model=" + model, "precision=bf16"}});
  // Scores that are only compared do not see some biases; a large epsilon keeps Adam from following the rounding of their zero gradient.
  const std::string epsilon = "optimizer.epsilon=0.01";
  const std::string cross_distil = "{name: cross_distil, experts: 3, " + sizes;
  for (const std::string chain : {"parallel", "sequential", "roots", "one"})
    cases.push_back({"cross_distil_" + chain, chain, {"model=" + cross_distil + "}", epsilon}, chain == "parallel"});
  cases.push_back({"cross_distil_auxiliary_only", "parallel", {"model=" + cross_distil + ", distill: 0, auxiliary: 2, pairs: 3}", epsilon}});
  cases.push_back({"cross_distil_corrected", "roots", {"model=" + cross_distil + ", distill: 0.7, margin: 0.5, pairs: 100}", epsilon}});
  for (const std::string method : {"uncertainty", "dwa", "gradnorm", "pcgrad", "cagrad", "mgda", "metabalance"}) {
    const std::string balance = "loss={balance: " + method + ", balancing: {window_steps: 1}, task_weights: {click: 0.5}}";
    cases.push_back({method + "_mmoe", "parallel", {"model=" + mmoe, balance}});
    cases.push_back({method + "_ektm", "sequential", {"model={name: ektm, transmitter_hidden: [6], backbone: " + mmoe + "}", balance}});
  }
  cases.push_back({"mgda_norm", "parallel", {"model=" + mmoe, "loss={balance: mgda, balancing: {normalize: norm}}"}});
  const std::string shrink = "{target: a, direction: shrink, relax: 0.5, decay: 0.5}";
  cases.push_back({"metabalance_shrink", "parallel", {"model=" + mmoe, "loss={balance: metabalance, balancing: " + shrink + "}"}});
  return cases;
}

}  // namespace ektm
