// Heac, the hybrid experts and critics of MetaHeac (Zhu et al., KDD 2021).
//
//   u_t = [task embedding of t ; mean of the row's field embeddings]
//   f_t = sum_k softmax(W_e u_t + b_e)_k e_k(x)                     experts
//   p_t = sum_c softmax(W_c u_t + b_c)_c sigmoid(critic_c(f_t))     critics, the same ones for all tasks
//
// The gates' weights are those of all tasks too: a task differs from another in its embedding alone. p_t is a mixture of probabilities
// and no sigmoid of anything linear, so this is a model with heads of its own, not a backbone. Its logit is computed from logarithms:
//
//   logit p_t = logsumexp_c(log g_tc + log sigmoid(z_c)) - logsumexp_c(log g_tc + log sigmoid(-z_c)),   g = softmax, z = critic's output
//
// Left out: the paper's meta-learning (an inner gradient step a campaign, for campaigns that come with few seeds); tasks are trained
// together as everywhere in ektm. Numbers among the features go into the experts, not into the gates' mean: they have no embedding.
// Public code takes the mean over the C gated critics: p is then divided by C once more and stays below 1 / C.
// x [1,B,D] -> logits [K,B].
#include <algorithm>

#include "base/error.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/ops.h"

namespace ektm {
namespace {

struct MetaheacConfig {
  int64_t experts = 6, critics = 4, task_width = 8;
  std::vector<int64_t> expert_hidden{128, 64}, critic_hidden{64};
  std::string activation = "relu";
  double dropout = 0;
  void fields(FieldVisitor& v) {
    v.field("experts", experts, {1, 1024}, "number of experts");
    v.field("critics", critics, {1, 1024}, "number of critics");
    v.field("task_width", task_width, {1, 4096}, "numbers in a task's embedding");
    v.field("expert_hidden", expert_hidden, {1, 65536}, "sizes of each expert's hidden layers");
    v.field("critic_hidden", critic_hidden, {1, 65536}, "sizes of each critic's hidden layers");
    v.field("activation", activation, {"relu", "silu", "gelu", "tanh"}, "after each hidden layer");
    v.field("dropout", dropout, {0, 0.95}, "share of hidden numbers dropped while training");
  }
};

class Metaheac : public Model {
 public:
  Metaheac(const MetaheacConfig& config, const ModelSpec& spec, ParameterStore& store)
      : Model(spec), tasks_(static_cast<int64_t>(spec.tasks.size())),
        task_embedding_(store.add("task_embedding.weight", {tasks_, config.task_width}, Init::Xavier, 0, 0, /*map_dim=*/0)),
        experts_(store, "expert", config.experts, spec.features, {config.expert_hidden, config.activation, config.dropout}, true),
        critics_(store, "critic", config.critics, experts_.out(), {config.critic_hidden, config.activation, config.dropout}, true),
        head_weight_(store.add("head.weight", {config.critics, critics_.out(), 1}, Init::Xavier)),
        head_bias_(store.add("head.bias", {config.critics, 1, 1}, Init::Zero)) {
    for (const ColumnInfo& column : spec.columns) {
      if (!column.embedded) continue;
      EKTM_CHECK(column.first == fields_ * column.width && (fields_ == 0 || column.width == width_));
      ++fields_, width_ = column.width;
    }
    auto add_gate = [&](const std::string& name, int64_t out) {
      return Gate{store.add(name + ".weight", {config.task_width + width_, out}, Init::Xavier), store.add(name + ".bias", {out}, Init::Zero)};
    };
    expert_gate_ = add_gate("expert_gate", config.experts);
    critic_gate_ = add_gate("critic_gate", config.critics);
  }

  int64_t embedding_groups() const override { return 1; }

  ModelOutput forward(const at::Tensor& x_in, Context& context) override {
    const at::Tensor x = x_in.squeeze(0);
    const int64_t rows = x.size(0);
    const at::Tensor fields = x.narrow(1, 0, fields_ * width_);
    const at::Tensor mean = fields_ > 0 ? fields.reshape({rows, fields_, width_}).mean(1) : fields;  // [B,width]
    ModelOutput output;
    const at::Tensor expert_logits = gate(expert_gate_, mean);  // [K,B,E]
    if (context.diagnose) output.diagnostics.emplace_back("expert_gates", at::softmax(expert_logits.detach(), 2).mean(1));
    const at::Tensor f = mix_experts(expert_logits, experts_.forward(x, context));  // [K,B,H], in memory [B,K,H]
    // All critics see all tasks' features: K rows for one.
    const at::Tensor hidden = critics_.forward(f.transpose(0, 1).reshape({rows * tasks_, f.size(2)}), context);
    const at::Tensor z = ops::heads(hidden, head_weight_, head_bias_).view({-1, rows, tasks_}).permute({2, 1, 0});  // [K,B,C]
    const at::Tensor log_gate = at::log_softmax(gate(critic_gate_, mean), 2);
    output.logits = at::logsumexp(log_gate + at::log_sigmoid(z), {2}) - at::logsumexp(log_gate + at::log_sigmoid(-z), {2});
    return output;
  }

 private:
  struct Gate {
    at::Tensor weight, bias;  // [task_width + width, n], [n]
  };
  // W u_t + b for each task and row, [K,B,n]: the task's part and the row's part are added.
  at::Tensor gate(const Gate& gate, const at::Tensor& mean) const {
    const int64_t of_task = task_embedding_.size(1);
    return at::addmm(gate.bias, task_embedding_, gate.weight.narrow(0, 0, of_task)).unsqueeze(1) +
           at::mm(mean, gate.weight.narrow(0, of_task, width_));
  }

  int64_t tasks_, fields_ = 0, width_ = 0;  // K, embedded columns of x and the width of each
  at::Tensor task_embedding_;               // [K,task_width]
  BatchedMlp experts_, critics_;
  at::Tensor head_weight_, head_bias_;  // [C,h,1], [C,1,1]
  Gate expert_gate_, critic_gate_;
};

}  // namespace

ModelEntry zoo_entry_metaheac() {
  ModelEntry entry;
  entry.name = "metaheac";
  entry.summary = "experts and critics mixed by gates that see the task's embedding and the row's mean embedding";
  entry.source = "Zhu et al., KDD 2021, without its meta-learning";
  entry.describe = [] { return describe(MetaheacConfig{}); };
  entry.resolve = [](const YAML::Node& node, ConfigErrors& errors, const std::string& prefix) {
    return resolve_config<MetaheacConfig>(node, errors, prefix, "metaheac");
  };
  entry.make = [](const YAML::Node& node, const ModelSpec& spec, ParameterStore& store) -> std::unique_ptr<Model> {
    return std::make_unique<Metaheac>(read_resolved<MetaheacConfig>(node), spec, store);
  };
  return entry;
}

}  // namespace ektm
