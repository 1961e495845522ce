#pragma once
// One training step: forward, loss, backward, clipping, both optimisers.
#include <ATen/core/Generator.h>

#include "models/network.h"
#include "nn/gemm.h"
#include "train/balancing.h"
#include "train/dense_optimizer.h"

namespace ektm {

class Stepper {
 public:
  // `total_steps`: length of the learning-rate schedule. config.precision `auto` counts as f32: train() decides.
  Stepper(Network& network, const RunConfig& config, int64_t total_steps);

  // Step number steps() on `batch`. The random numbers of a step depend on (seed, step) alone. Error Model, before any weight was
  // changed, when the loss is NaN or infinite: `where` names step and task. The result is the loss before it is balanced.
  // first_pass: no step has seen these rows before.
  LossTerms step(const Batch& batch, bool first_pass = true);

  int64_t steps() const { return dense_.steps(); }
  double learning_rate() const;  // of the dense parameters in the next step

  const Balancer* balancer() const { return balancer_.get(); }  // null when loss.balance is fixed

  // Weights and everything else that the next step depends on, by name; shared storage.
  std::vector<std::pair<std::string, at::Tensor>> state() const;
  void set_steps(int64_t steps);  // after state() was filled from a checkpoint

 private:
  void check_finite(const LossTerms& loss) const;

  Network& network_;
  OptimizerConfig config_;
  Precision precision_;
  uint64_t seed_;
  int64_t total_steps_;
  DenseAdam dense_;
  at::Generator generator_;
  std::unique_ptr<Balancer> balancer_;
};

}  // namespace ektm
