#pragma once
// Matrix products with bfloat16 factors by the instructions that CPUs have for them. MKL's are no faster than its float32 ones on AMD's CPUs
// (docs/performance.md).
#include <cstdint>
#include <memory>

namespace ektm::kernels {

enum class Bf16Unit { Amx, Vectors };  // AMX-BF16; AVX512-BF16

// Whether CPU and operating system let this process use it.
bool has_bf16_product(Bf16Unit unit);

// C [m,n] = A [m,k] B [k,n] + beta C, the factors rounded to bfloat16 (nearest even), sums in float32. Strides and transposition as in
// gemm(). On the calling thread; the same bits for the same arguments, wherever they lie. Only where has_bf16_product(unit).
void bf16_product(Bf16Unit unit, bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                  int64_t ldb, float beta, float* c, int64_t ldc);

// B [k,n] for many products, rounded and laid out once; threads may share it.
class Bf16Right {
 public:
  Bf16Right(Bf16Unit unit, bool transposed, int64_t n, int64_t k, const float* b, int64_t ldb);
  // As bf16_product(), with the same bits.
  void multiply(int64_t m, const float* a, int64_t lda, float beta, float* c, int64_t ldc) const;

 private:
  struct Free {
    void operator()(uint32_t* memory) const;
  };
  Bf16Unit unit_;
  int64_t n_, k_;
  std::unique_ptr<uint32_t[], Free> packed_;  // blocks of the inner dimension, of each all panels
};

}  // namespace ektm::kernels
