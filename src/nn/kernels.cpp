#include "nn/kernels.h"

#include <cmath>

#if defined(__x86_64__)
#define EKTM_CLONES __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default"), optimize("O3")))
#else
#define EKTM_CLONES
#endif

namespace ektm::kernels {

EKTM_CLONES void axpy(int64_t n, float a, const float* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

AdamStep adam_step(double learning_rate, double beta1, double beta2, double epsilon, double weight_decay, int64_t step) {
  const double correction1 = 1 - std::pow(beta1, static_cast<double>(step)), correction2 = 1 - std::pow(beta2, static_cast<double>(step));
  AdamStep result;
  result.step_size = static_cast<float>(learning_rate / correction1);
  result.beta1 = static_cast<float>(beta1);
  result.beta2 = static_cast<float>(beta2);
  result.one_minus_beta1 = static_cast<float>(1 - beta1);
  result.one_minus_beta2 = static_cast<float>(1 - beta2);
  result.epsilon = static_cast<float>(epsilon);
  result.inverse_sqrt_correction2 = static_cast<float>(1 / std::sqrt(correction2));
  result.decay = static_cast<float>(1 - learning_rate * weight_decay);
  return result;
}

// GCC keeps sqrt a call where errno could be set; -fno-math-errno lets it vectorise (set for this file in CMakeLists.txt).
EKTM_CLONES void adam(int64_t n, const AdamStep& step, float grad_scale, const float* __restrict grad, float* __restrict weight,
                      float* __restrict m, float* __restrict v) {
  const AdamStep s = step;
  for (int64_t i = 0; i < n; ++i) {
    const float g = grad[i] * grad_scale;
    m[i] = s.beta1 * m[i] + s.one_minus_beta1 * g;
    v[i] = s.beta2 * v[i] + s.one_minus_beta2 * g * g;
    weight[i] = weight[i] * s.decay - s.step_size * m[i] / (std::sqrt(v[i]) * s.inverse_sqrt_correction2 + s.epsilon);
  }
}

double square_sum(int64_t n, const float* x) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

}  // namespace ektm::kernels
