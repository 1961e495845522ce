#include "nn/gemm.h"

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

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
template <class Product, class T>
void product(Product gemm, bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb,
             T beta, T* c, int64_t ldc) {
  const char left = b_transposed ? 'T' : 'N', right = a_transposed ? 'T' : 'N';
  const int rows = static_cast<int>(n), columns = static_cast<int>(m), inner = static_cast<int>(k);
  const int left_stride = static_cast<int>(ldb), right_stride = static_cast<int>(lda), result_stride = static_cast<int>(ldc);
  const T one = 1;
  gemm(&left, &right, &rows, &columns, &inner, &one, b, &left_stride, a, &right_stride, &beta, c, &result_stride);
}

using kernels::Bf16Unit;

std::optional<Bf16Unit> best_unit() {
  for (const Bf16Unit unit : {Bf16Unit::Amx, Bf16Unit::Vectors})
    if (kernels::has_bf16_product(unit)) return unit;
  return {};
}

std::atomic<Precision> precision{Precision::F32};
std::atomic<std::optional<Bf16Unit>>& bf16_unit() {
  static std::atomic<std::optional<Bf16Unit>> instance{best_unit()};
  return instance;
}

// A [rows,columns] matrix without gaps, each number rounded, in memory that its thread keeps. It begins at a multiple of 64 bytes: BLAS
// promises the same bits for the same alignment only.
const float* rounded(std::vector<float>& room, const float* from, int64_t rows, int64_t columns, int64_t stride) {
  room.resize(std::max(room.size(), static_cast<size_t>(rows * columns) + 64 / sizeof(float)));
  float* to = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(room.data()) + 63) / 64 * 64);
  for (int64_t r = 0; r < rows; ++r) kernels::round_to_bf16(columns, from + r * stride, to + r * columns);
  return to;
}

void bf16_product(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                  float beta, float* c, int64_t ldc) {
  if (const auto unit = bf16_unit().load()) return kernels::bf16_product(*unit, a_transposed, b_transposed, m, n, k, a, lda, b, ldb, beta, c, ldc);
  const int64_t a_rows = a_transposed ? k : m, a_columns = a_transposed ? m : k, b_rows = b_transposed ? n : k, b_columns = b_transposed ? k : n;
  thread_local std::vector<float> left, right;
  const float *a_rounded = rounded(left, a, a_rows, a_columns, lda), *b_rounded = rounded(right, b, b_rows, b_columns, ldb);
  product(sgemm_, a_transposed, b_transposed, m, n, k, a_rounded, a_columns, b_rounded, b_columns, beta, c, ldc);
}

}  // namespace

PrecisionScope::PrecisionScope(Precision wanted) : before_(precision.exchange(wanted)) {}
PrecisionScope::~PrecisionScope() { precision = before_; }

std::optional<Bf16Unit> detail::set_bf16_unit(std::optional<Bf16Unit> unit) { return bf16_unit().exchange(unit); }

bool bf16_pays() {
#if defined(__x86_64__)
  const auto unit = best_unit();
  return unit == Bf16Unit::Amx || (unit == Bf16Unit::Vectors && __builtin_cpu_is("amd"));
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

template <class T>
RightFactor<T>::RightFactor(bool transposed, int64_t n, int64_t k, const T* b, int64_t ldb) : transposed_(transposed), n_(n), k_(k), b_(b), ldb_(ldb) {
  if constexpr (std::is_same_v<T, float>)
    if (const auto unit = bf16_unit().load(); unit && precision == Precision::Bf16) packed_.emplace(*unit, transposed, n, k, b, ldb);
}

template <class T>
void RightFactor<T>::multiply(int64_t m, const T* a, int64_t lda, T beta, T* c, int64_t ldc) const {
  if (m == 0 || n_ == 0) return;
  if constexpr (std::is_same_v<T, float>)
    if (packed_) return packed_->multiply(m, a, lda, beta, c, ldc);
  gemm(false, transposed_, m, n_, k_, a, lda, b_, ldb_, beta, c, ldc);
}

template class RightFactor<float>;
template class RightFactor<double>;

}  // namespace ektm
