#include "nn/bf16_product.h"

#include <ATen/cpu/Utils.h>

#include <algorithm>
#include <memory>
#include <new>

#include "base/threads.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define EKTM_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#endif

namespace ektm::kernels {

#if defined(__x86_64__)

namespace {

// The blocked product of Goto and van de Geijn (ACM TOMS 34, 2008). A tile of C stays in registers; the factors are packed, rounded, in the
// order in which tiles read them. A panel of B holds, for each pair of numbers along k, that pair of each of its columns, in 32 bits.
// AVX512-BF16: a panel of A is the same of rows, and a tile is 24 registers of 16 sums. AMX: a panel of A is a sequence of tiles of 16 rows and
// 16 pairs, and 32 rows by 32 columns of sums are 4 tile registers.
constexpr int64_t kLanes = 16;  // of 32 bits, in a register
constexpr int64_t kTileColumns = 32;
constexpr int64_t kVectorRows = 12, kAmxRows = 32;
// Blocks that are packed at a time: numbers along k, rows of A, columns of B; 288 and 512 KB, for the second cache.
constexpr int64_t kInner = 512, kRows = 288, kColumns = 512;
static_assert(kRows % kVectorRows == 0 && kRows % kAmxRows == 0);

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

// 32 numbers from `from` on as 16 pairs; those from `count` on are zeros.
EKTM_BF16 inline __m512i pairs_along(const float* from, int64_t count) {
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(first_lanes(count - kLanes), from + kLanes), _mm512_maskz_loadu_ps(first_lanes(count), from));
}

// Of 16 lanes side by side the pair of `from` and of the numbers `stride` further; `count` numbers are left along k.
EKTM_BF16 inline __m512i pairs_across(const float* from, int64_t stride, __mmask16 lanes, int64_t count) {
  const __mmask16 none = 0;
  const __m512 even = _mm512_maskz_loadu_ps(count > 0 ? lanes : none, from), odd = _mm512_maskz_loadu_ps(count > 1 ? lanes : none, from + stride);
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even)), high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// A factor's block: `lanes` rows of A or columns of B, k numbers each. `along`: the numbers of a lane lie side by side, lanes `stride`
// apart; else the other way round. Packed, there are `pairs` pairs a lane; lanes and numbers that do not exist are zeros.
struct Block {
  bool along;
  const float* from;
  int64_t stride, lanes, k, pairs;
};

// Panels of `width` lanes, pair after pair.
EKTM_BF16 void pack_pairs(const Block& block, int64_t width, uint32_t* to) {
  for (int64_t panel = 0; panel < block.lanes; panel += width, to += block.pairs * width)
    for (int64_t part = 0; part < width; part += kLanes) {
      const int64_t first = panel + part, lanes = std::min(panel + width, block.lanes) - first;
      const __mmask16 keep = first_lanes(width - part), read = first_lanes(lanes);
      if (!block.along) {
        for (int64_t p = 0; p < block.pairs; ++p)
          _mm512_mask_storeu_epi32(to + p * width + part, keep, pairs_across(block.from + 2 * p * block.stride + first, block.stride, read, block.k - 2 * p));
        continue;
      }
      for (int64_t p = 0; p < block.pairs; p += kLanes) {
        __m512i r[kLanes];
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i)
          r[i] = i < lanes ? pairs_along(block.from + (first + i) * block.stride + 2 * p, block.k - 2 * p) : _mm512_setzero_si512();
        transpose(r);
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i)
          if (p + i < block.pairs) _mm512_mask_storeu_epi32(to + (p + i) * width + part, keep, r[i]);
      }
    }
}

// Panels of 32 lanes, for each 16 pairs two tiles of 16 lanes.
EKTM_BF16 void pack_tiles(const Block& block, uint32_t* to) {
  for (int64_t panel = 0; panel < block.lanes; panel += kAmxRows)
    for (int64_t p = 0; p < block.pairs; p += kLanes)
      for (int64_t first = panel; first < panel + kAmxRows; first += kLanes, to += kLanes * kLanes) {
        const int64_t lanes = block.lanes - first;
        const __mmask16 read = first_lanes(lanes);
        __m512i r[kLanes];
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i)
          if (block.along)
            r[i] = i < lanes ? pairs_along(block.from + (first + i) * block.stride + 2 * p, block.k - 2 * p) : _mm512_setzero_si512();
          else
            r[i] = pairs_across(block.from + 2 * (p + i) * block.stride + first, block.stride, read, block.k - 2 * (p + i));
        if (!block.along) transpose(r);
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) _mm512_storeu_si512(to + i * kLanes, r[i]);
      }
}

// A part of C that a tile covers.
struct Target {
  float* c;
  int64_t stride, rows, columns;
  float beta;
};

EKTM_BF16 inline void finish_row(const Target& target, int64_t row, __m512 low, __m512 high) {
  float* to = target.c + row * target.stride;
  const __mmask16 left = first_lanes(target.columns), right = first_lanes(target.columns - kLanes);
  if (target.beta != 0) {
    const __m512 beta = _mm512_set1_ps(target.beta);
    low = _mm512_fmadd_ps(beta, _mm512_maskz_loadu_ps(left, to), low);
    high = _mm512_fmadd_ps(beta, _mm512_maskz_loadu_ps(right, to + kLanes), high);
  }
  _mm512_mask_storeu_ps(to, left, low);
  _mm512_mask_storeu_ps(to + kLanes, right, high);
}

EKTM_BF16 void vector_tile(int64_t pairs, const uint32_t* a, const uint32_t* b, const Target& target) {
  __m512 sums[kVectorRows][2];
#pragma GCC unroll 12
  for (int i = 0; i < kVectorRows; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  for (int64_t p = 0; p < pairs; ++p, a += kVectorRows, b += kTileColumns) {
    const __m512bh left = (__m512bh)_mm512_loadu_si512(b), right = (__m512bh)_mm512_loadu_si512(b + kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kVectorRows; ++i) {
      const __m512bh row = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[i]));
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], row, left);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], row, right);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kVectorRows; ++i)
    if (i < target.rows) finish_row(target, i, sums[i][0], sums[i][1]);
}

EKTM_BF16 void amx_tile(int64_t pairs, const uint32_t* a, const uint32_t* b, const Target& target) {
  const bool whole = target.rows == kAmxRows && target.columns == kTileColumns && (target.beta == 0 || target.beta == 1);
  const int64_t stride = 4 * target.stride, wide = 4 * kTileColumns, narrow = 4 * kLanes;  // bytes
  float* lower = target.c + kLanes * target.stride;
  asm volatile("" ::: "memory");  // GCC's tile loads do not say that they read memory
  if (whole && target.beta == 1) {
    _tile_loadd(0, target.c, stride);
    _tile_loadd(1, target.c + kLanes, stride);
    _tile_loadd(2, lower, stride);
    _tile_loadd(3, lower + kLanes, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t p = 0; p < pairs; p += kLanes, a += 2 * kLanes * kLanes, b += kLanes * kTileColumns) {
    _tile_loadd(4, a, narrow);
    _tile_loadd(6, b, wide);
    _tile_loadd(7, b + kLanes, wide);
    _tile_loadd(5, a + kLanes * kLanes, narrow);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  if (whole) {
    _tile_stored(0, target.c, stride);
    _tile_stored(1, target.c + kLanes, stride);
    _tile_stored(2, lower, stride);
    _tile_stored(3, lower + kLanes, stride);
    return;
  }
  alignas(64) float sums[kAmxRows * kTileColumns];
  _tile_stored(0, sums, wide);
  _tile_stored(1, sums + kLanes, wide);
  _tile_stored(2, sums + kLanes * kTileColumns, wide);
  _tile_stored(3, sums + kLanes * kTileColumns + kLanes, wide);
  for (int64_t i = 0; i < target.rows; ++i)
    finish_row(target, i, _mm512_load_ps(sums + i * kTileColumns), _mm512_load_ps(sums + i * kTileColumns + kLanes));
}

// All 8 tile registers with 16 rows of 64 bytes, for as long as it lives.
class AmxTiles {
 public:
  EKTM_BF16 explicit AmxTiles(bool wanted) : configured_(wanted) {
    if (!configured_) return;
    // Static: GCC believes that the instruction reads 8 bytes, and would leave the others of a local unset.
    struct Config {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static_assert(sizeof(Config) == 64);
    alignas(64) static const volatile Config config_data{};
    const void* config = const_cast<const Config*>(&config_data);
    _tile_loadconfig(config);
  }
  EKTM_BF16 ~AmxTiles() {
    if (configured_) _tile_release();
  }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

 private:
  bool configured_;
};

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
// Equal parts of at most `most`, each a multiple of `unit`.
int64_t part(int64_t total, int64_t most, int64_t unit) {
  const int64_t parts = (total + most - 1) / most;
  return round_up((total + parts - 1) / parts, unit);
}

// Blocks of the inner dimension: numbers, and pairs when packed.
struct Depths {
  int64_t unit, most;
  Depths(Bf16Unit tiles, int64_t k) : unit(tiles == Bf16Unit::Amx ? 2 * kLanes : 2), most(part(k, kInner, unit)) {}
  int64_t pairs(int64_t depth) const { return round_up(depth, unit) / 2; }
};

Block right_block(bool transposed, const float* b, int64_t ldb, int64_t first, int64_t columns, int64_t p, int64_t depth, int64_t pairs) {
  return {transposed, transposed ? b + first * ldb + p : b + p * ldb + first, ldb, columns, depth, pairs};
}

// C [m,columns] = A B + scale C, for a packed block of B [depth,columns]. a: at the block's first number.
void multiply(Bf16Unit unit, bool a_transposed, int64_t m, const float* a, int64_t lda, const uint32_t* b, int64_t columns, int64_t depth, int64_t pairs,
              float scale, float* c, int64_t ldc) {
  struct alignas(64) Room {
    uint32_t a[kRows * kInner / 2];
  };
  thread_local const std::unique_ptr<Room> room(new Room);
  const bool amx = unit == Bf16Unit::Amx;
  const int64_t tile_rows = amx ? kAmxRows : kVectorRows, row_block = part(m, kRows, tile_rows);
  for (int64_t i = 0; i < m; i += row_block) {
    const int64_t rows = std::min(row_block, m - i);
    const Block left{!a_transposed, a_transposed ? a + i : a + i * lda, lda, rows, depth, pairs};
    amx ? pack_tiles(left, room->a) : pack_pairs(left, kVectorRows, room->a);
    for (int64_t y = 0; y < columns; y += kTileColumns)
      for (int64_t x = 0; x < rows; x += tile_rows)
        (amx ? amx_tile : vector_tile)(pairs, room->a + x * pairs, b + y * pairs,
                                       {c + (i + x) * ldc + y, ldc, std::min(tile_rows, rows - x), std::min(kTileColumns, columns - y), scale});
  }
}

void scale_only(int64_t m, int64_t n, float beta, float* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
}

}  // namespace

bool has_bf16_product(Bf16Unit unit) {
  // Every CPU with AVX512-BF16 has the other parts of AVX-512 that the code above is compiled for.
  if (!__builtin_cpu_supports("avx512bf16")) return false;
  if (unit == Bf16Unit::Vectors) return true;
  static const bool amx = __builtin_cpu_supports("amx-bf16") && at::cpu::init_amx();  // Linux has to be asked for the tile registers
  return amx;
}

void bf16_product(Bf16Unit unit, bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                  int64_t ldb, float beta, float* c, int64_t ldc) {
  if (k == 0) return scale_only(m, n, beta, c, ldc);
  struct alignas(64) Room {
    uint32_t b[kColumns * kInner / 2];
  };
  thread_local const std::unique_ptr<Room> room(new Room);
  const AmxTiles tiles(unit == Bf16Unit::Amx);
  const Depths depths(unit, k);
  const int64_t column_block = part(n, kColumns, kTileColumns);
  for (int64_t j = 0; j < n; j += column_block) {
    const int64_t columns = std::min(column_block, n - j);
    for (int64_t p = 0; p < k; p += depths.most) {
      const int64_t depth = std::min(depths.most, k - p), pairs = depths.pairs(depth);
      pack_pairs(right_block(b_transposed, b, ldb, j, columns, p, depth, pairs), kTileColumns, room->b);
      multiply(unit, a_transposed, m, a_transposed ? a + p * lda : a + p, lda, room->b, columns, depth, pairs, p == 0 ? beta : 1, c + j, ldc);
    }
  }
}

Bf16Right::Bf16Right(Bf16Unit unit, bool transposed, int64_t n, int64_t k, const float* b, int64_t ldb) : unit_(unit), n_(n), k_(k) {
  if (k == 0) return;
  const Depths depths(unit, k);
  const int64_t columns = round_up(n, kTileColumns);
  packed_.reset(new (std::align_val_t(64)) uint32_t[static_cast<size_t>(columns * depths.pairs(k))]);
  const int64_t worth_a_thread = 1 + (int64_t{1} << 15) / (kTileColumns * k);  // panels
  parallel_for(0, columns / kTileColumns, worth_a_thread, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kTileColumns, end = std::min(n, last * kTileColumns);
    for (int64_t p = 0; p < k; p += depths.most) {
      const int64_t depth = std::min(depths.most, k - p), pairs = depths.pairs(depth);
      pack_pairs(right_block(transposed, b, ldb, begin, end - begin, p, depth, pairs), kTileColumns, packed_.get() + columns * (p / 2) + begin * pairs);
    }
  });
}

void Bf16Right::multiply(int64_t m, const float* a, int64_t lda, float beta, float* c, int64_t ldc) const {
  if (k_ == 0) return scale_only(m, n_, beta, c, ldc);
  const AmxTiles tiles(unit_ == Bf16Unit::Amx);
  const Depths depths(unit_, k_);
  const int64_t columns = round_up(n_, kTileColumns);
  for (int64_t p = 0; p < k_; p += depths.most) {
    const int64_t depth = std::min(depths.most, k_ - p);
    kernels::multiply(unit_, false, m, a + p, lda, packed_.get() + columns * (p / 2), n_, depth, depths.pairs(depth),
                      p == 0 ? beta : 1, c, ldc);
  }
}

#else

bool has_bf16_product(Bf16Unit) { return false; }
void bf16_product(Bf16Unit, bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t, float, float*, int64_t) {}
Bf16Right::Bf16Right(Bf16Unit unit, bool, int64_t n, int64_t k, const float*, int64_t) : unit_(unit), n_(n), k_(k) {}
void Bf16Right::multiply(int64_t, const float*, int64_t, float, float*, int64_t) const {}

#endif

void Bf16Right::Free::operator()(uint32_t* memory) const { ::operator delete[](memory, std::align_val_t(64)); }

}  // namespace ektm::kernels
