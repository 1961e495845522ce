#include "train/stepper.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/ranges.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "nn/profiler.h"

namespace ektm {

Stepper::Stepper(Network& network, const RunConfig& config, int64_t total_steps)
    : network_(network), config_(config.optimizer),
      precision_(config.precision == "bf16" ? Precision::Bf16 : Precision::F32), seed_(static_cast<uint64_t>(config.seed)), total_steps_(total_steps),
      dense_(network.parameters(), config.optimizer), generator_(at::make_generator<at::CPUGeneratorImpl>(0)) {
  if (config.loss.balance == "fixed") return;
  std::vector<std::string> tasks;
  for (const auto& task : network.info().tasks) tasks.push_back(task.name);
  // The groups of x, and for each sequence under attention its values and the groups of its query.
  const int64_t groups = network.model().embedding_groups(), sequences = static_cast<int64_t>(config.attention.targets.size());
  const int64_t leaf_maps = groups + sequences * 2 * groups;
  balancer_ = std::make_unique<Balancer>(config.loss, tasks, network.parameters(), leaf_maps, seed_);
}

double Stepper::learning_rate() const { return config_.learning_rate * learning_rate_factor(config_, steps(), total_steps_); }

LossTerms Stepper::step(const Batch& batch, bool first_pass) {
  generator_.set_current_seed(mix64(seed_ ^ mix64(static_cast<uint64_t>(steps()))));
  Context context;
  context.training = true;
  context.generator = generator_;
  network_.parameters().zero_grad();
  const PrecisionScope precision(precision_);
  Network::Pass pass = network_.forward(batch, context);
  LossTerms loss;
  {
    EKTM_PROFILE("loss");
    const Targets targets = make_targets(batch, static_cast<int64_t>(network_.info().tasks.size()));
    loss = network_.model().loss(pass.output, targets);
    check_finite(loss);
    network_.model().observe(pass.output, targets, first_pass);
  }
  {
    EKTM_PROFILE("backward");
    if (balancer_) {
      const int64_t dim = network_.embeddings().dim();
      std::vector<Balancer::Leaf> leaves{{pass.x}};
      for (const int64_t column : pass.pooled) leaves[0].meaningless.emplace_back(column, dim);
      for (const at::Tensor& values : pass.values) leaves.push_back({values, dim});
      for (const at::Tensor& query : pass.queries) leaves.push_back({query});
      balancer_->backward(loss, leaves, steps());
    } else {
      loss.total.backward();
      network_.parameters().collect_grads();
    }
  }

  EKTM_PROFILE("optimiser");
  const double rate = learning_rate_factor(config_, steps(), total_steps_);
  const double embedding_squares = network_.collect(batch, pass);
  double scale = 1;
  if (config_.clip_norm > 0) {
    const double norm = std::sqrt(dense_.gradient_square_sum() + embedding_squares);
    if (norm > config_.clip_norm) scale = config_.clip_norm / norm;
  }
  dense_.step(scale, rate);
  network_.embeddings().apply(scale, rate);
  return loss;
}

void Stepper::check_finite(const LossTerms& loss) const {
  const float* values = loss.values.const_data_ptr<float>();
  std::vector<std::string> bad;
  for (size_t i = 0; i < loss.names.size(); ++i)
    if (!std::isfinite(values[i])) bad.push_back(loss.names[i]);
  if (bad.empty() && std::isfinite(loss.total.item<float>())) return;
  fail(ErrorKind::Model, fmt::format("step {}, task {}", steps() + 1, bad.empty() ? "(sum of all)" : fmt::format("{}", fmt::join(bad, ", "))),
       "the loss is NaN or infinite. Try a lower optimizer.learning_rate or optimizer.clip_norm: 1, and check the data's numbers.");
}

std::vector<std::pair<std::string, at::Tensor>> Stepper::state() const {
  auto tensors = network_.state(true);
  tensors.emplace_back("optimizer.m", dense_.m());
  tensors.emplace_back("optimizer.v", dense_.v());
  if (balancer_)
    for (auto& entry : balancer_->state()) tensors.push_back(std::move(entry));
  return tensors;
}

void Stepper::set_steps(int64_t steps) {
  dense_.set_steps(steps);
  network_.embeddings().set_step(steps);
}

}  // namespace ektm
