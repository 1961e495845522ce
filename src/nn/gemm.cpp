#include "nn/gemm.h"

extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*, const float*, const int*, const float*,
            float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*, const int*, const double*, const int*,
            const double*, double*, const int*);
}

namespace ektm {
namespace {

// BLAS is column-major: C^T [n,m] = B^T A^T, on the same memory.
template <class T, class Product>
void product(Product gemm, bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb,
             T beta, T* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  const char left = b_transposed ? 'T' : 'N', right = a_transposed ? 'T' : 'N';
  const int rows = static_cast<int>(n), columns = static_cast<int>(m), inner = static_cast<int>(k);
  const int left_stride = static_cast<int>(ldb), right_stride = static_cast<int>(lda), result_stride = static_cast<int>(ldc);
  const T one = 1;
  gemm(&left, &right, &rows, &columns, &inner, &one, b, &left_stride, a, &right_stride, &beta, c, &result_stride);
}

}  // namespace

void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc) {
  product(sgemm_, a_transposed, b_transposed, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc) {
  product(dgemm_, a_transposed, b_transposed, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace ektm
