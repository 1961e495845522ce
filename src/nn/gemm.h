#pragma once
// Matrix products on row-major memory with strides: by the BLAS that libtorch carries, or in bfloat16 (see Precision).
#include <cstdint>
#include <vector>

namespace ektm {

// What the factors of float32 products are rounded to before they are multiplied. Sums are float32 in any case; products in double stay
// as they are. Bf16: bfloat16, 8 significant bits, to nearest even. With AMX by BLAS, with AVX512-BF16 by bf16_product.h (about twice
// as fast as F32); elsewhere the rounded factors go through the float32 product: the same result but for the order of sums, and
// slower than F32.
enum class Precision { F32, Bf16 };

// Whether this machine multiplies bfloat16 by instructions of its own, and with the same result as the rounded factors, at least
// 1.3 times as fast as float32 in a short measurement (some milliseconds, at the first call).
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

// The right factor of a product; `half` is the same in bfloat16, or null.
template <class T>
struct Factor {
  const T* data;
  const uint16_t* half = nullptr;
  Factor(const T* data_in, const uint16_t* half_in = nullptr) : data(data_in), half(half_in) {}
  Factor operator+(int64_t numbers) const { return {data + numbers, half ? half + numbers : nullptr}; }
};

// A factor of several products, such as a weight for blocks of rows: rounded once, on all threads.
template <class T>
class SharedFactor {
 public:
  SharedFactor(const T* data, int64_t size);
  SharedFactor(const SharedFactor&) = delete;
  SharedFactor& operator=(const SharedFactor&) = delete;
  operator Factor<T>() const { return factor_; }

 private:
  Factor<T> factor_;
  std::vector<uint16_t> half_;
};

// C [m,n] = A [m,k] B [k,n] + beta C. Rows lie lda, ldb, ldc numbers apart; with a_transposed, A is stored as [k,m], likewise B.
// On the calling thread (see nn/threading.h).
void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, Factor<float> b, int64_t ldb,
          float beta, float* c, int64_t ldc);
void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, Factor<double> b, int64_t ldb,
          double beta, double* c, int64_t ldc);

namespace detail {
// How products with bfloat16 factors are made: by BLAS, by bf16_product.h, or by the float32 product. For tests; the CPU decides otherwise.
enum class Bf16Way { Blas, Kernel, Rounded };
bool has_way(Bf16Way way);
void set_bf16_way(Bf16Way way);
}  // namespace detail

}  // namespace ektm
