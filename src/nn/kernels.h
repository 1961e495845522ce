#pragma once
// Inner loops, compiled for several instruction sets; the best is chosen when the program starts. Those for activations exist in
// double as well, which serves tests by finite differences.
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

// To the nearest bfloat16, ties to even; NaN stays NaN.
void round_to_bf16(int64_t n, const float* x, float* y);

// Which numbers of a [rows,n] activation are dropped: a hash of (seed, row, column), so backward needs no mask in memory.
struct Dropout {
  uint32_t seed = 0;
  uint32_t drop_below = 0;  // of 2^24; 0: none
  float scale = 1;          // 2^24 / (2^24 - drop_below)
};

// E maps side by side: a row of `n` numbers for each, `count` of them, at x + row * row_stride + e * stride.
template <class T>
struct Rows {
  T* data;
  int64_t row_stride, stride;
  T* at(int64_t row, int64_t e) const { return data + row * row_stride + e * stride; }
};

#define EKTM_DECLARE_KERNELS(T)                                                                                                    \
  /* y [rows,n], rows `stride` apart: y = dropout(act(y + bias)); bias [n] may be null. Of what dropout counts, y begins at row */ \
  /* first_row and column first_column. */                                                                                         \
  void finish_linear(int64_t rows, int64_t n, int64_t stride, int64_t first_row, int64_t first_column, const T* bias, bool relu,   \
                     const Dropout& dropout, T* y);                                                                                \
  /* out [rows,count*n] contiguous: grad where the result y of finish_linear(relu) is positive, times scale; without relu grad */  \
  /* itself. bias_grad [count*n], may be null: += sum over the rows. */                                                            \
  void finish_linear_grad(int64_t rows, int64_t count, int64_t n, bool relu, float scale, const T* y, Rows<const T> grad, T* out,  \
                          T* bias_grad);                                                                                           \
  /* sums [n] += over the rows of x [rows,n], rows `stride` apart. */                                                              \
  void column_sums(int64_t rows, int64_t n, const T* x, int64_t stride, T* sums);                                                  \
  /* x = keep ? x * scale : 0 */                                                                                                   \
  void drop(int64_t rows, int64_t n, int64_t first_row, const Dropout& dropout, const T* x, T* y);                                 \
  /* Softmax of each row in place, and its gradient: d = y * (d - sum y d). [rows,n] contiguous. */                                \
  void softmax(int64_t rows, int64_t n, T* x);                                                                                     \
  void softmax_grad(int64_t rows, int64_t n, const T* y, T* d);                                                                    \
  void sigmoid(int64_t n, T* x);                                                                                                   \
  /* out[r,k,:] = scale * (add[r,:] + sum_j gates[r,k,j] * inputs[index[k*n+j]][r,:]). gates [rows,count,n], out [rows,count,width]*/\
  /* contiguous; inputs: one [rows,width] each at its row stride; add may be null. */                                              \
  void mix(int64_t rows, int64_t count, int64_t n, int64_t width, const T* gates, const T* const* inputs, const int64_t* strides,  \
           const int32_t* index, const T* add, int64_t add_stride, T scale, T* out);                                               \
  /* Gradients of mix. gate_grad [rows,count,n] =, input_grads[e] [rows,width] += (where mask[k*n+j], if given). */                \
  void mix_grad(int64_t rows, int64_t count, int64_t n, int64_t width, const T* gates, const T* const* inputs,                     \
                const int64_t* strides, const int32_t* index, Rows<const T> grad, T scale, const uint8_t* mask, T* gate_grad,      \
                T* const* input_grads, const int64_t* grad_strides);                                                               \
  /* out[r] = x_r . w + bias; x [rows,n] at x_stride. */                                                                           \
  void dots(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* w, T bias, T* out);                                    \
  /* dx_r = g_r w, dw += sum g_r x_r, db += sum g_r. */                                                                            \
  void dots_grad(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* w, const T* g, T* dx, int64_t dx_stride, T* dw,   \
                 T* db);                                                                                                           \
  /* s = sigmoid(s), out[r] = sum_i w_i s_i m_i. All [rows,n] at their strides. */                                                 \
  void gated_dots(int64_t rows, int64_t n, T* s, int64_t s_stride, const T* m, int64_t m_stride, const T* w, T* out);              \
  void gated_dots_grad(int64_t rows, int64_t n, const T* s, int64_t s_stride, const T* m, int64_t m_stride, const T* w,            \
                       const T* g, T* dgate, int64_t dgate_stride, T* dm, int64_t dm_stride, T* dw);                               \
  /* In place: d = where finish_linear's result y is positive d * scale, else 0; dbias [n] += sum over the rows. */                \
  void relu_grad(int64_t rows, int64_t n, const T* y, int64_t y_stride, T scale, T* d, int64_t d_stride, T* dbias);                \
  /* scores[r,i,j] = scale * q_ri . k_rj. q, k: [rows * count,n], rows `stride` apart; scores [rows,count,count]. */               \
  void scores(int64_t rows, int64_t count, int64_t n, const T* q, const T* k, int64_t stride, T scale, T* scores);                 \
  /* From d [rows,count,count]: dq_i = scale sum_j d_ij k_j, dk_j = scale sum_i d_ij q_i over all pairs, dk_part over those with */ \
  /* mask[i*count+j]. Like q and k, but grad_stride apart. */                                                                      \
  void scores_grad(int64_t rows, int64_t count, int64_t n, const T* d, const T* q, const T* k, int64_t stride, T scale,            \
                   const uint8_t* mask, T* dq, T* dk, T* dk_part, int64_t grad_stride);                                              \
  /* Of one query q [n] and x [rows,n], rows x_stride apart. out [rows,2n] contiguous: x_r and x_r * q. */                         \
  void pair_inputs(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* q, T* out);                                     \
  /* From d [rows,2n], the gradient of that: dx_r = d_r's first half + d_r's second half * q + w_r g, dq += sum of the second */   \
  /* halves * x_r. g [n], w [rows]. */                                                                                             \
  void pair_inputs_grad(int64_t rows, int64_t n, const T* x, int64_t x_stride, const T* q, const T* d, const T* w, const T* g,     \
                        T* dx, int64_t dx_stride, T* dq);                                                                          \
  /* out [n] = sum_r w_r x_r */                                                                                                    \
  void weighted_sum(int64_t rows, int64_t n, const T* w, const T* x, int64_t x_stride, T* out);

EKTM_DECLARE_KERNELS(float)
EKTM_DECLARE_KERNELS(double)
#undef EKTM_DECLARE_KERNELS

}  // namespace ektm::kernels
