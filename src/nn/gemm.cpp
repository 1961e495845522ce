#include "nn/gemm.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "nn/bf16_product.h"
#include "nn/kernels.h"

extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*, const float*, const int*, const float*,
            float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*, const int*, const double*, const int*,
            const double*, double*, const int*);
}

namespace ektm {
namespace {

// BLAS is column-major: C^T [n,m] = B^T A^T, on the same memory.
template <class Product, class In, class Out>
void product(Product gemm, bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const In* a, int64_t lda, const In* b, int64_t ldb,
             Out beta, Out* c, int64_t ldc) {
  const char left = b_transposed ? 'T' : 'N', right = a_transposed ? 'T' : 'N';
  const int rows = static_cast<int>(n), columns = static_cast<int>(m), inner = static_cast<int>(k);
  const int left_stride = static_cast<int>(ldb), right_stride = static_cast<int>(lda), result_stride = static_cast<int>(ldc);
  const Out one = 1;
  gemm(&left, &right, &rows, &columns, &inner, &one, b, &left_stride, a, &right_stride, &beta, c, &result_stride);
}

using detail::Bf16Way;

Bf16Way best_way() {
  static const Bf16Way best = detail::has_way(Bf16Way::Amx) ? Bf16Way::Amx : detail::has_way(Bf16Way::Vectors) ? Bf16Way::Vectors : Bf16Way::Rounded;
  return best;
}

std::atomic<Precision> precision{Precision::F32};
std::atomic<Bf16Way>& way() {
  static std::atomic<Bf16Way> instance{best_way()};
  return instance;
}

// Where `size` numbers in `room` begin at a multiple of 64 bytes: BLAS promises the same bits for the same alignment only.
template <class T>
T* aligned(std::vector<T>& room, int64_t size) {
  room.resize(std::max(room.size(), static_cast<size_t>(size) + 64 / sizeof(T)));
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(room.data()) + 63) / 64 * 64);
}

// A [rows,columns] matrix without gaps, each number rounded, in memory that its thread keeps.
const float* rounded(std::vector<float>& room, const float* from, int64_t rows, int64_t columns, int64_t stride) {
  float* to = aligned(room, rows * columns);
  for (int64_t r = 0; r < rows; ++r) kernels::round_to_bf16(columns, from + r * stride, to + r * columns);
  return to;
}

void bf16_product(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                  float beta, float* c, int64_t ldc) {
  if (const Bf16Way chosen = way(); chosen != Bf16Way::Rounded) {
    const auto unit = chosen == Bf16Way::Amx ? kernels::Bf16Unit::Amx : kernels::Bf16Unit::Vectors;
    return kernels::bf16_product(unit, a_transposed, b_transposed, m, n, k, a, lda, b, ldb, beta, c, ldc);
  }
  const int64_t a_rows = a_transposed ? k : m, a_columns = a_transposed ? m : k, b_rows = b_transposed ? n : k, b_columns = b_transposed ? k : n;
  thread_local std::vector<float> left, right;
  const float *a_rounded = rounded(left, a, a_rows, a_columns, lda), *b_rounded = rounded(right, b, b_rows, b_columns, ldb);
  product(sgemm_, a_transposed, b_transposed, m, n, k, a_rounded, a_columns, b_rounded, b_columns, beta, c, ldc);
}

}  // namespace

PrecisionScope::PrecisionScope(Precision wanted) : before_(precision.exchange(wanted)) {}
PrecisionScope::~PrecisionScope() { precision = before_; }

bool detail::has_way(Bf16Way wanted) {
  return wanted == Bf16Way::Rounded || kernels::has_bf16_product(wanted == Bf16Way::Amx ? kernels::Bf16Unit::Amx : kernels::Bf16Unit::Vectors);
}
void detail::set_bf16_way(Bf16Way wanted) { way() = wanted; }

bool bf16_pays() {
#if defined(__x86_64__)
  return best_way() == Bf16Way::Amx || (best_way() == Bf16Way::Vectors && __builtin_cpu_is("amd"));
#else
  return false;
#endif
}

void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (precision == Precision::Bf16)
    bf16_product(a_transposed, b_transposed, m, n, k, a, lda, b, ldb, beta, c, ldc);
  else
    product(sgemm_, a_transposed, b_transposed, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  product(dgemm_, a_transposed, b_transposed, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace ektm
