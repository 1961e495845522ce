#pragma once
// What a table looks a text up by: 16 bytes that are the text itself, or nearly so, without calls for up to 32 bytes.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "base/hash.h"

namespace ektm {

static_assert(std::endian::native == std::endian::little, "the bytes of a text are taken for a word, the first one lowest");

namespace detail {

inline uint64_t load_bytes(const char* at, size_t count) {  // 4 or 8
  uint64_t word = 0;
  std::memcpy(&word, at, count);
  return word;
}

// The product of 64 x 64 bits, upper and lower halves folded (as wyhash does).
inline uint64_t fold(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Up to 8 bytes as a word, zeros behind them.
inline uint64_t short_word(const char* data, size_t size) {
  if (size >= 4) return load_bytes(data, 4) | load_bytes(data + size - 4, 4) << (8 * (size - 4));
  if (size == 0) return 0;
  auto byte = [data](size_t at) { return static_cast<uint64_t>(static_cast<uint8_t>(data[at])) << (8 * at); };
  return byte(0) | byte(size / 2) | byte(size - 1);
}

// Of 17 bytes or more.
inline uint64_t long_hash(std::string_view text) {
  const char* const data = text.data();
  const size_t size = text.size();
  if (size > 32) return hash64(text);
  const uint64_t first = fold(load_bytes(data, 8) ^ 0x2d358dccaa6c78a5ULL, load_bytes(data + 8, 8) ^ 0x8bb84b93962eacc9ULL);
  const uint64_t last =
      fold(load_bytes(data + size - 16, 8) ^ 0x4b33a62ed433d4a3ULL, load_bytes(data + size - 8, 8) ^ 0x4d5a2da51de1aa47ULL);
  return fold(first ^ 0x8ebc6af09c88c6e3ULL, last ^ 0x589965cc75374cc3ULL);
}

// Of texts of the same size, 17 bytes or more.
inline bool long_equal(const char* a, const char* b, size_t size) {
  if (size > 32) return std::memcmp(a, b, size) == 0;
  auto differ = [=](size_t at) { return load_bytes(a + at, 8) ^ load_bytes(b + at, 8); };
  return (differ(0) | differ(8) | differ(size - 16) | differ(size - 8)) == 0;
}

// Whether the bytes of a word are digits, and their number, the first byte the most significant digit.
inline bool are_digits(uint64_t word) {
  constexpr uint64_t kHigh = 0xf0f0f0f0f0f0f0f0ULL, kZeros = 0x3030303030303030ULL;
  return (word & kHigh) == kZeros && ((word + 0x0606060606060606ULL) & kHigh) == kZeros;
}
inline uint64_t number_of_digits(uint64_t word) {
  word = (word & 0x0f0f0f0f0f0f0f0fULL) * 2561 >> 8;                // pairs: 10 * first + second
  word = (word & 0x00ff00ff00ff00ffULL) * 6553601 >> 16;            // fours
  return (word & 0x0000ffff0000ffffULL) * 42949672960001ULL >> 32;  // all eight
}

// The number that a text of 17 to 20 bytes writes as std::to_chars would, if it does.
inline std::optional<uint64_t> long_number(const char* data, size_t size) {
  if (*data < '1' || *data > '9') return std::nullopt;
  const size_t count = size - 16;  // of the digits before the last 16, behind zeros
  const uint64_t first = load_bytes(data, 8) << (8 * (8 - count)) | 0x3030303030303030ULL >> (8 * count);
  const uint64_t middle = load_bytes(data + count, 8), last = load_bytes(data + count + 8, 8);
  if (!are_digits(first) || !are_digits(middle) || !are_digits(last)) return std::nullopt;
  uint64_t number = 0;
  if (__builtin_mul_overflow(number_of_digits(first), 10'000'000'000'000'000ULL, &number) ||
      __builtin_add_overflow(number, number_of_digits(middle) * 100'000'000 + number_of_digits(last), &number))
    return std::nullopt;
  return number;
}

// The 8 digits of a number below 10^8, the first one lowest. After P. Khuong, "How to print integers really fast" (2017).
inline uint64_t digits_of_number(uint64_t number) {
  const uint64_t fours = number / 10000 | number % 10000 << 32;
  const uint64_t hundreds = fours * 10486 >> 20 & 0x7f0000007fULL;
  const uint64_t pairs = hundreds | (fours - 100 * hundreds) << 16;
  const uint64_t tens = pairs * 103 >> 10 & 0x000f000f000f000fULL;
  return tens | (pairs - 10 * tens) << 8;
}

}  // namespace detail

// A text of up to 16 bytes is its own key. So is a whole number of 17 to 20 digits, as a number, so that it need not become a text
// where it is none. The key of any other text is a hash.
struct TextKey {
  static constexpr uint32_t kNumber = UINT32_MAX, kNone = UINT32_MAX - 1;
  uint64_t first = 0, last = 0;  // the first and the last 8 bytes, or all of up to 8 and 0; the number, or the hash, and 0
  uint32_t size = 0;             // of the text; kNumber: of a number; kNone: of no key
  uint32_t hash = 0;             // for tables in memory only: not the same on every machine

  TextKey() = default;
  explicit TextKey(std::string_view text) {
    if (text.size() >= 8 && text.size() <= 16) {
      first = detail::load_bytes(text.data(), 8);
      last = detail::load_bytes(text.data() + text.size() - 8, 8);
      size = static_cast<uint32_t>(text.size());
    } else if (text.size() < 8) {
      first = detail::short_word(text.data(), text.size());
      size = static_cast<uint32_t>(text.size());
    } else {
      set_long(text);
    }
    set_hash();
  }
  // That of the number's text.
  explicit TextKey(uint64_t number) {
    constexpr uint64_t kEight = 100'000'000, kZeros = 0x3030303030303030ULL;
    if (number >= kEight * kEight) {
      first = number;
      size = kNumber;
    } else {
      const bool is_short = number < kEight;
      const uint64_t digits = detail::digits_of_number(is_short ? number : number / kEight);
      const int zeros = std::countr_zero(digits | uint64_t{1} << 56) / 8;  // before the number; 0 has a digit too
      first = (digits | kZeros) >> (8 * zeros);
      size = static_cast<uint32_t>(8 - zeros);
      if (!is_short) {
        last = detail::digits_of_number(number % kEight) | kZeros;
        if (zeros > 0) first |= last << (8 * size);
        size += 8;
      } else if (zeros == 0) {
        last = first;
      }
    }
    set_hash();
  }

  static bool is_exact(uint32_t size) { return size <= 16 || size == kNumber; }
  bool is_exact() const { return is_exact(size); }  // else equal keys may be of different texts
  std::string text() const {                        // of an exact key
    if (size == kNumber) return std::to_string(first);
    char bytes[16];
    std::memcpy(bytes, &first, 8);
    if (size > 8) std::memcpy(bytes + size - 8, &last, 8);
    return std::string(bytes, size);
  }
  void set_hash() {  // from the rest
    const uint64_t mixed = detail::fold(first ^ 0xa0761d6478bd642fULL, last ^ 0xe7037ed1a0b428dbULL);
    hash = static_cast<uint32_t>(mixed ^ size * 0x9e3779b1u);
  }

 private:
  void set_long(std::string_view text) {
    size = static_cast<uint32_t>(std::min<size_t>(text.size(), kNone - 1));
    if (const auto number = text.size() <= 20 ? detail::long_number(text.data(), text.size()) : std::nullopt) {
      first = *number;
      size = kNumber;
    } else {
      first = detail::long_hash(text);
    }
  }
};

}  // namespace ektm
