// HoME: hierarchy of multi-gate experts (Wang et al. 2024, arXiv 2408.05430).
//
//   expert(v)    = swish(BN(MLP(v)))                       so that all experts' numbers are of one scale and none dies
//   gated(v)     = v * 2 sigmoid((v B) A)                  feature gate of low rank, one for each set of experts
//   self(v)      = softmax(W v) over a set's own experts   (sigmoid for a single one)
//
//   Tasks are put into groups g (watching, interacting, ...). First level, of groups and of what all share (s):
//   z_g = sum over e in (E_g + E_s)   of softmax(W_g x)_e * e  +  sum over e in E_g of self_g(x)_e * e,    e in E_g sees gated_g(x)
//   z_s = sum over e in (all experts) of softmax(W_s x)_e * e  +  sum over e in E_s of self_s(x)_e * e,    e in E_s sees gated_s(x)
//   Second level, of tasks; u_g = [z_g ; z_s], and task t is in group g:
//   z_t = sum over e in (E_t + E'_g + E'_s) of softmax(W_t u_g)_e * e  +  sum over e in E_t of self_t(u_g)_e * e
//         e in E_t sees gated_t(u_g), in E'_g gated_g(u_g), in E'_s gated_s(z_s)
//   f_t = T_t(z_t),  p_t = sigmoid(w_t f_t + b_t)
//
// Batch normalisation uses the batch while training and running statistics otherwise, so a score does not depend on the other rows of its
// batch. The running statistics are buffers: saved and resumed with the weights. A training batch of one row has no variance and leaves
// them as they are. A is zero at the start: training begins without feature gates.
// Our decisions where the accounts of the paper leave it open: all sets of a level have as many experts, inner layers of an expert's MLP have
// swish without normalisation, E'_s sees z_s. Of two public ports one takes the feature gate itself for the gated features, the other has
// layer normalisation and no path of the self gates beside the mixture.
// x [1,B,D] -> f [K,B,d].
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct HomeConfig {
  std::vector<std::vector<std::string>> groups;
  int64_t meta_experts = 2, task_experts = 2, gate_rank = 8;
  std::vector<int64_t> expert_hidden{64}, tower_hidden{32};
  double momentum = 0.1;
  std::string activation = "relu";
  double dropout = 0;
  void fields(FieldVisitor& v) {
    v.field("groups", groups,
            "task names of each group, e.g. [[click, long_view], [like, share]]. Empty: one group of the tasks without `after`, one of the others");
    v.field("meta_experts", meta_experts, {1, 256}, "first level: experts of each group, and of what all groups share");
    v.field("task_experts", task_experts, {1, 256}, "second level: experts of each task, of each group, and of what all share");
    v.field("expert_hidden", expert_hidden, {1, 65536}, "sizes of each expert's layers, at least one; the last one is normalised");
    v.field("gate_rank", gate_rank, {1, 65536}, "rank of the feature gates");
    v.field("momentum", momentum, {0, 1}, "share of a batch in the running mean and variance");
    v.field("tower_hidden", tower_hidden, {1, 65536}, "sizes of each task's hidden layers");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer of the towers");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

// The group of each task, and how many there are.
std::pair<std::vector<int64_t>, int64_t> groups_of(const HomeConfig& config, const std::vector<TaskInfo>& tasks) {
  std::vector<int64_t> group(tasks.size(), -1);
  if (config.groups.empty()) {
    const bool has_conversions = std::any_of(tasks.begin(), tasks.end(), [](const TaskInfo& task) { return task.parent >= 0; });
    for (size_t t = 0; t < tasks.size(); ++t) group[t] = tasks[t].parent >= 0;
    return {group, has_conversions ? 2 : 1};
  }
  const char* where = "model home, key groups";
  std::vector<std::string> names, missing;
  for (const TaskInfo& task : tasks) names.push_back(task.name);
  for (size_t g = 0; g < config.groups.size(); ++g) {
    if (config.groups[g].empty()) fail(ErrorKind::Config, where, "found a group without a task. Leave it out.");
    for (const std::string& name : config.groups[g]) {
      const auto found = std::find(names.begin(), names.end(), name);
      if (found == names.end())
        fail(ErrorKind::Config, where, "found '{}'; no task has this name. The data set's tasks are: {}.{}", name,
             fmt::join(names, ", "), did_you_mean(name, names));
      int64_t& own = group[found - names.begin()];
      if (own >= 0) fail(ErrorKind::Config, where, "found '{}' twice. A task belongs to one group.", name);
      own = static_cast<int64_t>(g);
    }
  }
  for (size_t t = 0; t < tasks.size(); ++t)
    if (group[t] < 0) missing.push_back(names[t]);
  if (!missing.empty()) fail(ErrorKind::Config, where, "the groups leave out: {}. Put every task into one of them.", fmt::join(missing, ", "));
  return {group, static_cast<int64_t>(config.groups.size())};
}

// swish(BN(MLP(v))) of E experts. v [E/r,B,in], each seen by r experts in a row -> stack [E,B,out].
class NormedExperts {
 public:
  NormedExperts(ParameterStore& store, const std::string& name, int64_t count, int64_t in, const HomeConfig& config)
      : momentum_(config.momentum), dropout_(config.dropout) {
    std::vector<int64_t> inner = config.expert_hidden;
    const int64_t out = inner.back();
    inner.pop_back();
    if (!inner.empty()) inner_.emplace_back(store, name, count, in, MlpConfig{inner, "silu", config.dropout}, false);
    // Without a bias: normalisation would take it away again.
    last_.emplace_back(store, name + "." + std::to_string(inner.size()), count, inner.empty() ? in : inner.back(), out, false);
    scale_ = store.add(name + ".norm.scale", {count, out}, Init::One, 0, 0, /*map_dim=*/0);
    shift_ = store.add(name + ".norm.shift", {count, out}, Init::Zero, 0, 0, /*map_dim=*/0);
    mean_ = store.add_buffer(name + ".norm.running_mean", at::zeros({count, out}));
    variance_ = store.add_buffer(name + ".norm.running_variance", at::ones({count, out}));
  }
  at::Tensor forward(const at::Tensor& v, Context& context) const {
    const at::Tensor y = last_[0].forward(inner_.empty() ? v : inner_[0].forward(v, context), context);
    const int64_t count = y.size(0), rows = y.size(1), out = y.size(2);
    const bool update = context.training && rows > 1, use = update || !context.training;
    const at::Tensor flat = at::batch_norm(y.transpose(0, 1).reshape({rows, count * out}), scale_.view(-1), shift_.view(-1),
                                           use ? mean_.view(-1) : at::Tensor(), use ? variance_.view(-1) : at::Tensor(), context.training, momentum_,
                                           1e-5, false);
    return ops::dropout(at::silu(flat).view({rows, count, out}).transpose(0, 1), dropout_, context);
  }

 private:
  double momentum_, dropout_;
  std::vector<BatchedMlp> inner_;  // 0 or 1
  std::vector<BatchedLinear> last_;  // 1
  at::Tensor scale_, shift_;        // [E,out]
  at::Tensor mean_, variance_;      // [E,out], running
};

class Home : public Backbone {
 public:
  Home(const HomeConfig& config, const ModelSpec& spec, ParameterStore& store)
      : config_(config), tasks_(static_cast<int64_t>(spec.tasks.size())) {
    if (config.expert_hidden.empty())
      fail(ErrorKind::Config, "model home, key expert_hidden", "found []; an expert's last layer is normalised. Give one size at least, e.g. [64].");
    const auto [group, groups] = groups_of(config, spec.tasks);
    groups_ = groups;
    const int64_t sets = groups + 1, n = config.meta_experts, m = config.task_experts, out = config.expert_hidden.back();
    meta_down_.emplace_back(store, "meta.feature_gate.down", sets, spec.features, config.gate_rank, false);
    meta_up_.emplace_back(store, "meta.feature_gate.up", sets, config.gate_rank, spec.features, false, Init::Zero);
    meta_experts_.emplace_back(store, "meta.expert", sets * n, spec.features, config);
    group_gates_.emplace_back(store, "meta.group_gate", groups, spec.features, 2 * n, false);
    shared_gate_.emplace_back(store, "meta.shared_gate", 1, spec.features, sets * n, false);
    meta_self_.emplace_back(store, "meta.self_gate", sets, spec.features, n, false);

    set_groups_ = group;  // the sets of the second level: tasks, then groups
    for (int64_t g = 0; g < groups; ++g) set_groups_.push_back(g);
    task_down_.emplace_back(store, "task.feature_gate.down", tasks_ + groups, 2 * out, config.gate_rank, false);
    task_up_.emplace_back(store, "task.feature_gate.up", tasks_ + groups, config.gate_rank, 2 * out, false, Init::Zero);
    task_experts_.emplace_back(store, "task.expert", (tasks_ + groups) * m, 2 * out, config);
    shared_down_.emplace_back(store, "shared.feature_gate.down", 1, out, config.gate_rank, false);
    shared_up_.emplace_back(store, "shared.feature_gate.up", 1, config.gate_rank, out, false, Init::Zero);
    shared_experts_.emplace_back(store, "shared.expert", m, out, config);
    task_gates_.emplace_back(store, "task.gate", tasks_, 2 * out, 3 * m, false);
    task_self_.emplace_back(store, "task.self_gate", tasks_, 2 * out, m, false);
    towers_.emplace_back(store, "tower", tasks_, out, MlpConfig{config.tower_hidden, config.activation, config.dropout}, false);

    for (int64_t g = 0; g < groups; ++g) see(meta_seen_, n, {g, groups});
    for (int64_t t = 0; t < tasks_; ++t) see(task_seen_, m, {t, tasks_ + group[t], tasks_ + groups});
  }
  int64_t feature_width() const override { return towers_[0].out(); }

  at::Tensor features(const at::Tensor& x_in, Context& context, ModelOutput& output) override {
    const at::Tensor x = x_in.squeeze(0);
    const at::Tensor meta = meta_experts_[0].forward(gated(x_in, meta_up_[0].forward(meta_down_[0].forward(x, context), context)), context);
    const std::vector<at::Tensor> own = self_gated(meta_self_[0].forward(x, context), meta).split_with_sizes({groups_, 1});
    const at::Tensor z_groups = ops::softmax_mix(group_gates_[0].forward(x, context), {meta}, meta_seen_) + own[0];  // [G,B,H]
    const at::Tensor z_shared = mix_experts(shared_gate_[0].forward(x, context), meta) + own[1];                    // [1,B,H]

    const at::Tensor u = at::cat({z_groups, z_shared.expand_as(z_groups)}, 2).index_select(0, at::tensor(set_groups_));  // [K+G,B,2H]
    const at::Tensor experts = task_experts_[0].forward(gated(u, task_up_[0].forward(task_down_[0].forward(u, context), context)), context);
    const at::Tensor shared =
        shared_experts_[0].forward(gated(z_shared, shared_up_[0].forward(shared_down_[0].forward(z_shared, context), context)), context);
    const at::Tensor u_tasks = u.narrow(0, 0, tasks_), logits = task_gates_[0].forward(u_tasks, context);
    if (context.diagnose) output.diagnostics.emplace_back("expert_gates", at::softmax(logits.detach(), 2).mean(1));
    const at::Tensor z = ops::softmax_mix(logits, {experts, shared}, task_seen_) + self_gated(task_self_[0].forward(u_tasks, context), experts);
    return towers_[0].forward(z, context);
  }

 private:
  // Adds to `seen` the n experts of each of `sets`.
  static void see(std::vector<int32_t>& seen, int64_t n, std::initializer_list<int64_t> sets) {
    for (int64_t set : sets)
      for (int64_t e = 0; e < n; ++e) seen.push_back(static_cast<int32_t>(set * n + e));
  }
  static at::Tensor gated(const at::Tensor& v, const at::Tensor& logits) { return 2 * at::sigmoid(logits) * v; }
  // The first sets' own experts by their self gates. logits [S,B,n], experts [>= S*n,B,H] -> [S,B,H].
  static at::Tensor self_gated(const at::Tensor& logits, const at::Tensor& experts) {
    if (logits.size(2) == 1) return at::sigmoid(logits) * experts.narrow(0, 0, logits.size(0));
    std::vector<int32_t> own(logits.size(0) * logits.size(2));
    std::iota(own.begin(), own.end(), 0);
    return ops::softmax_mix(logits, {experts}, own);
  }

  HomeConfig config_;
  int64_t tasks_, groups_ = 0;                   // K, G
  std::vector<int64_t> set_groups_;              // [K+G] group of each set of the second level
  std::vector<int32_t> meta_seen_, task_seen_;   // [G*2n], [K*3m] experts that a gate mixes
  // One of each.
  std::vector<FanOutLinear> meta_down_, group_gates_, shared_gate_, meta_self_;
  std::vector<BatchedLinear> meta_up_, task_down_, task_up_, shared_down_, shared_up_, task_gates_, task_self_;
  std::vector<NormedExperts> meta_experts_, task_experts_, shared_experts_;
  std::vector<BatchedMlp> towers_;
};

}  // namespace

EKTM_BACKBONE(home, HomeConfig, Home, "groups of tasks, then tasks: normalised experts with feature gates and self gates",
              "Wang et al. 2024, arXiv 2408.05430")

}  // namespace ektm
