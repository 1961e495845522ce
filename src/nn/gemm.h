#pragma once
// Matrix products on row-major memory with strides, by the BLAS that libtorch carries.
#include <cstdint>

namespace ektm {

// C [m,n] = A [m,k] B [k,n] + beta C. Rows lie lda, ldb, ldc numbers apart; with a_transposed, A is stored as [k,m], likewise B.
// On the calling thread (see nn/threading.h).
void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc);
void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc);

}  // namespace ektm
