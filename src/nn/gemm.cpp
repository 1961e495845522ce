#include "nn/gemm.h"

#include <ATen/cpu/Utils.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/threads.h"
#include "nn/bf16_product.h"
#include "nn/kernels.h"

extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*, const float*, const int*, const float*,
            float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*, const int*, const double*, const int*,
            const double*, double*, const int*);
#ifdef EKTM_BLAS_HAS_BF16
void gemm_bf16bf16f32_(const char*, const char*, const int*, const int*, const int*, const float*, const uint16_t*, const int*, const uint16_t*,
                       const int*, const float*, float*, const int*);
#endif
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

// AMX-BF16, and the operating system lets us use it.
bool has_amx() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && at::cpu::init_amx();
#else
  return false;
#endif
}

using detail::Bf16Way;

// The fastest way of this machine. MKL multiplies by AMX; AVX512-BF16 it leaves unused on CPUs that are not Intel's.
Bf16Way best_way() {
  static const Bf16Way best = has_amx() && detail::has_way(Bf16Way::Blas) ? Bf16Way::Blas : detail::has_way(Bf16Way::Kernel) ? Bf16Way::Kernel : Bf16Way::Rounded;
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

// A [rows,columns] matrix without gaps, each number converted, in memory that its thread keeps.
template <class T, class Convert>
const T* converted(std::vector<T>& room, const float* from, int64_t rows, int64_t columns, int64_t stride, Convert convert) {
  T* to = aligned(room, rows * columns);
  for (int64_t r = 0; r < rows; ++r) convert(columns, from + r * stride, to + r * columns);
  return to;
}

void bf16_product(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, Factor<float> b, int64_t ldb,
                  float beta, float* c, int64_t ldc) {
  if (way() == Bf16Way::Kernel) return kernels::bf16_product(a_transposed, b_transposed, m, n, k, a, lda, b.data, ldb, beta, c, ldc);
  const int64_t a_rows = a_transposed ? k : m, a_columns = a_transposed ? m : k, b_rows = b_transposed ? n : k, b_columns = b_transposed ? k : n;
#ifdef EKTM_BLAS_HAS_BF16
  if (way() == Bf16Way::Blas) {
    thread_local std::vector<uint16_t> left, right;
    const uint16_t* a_half = converted(left, a, a_rows, a_columns, lda, kernels::to_bf16);
    const uint16_t* b_half = b.half;
    if (!b_half) b_half = converted(right, b.data, b_rows, b_columns, ldb, kernels::to_bf16), ldb = b_columns;
    product(gemm_bf16bf16f32_, a_transposed, b_transposed, m, n, k, a_half, a_columns, b_half, ldb, beta, c, ldc);
    return;
  }
#endif
  thread_local std::vector<float> left, right;
  const float* a_rounded = converted(left, a, a_rows, a_columns, lda, kernels::round_to_bf16);
  const float* b_rounded = converted(right, b.data, b_rows, b_columns, ldb, kernels::round_to_bf16);
  product(sgemm_, a_transposed, b_transposed, m, n, k, a_rounded, a_columns, b_rounded, b_columns, beta, c, ldc);
}

}  // namespace

PrecisionScope::PrecisionScope(Precision wanted) : before_(precision.exchange(wanted)) {}
PrecisionScope::~PrecisionScope() { precision = before_; }

bool detail::has_way(Bf16Way wanted) {
#ifdef EKTM_BLAS_HAS_BF16
  if (wanted == Bf16Way::Blas) return true;
#endif
  return wanted == Bf16Way::Rounded || (wanted == Bf16Way::Kernel && kernels::has_bf16_product());
}
void detail::set_bf16_way(Bf16Way wanted) { way() = wanted; }

bool bf16_pays() {
  static const bool pays = [] {
    if (best_way() == Bf16Way::Rounded) return false;
    // The first layer of experts, a block of rows.
    const int64_t m = 512, k = 368, n = 512;
    std::vector<float> a(m * k), b(k * n), c(m * n), expected(m * n);
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 37) / 37 - 0.5f;
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 41) / 41 - 0.5f;
    way() = Bf16Way::Rounded;
    {
      const PrecisionScope scope(Precision::Bf16);
      gemm(false, false, m, n, k, a.data(), k, Factor<float>(b.data()), n, 0.f, expected.data(), n);
    }
    way() = best_way();
    auto best = [&](Precision wanted) {
      const PrecisionScope scope(wanted);
      const SharedFactor<float> factor(b.data(), k * n);
      double least = 1e9;
      for (int i = 0; i < 5; ++i) {
        const auto start = std::chrono::steady_clock::now();
        gemm(false, false, m, n, k, a.data(), k, factor, n, 0.f, c.data(), n);
        least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
      return least;
    };
    const double plain = best(Precision::F32), rounded = best(Precision::Bf16);
    // Two ways to one result: one that disagrees is not used.
    float apart = 0;
    for (size_t i = 0; i < c.size(); ++i) apart = std::max(apart, std::abs(c[i] - expected[i]));
    return apart < 1e-3f && 1.3 * rounded < plain;
  }();
  return pays;
}

template <class T>
SharedFactor<T>::SharedFactor(const T* data, int64_t size) : factor_(data) {
  if constexpr (std::is_same_v<T, float>) {
    if (precision != Precision::Bf16 || way() != Bf16Way::Blas) return;
    uint16_t* half = aligned(half_, size);
    parallel_for(0, size, 1 << 15, [&](int64_t begin, int64_t end) { kernels::to_bf16(end - begin, data + begin, half + begin); });
    factor_.half = half;
  }
}
template class SharedFactor<float>;
template class SharedFactor<double>;

void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, Factor<float> b, int64_t ldb,
          float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (precision == Precision::Bf16)
    bf16_product(a_transposed, b_transposed, m, n, k, a, lda, b, ldb, beta, c, ldc);
  else
    product(sgemm_, a_transposed, b_transposed, m, n, k, a, lda, b.data, ldb, beta, c, ldc);
}

void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, Factor<double> b, int64_t ldb,
          double beta, double* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  product(dgemm_, a_transposed, b_transposed, m, n, k, a, lda, b.data, ldb, beta, c, ldc);
}

}  // namespace ektm
