#pragma once
// Matrix products with bfloat16 factors by the instructions that CPUs have for them. MKL's are no faster than its float32 ones on AMD's CPUs
// (docs/performance.md).
#include <cstdint>

namespace ektm::kernels {

enum class Bf16Unit { Amx, Vectors };  // AMX-BF16; AVX512-BF16

// Whether CPU and operating system let this process use it.
bool has_bf16_product(Bf16Unit unit);

// C [m,n] = A [m,k] B [k,n] + beta C, the factors rounded to bfloat16 (nearest even), sums in float32. Strides and transposition as in
// gemm(). On the calling thread; the same bits for the same arguments, wherever they lie. Only where has_bf16_product(unit).
void bf16_product(Bf16Unit unit, bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                  int64_t ldb, float beta, float* c, int64_t ldc);

}  // namespace ektm::kernels
