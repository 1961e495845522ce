#pragma once
// Matrix products with bfloat16 factors by AVX512-BF16, for CPUs whose BLAS does not use it.
#include <cstdint>

namespace ektm::kernels {

// Whether this CPU has the instructions that bf16_product needs.
bool has_bf16_product();

// C [m,n] = A [m,k] B [k,n] + beta C, the factors rounded to bfloat16 (nearest even), sums in float32. Strides and transposition as in
// gemm(). On the calling thread; the same bits for the same arguments, wherever they lie. Only where has_bf16_product().
void bf16_product(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                  float beta, float* c, int64_t ldc);

}  // namespace ektm::kernels
