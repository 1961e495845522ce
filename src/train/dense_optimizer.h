#pragma once
// Adam over the flat buffers of a ParameterStore: one fused pass.
#include <ATen/ATen.h>

#include "models/run_config.h"
#include "nn/parameters.h"

namespace ektm {

class DenseAdam {
 public:
  DenseAdam(ParameterStore& parameters, const OptimizerConfig& config);
  double gradient_square_sum() const;
  // gradient * grad_scale, learning rate * rate_scale.
  void step(double grad_scale, double rate_scale);

  const at::Tensor& m() const { return m_; }  // [P]
  const at::Tensor& v() const { return v_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  ParameterStore& parameters_;
  OptimizerConfig config_;
  at::Tensor m_, v_;
  int64_t steps_ = 0;
};

// The factor on both learning rates at `step` (from 0) of `total_steps`.
double learning_rate_factor(const OptimizerConfig& config, int64_t step, int64_t total_steps);

}  // namespace ektm
