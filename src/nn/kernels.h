#pragma once
// Inner loops, compiled for several instruction sets; the best is chosen when the program starts.
#include <cstdint>

namespace ektm::kernels {

// y += a * x, n numbers.
void axpy(int64_t n, float a, const float* x, float* y);

// Adam of Kingma & Ba 2015 with decoupled weight decay (Loshchilov & Hutter 2019), bias-corrected at `step` >= 1.
struct AdamStep {
  float step_size, beta1, beta2, one_minus_beta1, one_minus_beta2, epsilon, inverse_sqrt_correction2, decay;
};
AdamStep adam_step(double learning_rate, double beta1, double beta2, double epsilon, double weight_decay, int64_t step);
void adam(int64_t n, const AdamStep& step, float grad_scale, const float* grad, float* weight, float* m, float* v);

// Sum of squares in double.
double square_sum(int64_t n, const float* x);

}  // namespace ektm::kernels
