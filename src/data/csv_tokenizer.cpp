#include "data/csv_tokenizer.h"

#include <algorithm>
#include <bit>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "base/error.h"

namespace ektm {
namespace {

bool is_line_end(char c) { return c == '\n' || c == '\r'; }
bool is_mark(char c) { return c == ',' || c == '"' || is_line_end(c); }

constexpr size_t kGroupBytes = 64;

#if defined(__x86_64__) && defined(__GNUC__)
// Writes the offsets of the marks in text[0 .. groups * kGroupBytes) plus `base` to `out`, up to 7 numbers more behind them, and
// returns their end.
__attribute__((target("avx2,bmi,popcnt"))) uint32_t* find_by_avx2(const char* text, size_t groups, uint32_t base, uint32_t* out) {
  const __m256i comma = _mm256_set1_epi8(','), quote = _mm256_set1_epi8('"');
  const __m256i feed = _mm256_set1_epi8('\n'), carriage = _mm256_set1_epi8('\r');
  for (size_t g = 0; g < groups; ++g, text += kGroupBytes, base += kGroupBytes) {
    uint64_t bits = 0;
    for (int k = 0; k < 2; ++k) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text) + k);
      const __m256i found = _mm256_or_si256(_mm256_or_si256(_mm256_cmpeq_epi8(bytes, comma), _mm256_cmpeq_epi8(bytes, quote)),
                                            _mm256_or_si256(_mm256_cmpeq_epi8(bytes, feed), _mm256_cmpeq_epi8(bytes, carriage)));
      bits |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(found))) << (32 * k);
    }
    // Eight at a time: a branch for each mark would be mispredicted once a group.
    const int count = __builtin_popcountll(bits);
    for (int i = 0; i < count; i += 8)
      for (int j = 0; j < 8; ++j, bits &= bits - 1) out[i + j] = base + static_cast<uint32_t>(_tzcnt_u64(bits));
    out += count;
  }
  return out;
}
const bool kHasAvx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt");
#endif

// Bit i: text[i] is a mark.
uint64_t marks_of_group(const char* text) {
  uint64_t bits = 0;
#ifdef __SSE2__
  const __m128i comma = _mm_set1_epi8(','), quote = _mm_set1_epi8('"');
  const __m128i feed = _mm_set1_epi8('\n'), carriage = _mm_set1_epi8('\r');
  for (size_t k = 0; k < kGroupBytes; k += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text + k));
    const __m128i found = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, comma), _mm_cmpeq_epi8(bytes, quote)),
                                       _mm_or_si128(_mm_cmpeq_epi8(bytes, feed), _mm_cmpeq_epi8(bytes, carriage)));
    bits |= static_cast<uint64_t>(static_cast<uint16_t>(_mm_movemask_epi8(found))) << k;
  }
#else
  for (size_t k = 0; k < kGroupBytes; ++k) bits |= static_cast<uint64_t>(is_mark(text[k])) << k;
#endif
  return bits;
}

}  // namespace

size_t unescape_csv(std::string_view raw, char* out) {
  char* const start = out;
  bool quoted = true;
  for (size_t i = 1; i < raw.size(); ++i) {
    if (quoted && raw[i] == '"') {
      quoted = i + 1 < raw.size() && raw[i + 1] == '"';
      if (!quoted) continue;
      ++i;
    }
    *out++ = raw[i];
  }
  return static_cast<size_t>(out - start);
}

void CsvTokenizer::begin(std::string_view text, bool is_final) {
  EKTM_CHECK(text.size() <= kMaxTextBytes);
  text_ = text;
  is_final_ = is_final;
  at_ = window_end_ = 0;
  marks_count_ = next_mark_ = 0;
}

bool CsvTokenizer::find_marks() {
  marks_count_ = next_mark_ = 0;
  while (marks_count_ == 0 && window_end_ < text_.size()) {
    const size_t end = std::min(window_end_ + kWindowBytes, text_.size());
    uint32_t* out = marks_;
    size_t at = window_end_;
#if defined(__x86_64__) && defined(__GNUC__)
    if (kHasAvx2) {
      const size_t groups = (end - at) / kGroupBytes;
      out = find_by_avx2(text_.data() + at, groups, static_cast<uint32_t>(at), out);
      at += groups * kGroupBytes;
    }
#endif
    for (; at + kGroupBytes <= end; at += kGroupBytes)
      for (uint64_t bits = marks_of_group(text_.data() + at); bits != 0; bits &= bits - 1)
        *out++ = static_cast<uint32_t>(at) + static_cast<uint32_t>(std::countr_zero(bits));
    for (; at < end; ++at)
      if (is_mark(text_[at])) *out++ = static_cast<uint32_t>(at);
    marks_count_ = static_cast<size_t>(out - marks_);
    window_end_ = end;
  }
  return marks_count_ > 0;
}

CsvTokenizer::Stop CsvTokenizer::read(CsvCell* cells, size_t max_rows, size_t& rows) {
  const char* const text = text_.data();
  const uint32_t size = static_cast<uint32_t>(text_.size());
  for (rows = 0; rows < max_rows;) {
    while (at_ < size && is_line_end(text[at_])) {
      mark();
      ++next_mark_;
      ++at_;
    }
    if (at_ == size) return Stop::End;
    CsvCell* row = cells + rows * columns_;
    size_t column = 0;
    uint32_t begin = static_cast<uint32_t>(at_), end;  // of the cell
    for (;; ++column, begin = end + 1) {
      CsvCell cell{begin, 0, 0};
      end = mark();
      if (end == begin && begin < size && text[begin] == '"') {
        // Nearly all: a quote, the next one, and behind it the end of the cell.
        if (next_mark_ + 2 < marks_count_) {
          const uint32_t closing = marks_[next_mark_ + 1], behind = marks_[next_mark_ + 2];
          if (behind == closing + 1 && text[closing] == '"' && text[behind] != '"') {
            next_mark_ += 3;
            end = behind;
            if (column < columns_) row[column] = {begin + 1, closing, 0};
            if (text[end] != ',') break;
            continue;
          }
        }
        ++next_mark_;
        bool is_escaped = false;
        for (;;) {  // to the closing quote
          do end = mark(), ++next_mark_;
          while (end < size && text[end] != '"');
          if (end == size) {
            next_mark_ = marks_count_;
            return is_final_ ? Stop::OpenQuote : Stop::End;
          }
          if (end + 1 == size || text[end + 1] != '"') break;
          is_escaped = true;
          mark();
          ++next_mark_;
        }
        const uint32_t closing = end;
        end = mark();
        if (end == closing + 1 && !is_escaped) {
          cell = {begin + 1, closing, 0};
        } else {
          cell.is_escaped = 1;
        }
      }
      while (end < size && text[end] == '"') ++next_mark_, end = mark();  // inside a cell a quote is text
      if (end == size && !is_final_) return Stop::End;
      if (cell.end == 0) cell.end = end;
      if (column < columns_) row[column] = cell;
      if (end == size) break;
      ++next_mark_;
      if (text[end] != ',') break;
    }
    const size_t row_begin = at_;
    at_ = std::min<size_t>(end + 1, size);
    if (column + 1 != columns_) {
      ragged_ = {text_.substr(row_begin, end - row_begin), static_cast<int64_t>(column) + 1};
      return Stop::Ragged;
    }
    ++rows;
  }
  return Stop::Full;
}

}  // namespace ektm
