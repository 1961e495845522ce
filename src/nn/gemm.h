#pragma once
// Matrix products on row-major memory with strides: by the BLAS that libtorch carries, or in bfloat16 (see Precision).
#include <cstdint>
#include <optional>

#include "nn/bf16_product.h"

namespace ektm {

// What the factors of float32 products are rounded to before they are multiplied. Sums are float32 in any case; products in double stay
// as they are. Bf16: bfloat16, 8 significant bits, to nearest even. By bf16_product.h where the CPU has AMX-BF16 (several times as fast as
// F32) or AVX512-BF16 (on AMD's twice as fast); elsewhere the rounded factors go through the float32 product: the same result but for the
// order of sums, and slower than F32.
enum class Precision { F32, Bf16 };

// Whether Bf16 is faster than F32 here: AMX-BF16, or AVX512-BF16 on a CPU of AMD. A rule, not a measurement, so that every run on a machine
// takes the same way.
bool bf16_pays();

// Sets the precision of products in the whole process while it lives.
class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  Precision before_;
};

// C [m,n] = A [m,k] B [k,n] + beta C. Rows lie lda, ldb, ldc numbers apart; with a_transposed, A is stored as [k,m], likewise B.
// On the calling thread (see nn/threading.h).
void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc);
void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc);

// B [k,n] of many products C = A B + beta C, as gemm() makes them with the same bits. In bfloat16 it is rounded and laid out once, here;
// else, and where the CPU has no such instructions, B is read again by each product and has to outlive it. Threads may share it.
template <class T>
class RightFactor {
 public:
  RightFactor(bool transposed, int64_t n, int64_t k, const T* b, int64_t ldb);
  void multiply(int64_t m, const T* a, int64_t lda, T beta, T* c, int64_t ldc) const;

 private:
  bool transposed_;
  int64_t n_, k_;
  const T* b_;
  int64_t ldb_;
  std::optional<kernels::Bf16Right> packed_;
};

namespace detail {
// By what products with bfloat16 factors are made; nullopt: the float32 product of the rounded factors. Returns what it was. For tests; the
// CPU decides otherwise.
std::optional<kernels::Bf16Unit> set_bf16_unit(std::optional<kernels::Bf16Unit> unit);
}  // namespace detail

}  // namespace ektm
