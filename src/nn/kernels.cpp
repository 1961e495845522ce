#include "nn/kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
// By level, not by CPU: "arch=haswell" would be taken on that very CPU only, and any other would run the default.
#define EKTM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define EKTM_CLONES
#endif
// Bodies for both types; inlined into each clone, so that they are compiled for its instructions.
#define EKTM_BODY template <class T> __attribute__((always_inline)) inline

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

// The upper 16 bits, rounded, in place. A NaN becomes the quiet one: rounding could carry it into the sign.
EKTM_CLONES void round_to_bf16(int64_t n, const float* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]), rounded = bits + 0x7fffu + (bits >> 16 & 1);
    y[i] = std::bit_cast<float>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : rounded & 0xffff0000u);
  }
}

double square_sum(int64_t n, const float* x) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

namespace {

// e^x: Cody-Waite reduction and a polynomial of degree 6 (relative error below 2e-7 in [-87, 88]; beyond, the ends' values). Written
// out because a call to exp does not vectorise.
inline __attribute__((always_inline)) float exponential(float x) {
  // NaN passes through: both comparisons are false for it.
  x = x > 88.f ? 88.f : x;
  x = x < -87.f ? -87.f : x;
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504088896341f + magic, n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  const uint32_t power = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;  // 2^n: n lies in the low bits of `shifted`
  return p * std::bit_cast<float>(power);
}
inline __attribute__((always_inline)) double exponential(double x) { return std::exp(x); }

// Wellons' lowbias32 hash.
inline __attribute__((always_inline)) uint32_t hash32(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}
inline __attribute__((always_inline)) bool keeps(const Dropout& dropout, uint32_t row_seed, uint32_t column) {
  return (hash32(row_seed + column * 0x9e3779b9u) >> 8) >= dropout.drop_below;
}
inline __attribute__((always_inline)) uint32_t row_seed(const Dropout& dropout, int64_t row) {
  return hash32(dropout.seed ^ hash32(static_cast<uint32_t>(row)));
}

EKTM_BODY void finish_linear_body(int64_t rows, int64_t n, int64_t stride, int64_t first_row, int64_t first_column, const T* __restrict bias,
                                  bool relu, const Dropout& dropout, T* __restrict y) {
  for (int64_t r = 0; r < rows; ++r, y += stride) {
    if (bias)
      for (int64_t i = 0; i < n; ++i) y[i] += bias[i];
    // Written so that NaN stays NaN.
    if (relu)
      for (int64_t i = 0; i < n; ++i) y[i] = y[i] < 0 ? T(0) : y[i];
    if (dropout.drop_below > 0) {
      const uint32_t seed = row_seed(dropout, first_row + r);
      const T scale = static_cast<T>(dropout.scale);
      for (int64_t i = 0; i < n; ++i) y[i] = keeps(dropout, seed, static_cast<uint32_t>(first_column + i)) ? y[i] * scale : T(0);
    }
  }
}

EKTM_BODY void finish_linear_grad_body(int64_t rows, int64_t count, int64_t n, bool relu, float scale_in, const T* __restrict y, Rows<const T> grad,
                                       T* __restrict out, T* __restrict bias_grad) {
  const T scale = static_cast<T>(scale_in);
  if (grad.stride == n) n *= count, count = 1;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t e = 0; e < count; ++e) {
      const T* __restrict g = grad.at(r, e);
      T* __restrict o = out + (r * count + e) * n;
      if (relu) {
        const T* __restrict kept = y + (r * count + e) * n;
        for (int64_t i = 0; i < n; ++i) o[i] = kept[i] > 0 ? g[i] * scale : T(0);
      } else {
        for (int64_t i = 0; i < n; ++i) o[i] = g[i];
      }
      if (bias_grad)
        for (int64_t i = 0; i < n; ++i) bias_grad[e * n + i] += o[i];
    }
}

EKTM_BODY void column_sums_body(int64_t rows, int64_t n, const T* __restrict x, int64_t stride, T* __restrict sums) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) sums[i] += x[r * stride + i];
}

EKTM_BODY void drop_body(int64_t rows, int64_t n, int64_t first_row, const Dropout& dropout, const T* __restrict x, T* __restrict y) {
  const T scale = static_cast<T>(dropout.scale);
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const uint32_t seed = row_seed(dropout, first_row + r);
    for (int64_t i = 0; i < n; ++i) y[i] = keeps(dropout, seed, static_cast<uint32_t>(i)) ? x[i] * scale : T(0);
  }
}

EKTM_BODY void softmax_body(int64_t rows, int64_t n, T* __restrict x) {
  for (int64_t r = 0; r < rows; ++r) {
    T* row = x + r * n;
    T largest = row[0];
    for (int64_t i = 1; i < n; ++i) largest = row[i] > largest ? row[i] : largest;
    for (int64_t i = 0; i < n; ++i) row[i] -= largest;
  }
  // One long loop: rows are short.
  for (int64_t i = 0; i < rows * n; ++i) x[i] = exponential(x[i]);
  for (int64_t r = 0; r < rows; ++r) {
    T* row = x + r * n;
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += row[i];
    const T inverse = 1 / sum;
    for (int64_t i = 0; i < n; ++i) row[i] *= inverse;
  }
}

EKTM_BODY void softmax_grad_body(int64_t rows, int64_t n, const T* __restrict y, T* __restrict d) {
  for (int64_t r = 0; r < rows; ++r, y += n, d += n) {
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += y[i] * d[i];
    for (int64_t i = 0; i < n; ++i) d[i] = y[i] * (d[i] - sum);
  }
}

EKTM_BODY void sigmoid_body(int64_t n, T* __restrict x) {
  for (int64_t i = 0; i < n; ++i) x[i] = 1 / (1 + exponential(-x[i]));
}

// A tile of a row that stays in registers.
constexpr int64_t kTile = 32;

EKTM_BODY void mix_body(int64_t rows, int64_t count, int64_t n, int64_t width, const T* __restrict gates, const T* const* inputs, const int64_t* strides,
                        const int32_t* index, const T* add, int64_t add_stride, T scale, T* __restrict out) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < count; ++k) {
      const T* g = gates + (r * count + k) * n;
      const int32_t* chosen = index + k * n;
      T* __restrict o = out + (r * count + k) * width;
      int64_t begin = 0;
      for (; begin + kTile <= width; begin += kTile) {
        T sum[kTile] = {};
        if (add) std::memcpy(sum, add + r * add_stride + begin, sizeof sum);
        for (int64_t j = 0; j < n; ++j) {
          const T* __restrict x = inputs[chosen[j]] + r * strides[chosen[j]] + begin;
          const T weight = g[j];
          for (int64_t i = 0; i < kTile; ++i) sum[i] += weight * x[i];
        }
        for (int64_t i = 0; i < kTile; ++i) o[begin + i] = sum[i] * scale;
      }
      for (int64_t i = begin; i < width; ++i) {
        T sum = add ? add[r * add_stride + i] : T(0);
        for (int64_t j = 0; j < n; ++j) sum += g[j] * inputs[chosen[j]][r * strides[chosen[j]] + i];
        o[i] = sum * scale;
      }
    }
}

// x . y in eight lanes, which the compiler may not do on its own: it would reorder the sum.
EKTM_BODY T dot(int64_t n, const T* __restrict x, const T* __restrict y) {
  T lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t l = 0; l < 8; ++l) lanes[l] += x[i + l] * y[i + l];
  T sum = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
  for (; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

EKTM_BODY void mix_grad_body(int64_t rows, int64_t count, int64_t n, int64_t width, const T* __restrict gates, const T* const* inputs,
                             const int64_t* strides, const int32_t* index, Rows<const T> grad, T scale, const uint8_t* mask, T* __restrict gate_grad,
                             T* const* input_grads, const int64_t* grad_strides) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < count; ++k) {
      const T* __restrict d = grad.at(r, k);
      for (int64_t j = 0; j < n; ++j) {
        const int32_t e = index[k * n + j];
        const int64_t at_gate = (r * count + k) * n + j;
        gate_grad[at_gate] = scale * dot<T>(width, d, inputs[e] + r * strides[e]);
        if (mask && !mask[k * n + j]) continue;
        const T weight = gates[at_gate] * scale;
        T* __restrict dx = input_grads[e] + r * grad_strides[e];
        for (int64_t i = 0; i < width; ++i) dx[i] += weight * d[i];
      }
    }
}

EKTM_BODY void dots_body(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* w, T bias, T* out) {
  for (int64_t r = 0; r < rows; ++r) out[r] = dot<T>(n, x + r * x_stride, w) + bias;
}

EKTM_BODY void dots_grad_body(int64_t rows, int64_t n, const T* __restrict x, int64_t x_stride, const T* __restrict w, const T* __restrict g,
                              T* __restrict dx, int64_t dx_stride, T* __restrict dw, T* db) {
  T sum = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const T weight = g[r];
    sum += weight;
    for (int64_t i = 0; i < n; ++i) dx[r * dx_stride + i] = weight * w[i];
    for (int64_t i = 0; i < n; ++i) dw[i] += weight * x[r * x_stride + i];
  }
  *db += sum;
}

EKTM_BODY void gated_dots_body(int64_t rows, int64_t n, T* __restrict s, int64_t s_stride, const T* __restrict m, int64_t m_stride,
                               const T* __restrict w, T* __restrict out) {
  for (int64_t r = 0; r < rows; ++r, s += s_stride, m += m_stride) {
    for (int64_t i = 0; i < n; ++i) s[i] = 1 / (1 + exponential(-s[i]));
    T lanes[8] = {};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
      for (int64_t l = 0; l < 8; ++l) lanes[l] += w[i + l] * s[i + l] * m[i + l];
    T sum = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
    for (; i < n; ++i) sum += w[i] * s[i] * m[i];
    out[r] = sum;
  }
}

EKTM_BODY void gated_dots_grad_body(int64_t rows, int64_t n, const T* __restrict s, int64_t s_stride, const T* __restrict m, int64_t m_stride,
                                    const T* __restrict w, const T* __restrict g, T* __restrict dgate, int64_t dgate_stride, T* __restrict dm,
                                    int64_t dm_stride, T* __restrict dw) {
  for (int64_t r = 0; r < rows; ++r) {
    const T weight = g[r];
    const T* __restrict open = s + r * s_stride;
    const T* __restrict message = m + r * m_stride;
    T* __restrict to_gate = dgate + r * dgate_stride;
    T* __restrict to_message = dm + r * dm_stride;
    for (int64_t i = 0; i < n; ++i) {
      const T up = weight * w[i] * open[i];
      to_message[i] = up;
      to_gate[i] = up * message[i] * (1 - open[i]);
      dw[i] += weight * open[i] * message[i];
    }
  }
}

EKTM_BODY void relu_grad_body(int64_t rows, int64_t n, const T* __restrict y, int64_t y_stride, T scale, T* __restrict d, int64_t d_stride,
                              T* __restrict dbias) {
  for (int64_t r = 0; r < rows; ++r, y += y_stride, d += d_stride)
    for (int64_t i = 0; i < n; ++i) {
      d[i] = y[i] > 0 ? d[i] * scale : T(0);
      dbias[i] += d[i];
    }
}

EKTM_BODY void scores_body(int64_t rows, int64_t count, int64_t n, const T* q, const T* k, int64_t stride, T scale, T* scores) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < count; ++j)
        scores[(r * count + i) * count + j] = scale * dot<T>(n, q + (r * count + i) * stride, k + (r * count + j) * stride);
}

// out = sum_j weights[j * weight_stride] x_j, and part = the same over j with mask[j * weight_stride]; x_j `stride` apart.
EKTM_BODY void weighted_sums(int64_t count, int64_t n, const T* weights, int64_t weight_stride, const T* x, int64_t stride, T scale, const uint8_t* mask,
                             T* __restrict out, T* __restrict part) {
  constexpr int64_t kTile = 16;  // queries are short
  int64_t begin = 0;
  for (; begin + kTile <= n; begin += kTile) {
    T sum[kTile] = {};
    for (int64_t j = 0; j < count; ++j)
      for (int64_t c = 0; c < kTile; ++c) sum[c] += weights[j * weight_stride] * x[j * stride + begin + c];
    for (int64_t c = 0; c < kTile; ++c) out[begin + c] = scale * sum[c];
  }
  for (int64_t c = begin; c < n; ++c) {
    T sum = 0;
    for (int64_t j = 0; j < count; ++j) sum += weights[j * weight_stride] * x[j * stride + c];
    out[c] = scale * sum;
  }
  if (!part) return;
  for (int64_t c = 0; c < n; ++c) part[c] = 0;
  for (int64_t j = 0; j < count; ++j) {
    if (!mask[j * weight_stride]) continue;
    const T weight = scale * weights[j * weight_stride];
    for (int64_t c = 0; c < n; ++c) part[c] += weight * x[j * stride + c];
  }
}

EKTM_BODY void scores_grad_body(int64_t rows, int64_t count, int64_t n, const T* d, const T* q, const T* k, int64_t stride, T scale, const uint8_t* mask,
                                T* dq, T* dk, T* dk_part, int64_t grad_stride) {
  for (int64_t r = 0; r < rows; ++r, d += count * count)
    for (int64_t i = 0; i < count; ++i) {
      const int64_t to = (r * count + i) * grad_stride, from = r * count * stride;
      weighted_sums<T>(count, n, d + i * count, 1, k + from, stride, scale, nullptr, dq + to, nullptr);
      weighted_sums<T>(count, n, d + i, count, q + from, stride, scale, mask + i, dk + to, dk_part + to);
    }
}

EKTM_BODY void pair_inputs_body(int64_t rows, int64_t n, const T* __restrict x, int64_t x_stride, const T* __restrict q, T* __restrict out) {
  for (int64_t r = 0; r < rows; ++r, x += x_stride, out += 2 * n) {
    for (int64_t i = 0; i < n; ++i) out[i] = x[i];
    for (int64_t i = 0; i < n; ++i) out[n + i] = x[i] * q[i];
  }
}

EKTM_BODY void pair_inputs_grad_body(int64_t rows, int64_t n, const T* __restrict x, int64_t x_stride, const T* __restrict q, const T* __restrict d,
                                     const T* __restrict w, const T* __restrict g, T* __restrict dx, int64_t dx_stride, T* __restrict dq) {
  for (int64_t r = 0; r < rows; ++r, x += x_stride, d += 2 * n, dx += dx_stride) {
    const T weight = w[r];
    for (int64_t i = 0; i < n; ++i) dx[i] = d[i] + d[n + i] * q[i] + weight * g[i];
    for (int64_t i = 0; i < n; ++i) dq[i] += d[n + i] * x[i];
  }
}

EKTM_BODY void weighted_sum_body(int64_t rows, int64_t n, const T* __restrict w, const T* __restrict x, int64_t x_stride, T* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = 0;
  for (int64_t r = 0; r < rows; ++r, x += x_stride) {
    const T weight = w[r];
    for (int64_t i = 0; i < n; ++i) out[i] += weight * x[i];
  }
}

}  // namespace

#define EKTM_DEFINE_KERNELS(T)                                                                                                            \
  EKTM_CLONES void finish_linear(int64_t rows, int64_t n, int64_t stride, int64_t first_row, int64_t first_column, const T* bias,         \
                                 bool relu, const Dropout& dropout, T* y) {                                                               \
    finish_linear_body<T>(rows, n, stride, first_row, first_column, bias, relu, dropout, y);                                              \
  }                                                                                                                                       \
  EKTM_CLONES void finish_linear_grad(int64_t rows, int64_t count, int64_t n, bool relu, float scale, const T* y, Rows<const T> grad,     \
                                      T* out, T* bias_grad) {                                                                             \
    finish_linear_grad_body<T>(rows, count, n, relu, scale, y, grad, out, bias_grad);                                                     \
  }                                                                                                                                       \
  EKTM_CLONES void column_sums(int64_t rows, int64_t n, const T* x, int64_t stride, T* sums) {                                            \
    column_sums_body<T>(rows, n, x, stride, sums);                                                                                        \
  }                                                                                                                                       \
  EKTM_CLONES void drop(int64_t rows, int64_t n, int64_t first_row, const Dropout& dropout, const T* x, T* y) {                           \
    drop_body<T>(rows, n, first_row, dropout, x, y);                                                                                      \
  }                                                                                                                                       \
  EKTM_CLONES void softmax(int64_t rows, int64_t n, T* x) { softmax_body<T>(rows, n, x); }                                                \
  EKTM_CLONES void softmax_grad(int64_t rows, int64_t n, const T* y, T* d) { softmax_grad_body<T>(rows, n, y, d); }                       \
  EKTM_CLONES void sigmoid(int64_t n, T* x) { sigmoid_body<T>(n, x); }                                                                    \
  EKTM_CLONES void mix(int64_t rows, int64_t count, int64_t n, int64_t width, const T* gates, const T* const* inputs,                     \
                       const int64_t* strides, const int32_t* index, const T* add, int64_t add_stride, T scale, T* out) {                 \
    mix_body<T>(rows, count, n, width, gates, inputs, strides, index, add, add_stride, scale, out);                                       \
  }                                                                                                                                       \
  EKTM_CLONES void mix_grad(int64_t rows, int64_t count, int64_t n, int64_t width, const T* gates, const T* const* inputs,                \
                            const int64_t* strides, const int32_t* index, Rows<const T> grad, T scale, const uint8_t* mask,               \
                            T* gate_grad, T* const* input_grads, const int64_t* grad_strides) {                                           \
    mix_grad_body<T>(rows, count, n, width, gates, inputs, strides, index, grad, scale, mask, gate_grad, input_grads, grad_strides);      \
  }                                                                                                                                       \
  EKTM_CLONES void dots(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* w, T bias, T* out) {                              \
    dots_body<T>(rows, n, x, x_stride, w, bias, out);                                                                                     \
  }                                                                                                                                       \
  EKTM_CLONES void dots_grad(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* w, const T* g, T* dx, int64_t dx_stride,     \
                             T* dw, T* db) {                                                                                              \
    dots_grad_body<T>(rows, n, x, x_stride, w, g, dx, dx_stride, dw, db);                                                                 \
  }                                                                                                                                       \
  EKTM_CLONES void gated_dots(int64_t rows, int64_t n, T* s, int64_t s_stride, const T* m, int64_t m_stride, const T* w, T* out) {         \
    gated_dots_body<T>(rows, n, s, s_stride, m, m_stride, w, out);                                                                        \
  }                                                                                                                                       \
  EKTM_CLONES void gated_dots_grad(int64_t rows, int64_t n, const T* s, int64_t s_stride, const T* m, int64_t m_stride, const T* w,       \
                                   const T* g, T* dgate, int64_t dgate_stride, T* dm, int64_t dm_stride, T* dw) {                         \
    gated_dots_grad_body<T>(rows, n, s, s_stride, m, m_stride, w, g, dgate, dgate_stride, dm, dm_stride, dw);                             \
  }                                                                                                                                       \
  EKTM_CLONES void relu_grad(int64_t rows, int64_t n, const T* y, int64_t y_stride, T scale, T* d, int64_t d_stride, T* dbias) {          \
    relu_grad_body<T>(rows, n, y, y_stride, scale, d, d_stride, dbias);                                                                   \
  }                                                                                                                                       \
  EKTM_CLONES void scores(int64_t rows, int64_t count, int64_t n, const T* q, const T* k, int64_t stride, T scale, T* scores) {           \
    scores_body<T>(rows, count, n, q, k, stride, scale, scores);                                                                          \
  }                                                                                                                                       \
  EKTM_CLONES void scores_grad(int64_t rows, int64_t count, int64_t n, const T* d, const T* q, const T* k, int64_t stride, T scale,       \
                               const uint8_t* mask, T* dq, T* dk, T* dk_part, int64_t grad_stride) {                                      \
    scores_grad_body<T>(rows, count, n, d, q, k, stride, scale, mask, dq, dk, dk_part, grad_stride);                                      \
  }                                                                                                                                       \
  EKTM_CLONES void pair_inputs(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* q, T* out) {                               \
    pair_inputs_body<T>(rows, n, x, x_stride, q, out);                                                                                    \
  }                                                                                                                                       \
  EKTM_CLONES void pair_inputs_grad(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* q, const T* d, const T* w,            \
                                    const T* g, T* dx, int64_t dx_stride, T* dq) {                                                        \
    pair_inputs_grad_body<T>(rows, n, x, x_stride, q, d, w, g, dx, dx_stride, dq);                                                        \
  }                                                                                                                                       \
  EKTM_CLONES void weighted_sum(int64_t rows, int64_t n, const T* w, const T* x, int64_t x_stride, T* out) {                              \
    weighted_sum_body<T>(rows, n, w, x, x_stride, out);                                                                                   \
  }

EKTM_DEFINE_KERNELS(float)
EKTM_DEFINE_KERNELS(double)

}  // namespace ektm::kernels
