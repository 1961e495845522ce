#include "nn/bf16_product.h"

#include <algorithm>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define EKTM_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#endif

namespace ektm::kernels {

#if defined(__x86_64__)

namespace {

// The blocked product of Goto and van de Geijn (ACM TOMS 34, 2008). A tile of C stays in registers; the factors are packed in the order in
// which tiles read them: a panel holds, for each pair of numbers along k, that pair of each of its lanes (rows of A, columns of B), in 32 bits.
constexpr int64_t kTileRows = 12, kTileColumns = 32;  // 24 registers of 16 sums
// Blocks that are packed at a time: numbers along k, rows of A, columns of B; 288 and 512 KB, for the second cache.
constexpr int64_t kInner = 512, kRows = 24 * kTileRows, kColumns = 16 * kTileColumns;
constexpr int64_t kLanes = 16;  // of 32 bits, in a register

EKTM_BF16 inline __mmask16 first_lanes(int64_t count) {
  return count >= kLanes ? __mmask16(0xffff) : count <= 0 ? __mmask16(0) : static_cast<__mmask16>((1u << count) - 1);
}

// r[i] lane j <-> r[j] lane i.
EKTM_BF16 inline void transpose(__m512i (&r)[kLanes]) {
  __m512i t[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Where up to 16 lanes of a panel go. `room`: lanes that the panel has from `to` on; `width`: all its lanes.
struct Panel {
  uint32_t* to;
  int64_t width, room;
};

// `lanes` lanes whose numbers along k lie side by side, lanes `stride` apart. Lanes without numbers are zeros.
EKTM_BF16 void pack_along(const float* from, int64_t stride, int64_t lanes, int64_t k, const Panel& panel) {
  const __mmask16 keep = first_lanes(panel.room);
  for (int64_t first = 0; first < k; first += 2 * kLanes, from += 2 * kLanes) {
    const __mmask16 low = first_lanes(k - first), high = first_lanes(k - first - kLanes);
    __m512i r[kLanes];
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) {
      r[i] = _mm512_setzero_si512();
      if (i < lanes) {
        const float* lane = from + i * stride;
        r[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, lane + kLanes), _mm512_maskz_loadu_ps(low, lane));
      }
    }
    transpose(r);
    const int64_t pairs = (k - first + 1) / 2;
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i)
      if (i < pairs) _mm512_mask_storeu_epi32(panel.to + (first / 2 + i) * panel.width, keep, r[i]);
  }
}

// The same where the lanes lie side by side, and numbers along k `stride` apart.
EKTM_BF16 void pack_across(const float* from, int64_t stride, int64_t lanes, int64_t k, const Panel& panel) {
  const __mmask16 keep = first_lanes(panel.room), even = first_lanes(lanes);
  for (int64_t i = 0; i < k; i += 2, from += 2 * stride) {
    const __mmask16 odd = i + 1 < k ? even : __mmask16(0);
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(even, from)));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(odd, from + stride)));
    _mm512_mask_storeu_epi32(panel.to + i / 2 * panel.width, keep, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

// `lanes` lanes in panels of `width`. `along`: they lie as pack_along reads them.
EKTM_BF16 void pack(bool along, const float* from, int64_t stride, int64_t lanes, int64_t k, uint32_t* to, int64_t width) {
  const int64_t pairs = (k + 1) / 2;
  for (int64_t first = 0; first < lanes; first += width, to += pairs * width)
    for (int64_t part = 0; part < width; part += kLanes) {
      const int64_t lane = first + part, count = std::min(kLanes, std::min(first + width, lanes) - lane);
      const Panel panel{to + part, width, width - part};
      if (along)
        pack_along(from + lane * stride, stride, count, k, panel);
      else
        pack_across(from + lane, stride, count, k, panel);
    }
}

// rows x columns (at most 12 x 32) of C from a panel of A and one of B.
EKTM_BF16 void tile(int64_t pairs, const uint32_t* a, const uint32_t* b, float beta, float* c, int64_t ldc, int64_t rows, int64_t columns) {
  __m512 sums[kTileRows][2];
#pragma GCC unroll 12
  for (int i = 0; i < kTileRows; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  for (int64_t p = 0; p < pairs; ++p, a += kTileRows, b += kTileColumns) {
    const __m512bh left = (__m512bh)_mm512_loadu_si512(b), right = (__m512bh)_mm512_loadu_si512(b + kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i) {
      const __m512bh row = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[i]));
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], row, left);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], row, right);
    }
  }
  const __mmask16 low = first_lanes(columns), high = first_lanes(columns - kLanes);
  const __m512 factor = _mm512_set1_ps(beta);
#pragma GCC unroll 12
  for (int i = 0; i < kTileRows; ++i)
    if (i < rows) {
      float* to = c + i * ldc;
      if (beta != 0) {
        sums[i][0] = _mm512_fmadd_ps(factor, _mm512_maskz_loadu_ps(low, to), sums[i][0]);
        sums[i][1] = _mm512_fmadd_ps(factor, _mm512_maskz_loadu_ps(high, to + kLanes), sums[i][1]);
      }
      _mm512_mask_storeu_ps(to, low, sums[i][0]);
      _mm512_mask_storeu_ps(to + kLanes, high, sums[i][1]);
    }
}

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
// Equal parts of at most `most`, a multiple of `unit`.
int64_t part(int64_t total, int64_t most, int64_t unit) {
  const int64_t parts = (total + most - 1) / most;
  return round_up((total + parts - 1) / parts, unit);
}

}  // namespace

bool has_bf16_product() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

void bf16_product(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                  float beta, float* c, int64_t ldc) {
  thread_local std::vector<uint32_t> packed_a(kRows * kInner / 2), packed_b(kColumns * kInner / 2);
  if (k == 0) {
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
    return;
  }
  const int64_t inner = part(k, kInner, 2), row_block = part(m, kRows, kTileRows), column_block = part(n, kColumns, kTileColumns);
  for (int64_t j = 0; j < n; j += column_block) {
    const int64_t columns = std::min(column_block, n - j);
    for (int64_t p = 0; p < k; p += inner) {
      const int64_t depth = std::min(inner, k - p), pairs = (depth + 1) / 2;
      const float scale = p == 0 ? beta : 1;
      pack(b_transposed, b_transposed ? b + j * ldb + p : b + p * ldb + j, ldb, columns, depth, packed_b.data(), kTileColumns);
      for (int64_t i = 0; i < m; i += row_block) {
        const int64_t rows = std::min(row_block, m - i);
        pack(!a_transposed, a_transposed ? a + p * lda + i : a + i * lda + p, lda, rows, depth, packed_a.data(), kTileRows);
        for (int64_t y = 0; y < columns; y += kTileColumns)
          for (int64_t x = 0; x < rows; x += kTileRows)
            tile(pairs, packed_a.data() + x * pairs, packed_b.data() + y * pairs, scale, c + (i + x) * ldc + j + y, ldc, std::min(kTileRows, rows - x),
                 std::min(kTileColumns, columns - y));
      }
    }
  }
}

#else

bool has_bf16_product() { return false; }
void bf16_product(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t, float, float*, int64_t) {}

#endif

}  // namespace ektm::kernels
