#include "train/dense_optimizer.h"


#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/threads.h"
#include "nn/kernels.h"

namespace ektm {
namespace {

constexpr int64_t kChunk = 16384;  // numbers a thread takes at a time

}  // namespace

DenseAdam::DenseAdam(ParameterStore& parameters, const OptimizerConfig& config)
    : parameters_(parameters), config_(config), m_(at::zeros_like(parameters.values())), v_(at::zeros_like(parameters.values())) {}

double DenseAdam::gradient_square_sum() const {
  const float* grads = parameters_.grads().const_data_ptr<float>();
  const int64_t size = parameters_.grads().numel();
  // One partial sum a chunk: the result does not depend on the number of threads.
  std::vector<double> sums((size + kChunk - 1) / kChunk);
  parallel_for(0, static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) sums[c] = kernels::square_sum(std::min(kChunk, size - c * kChunk), grads + c * kChunk);
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

void DenseAdam::step(double grad_scale, double rate_scale) {
  ++steps_;
  const auto step = kernels::adam_step(config_.learning_rate * rate_scale, config_.beta1, config_.beta2, config_.epsilon,
                                       config_.weight_decay, steps_);
  const float* grads = parameters_.grads().const_data_ptr<float>();
  float* values = parameters_.values().data_ptr<float>();
  float* m = m_.data_ptr<float>();
  float* v = v_.data_ptr<float>();
  parallel_for(0, m_.numel(), kChunk, [&](int64_t begin, int64_t end) {
    kernels::adam(end - begin, step, static_cast<float>(grad_scale), grads + begin, values + begin, m + begin, v + begin);
  });
}

double learning_rate_factor(const OptimizerConfig& config, int64_t step, int64_t total_steps) {
  if (step < config.warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);
  if (config.schedule == "constant") return 1;
  const double length = static_cast<double>(std::max<int64_t>(1, total_steps - config.warmup_steps));
  const double done = std::min(1.0, static_cast<double>(step - config.warmup_steps) / length);
  const double shape = config.schedule == "linear" ? 1 - done : 0.5 * (1 + std::cos(std::numbers::pi * done));
  return config.final_ratio + (1 - config.final_ratio) * shape;
}

}  // namespace ektm
