#pragma once
// Hash and equality of texts that are mostly short: without calls for up to 32 bytes (a 64-bit id has 20).
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/hash.h"

namespace ektm {

inline uint64_t load_bytes(const char* at, size_t count) {  // 4 or 8
  uint64_t word = 0;
  std::memcpy(&word, at, count);
  return word;
}

// For tables in memory only: not the same on every machine.
inline uint64_t short_text_hash(std::string_view text) {
  const char* const data = text.data();
  const size_t size = text.size();
  // Two multiplications of 64 x 64 bits, upper and lower halves folded (as wyhash does).
  auto fold = [](uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  uint64_t first = 0, last = 0;
  if (size > 32) return hash64(text);
  if (size > 16) {
    first = fold(load_bytes(data, 8) ^ 0x2d358dccaa6c78a5ULL, load_bytes(data + 8, 8) ^ 0x8bb84b93962eacc9ULL);
    last = fold(load_bytes(data + size - 16, 8) ^ 0x4b33a62ed433d4a3ULL, load_bytes(data + size - 8, 8) ^ 0x4d5a2da51de1aa47ULL);
  } else if (size >= 8) {
    first = load_bytes(data, 8);
    last = load_bytes(data + size - 8, 8);
  } else if (size >= 4) {
    first = load_bytes(data, 4);
    last = load_bytes(data + size - 4, 4);
  } else if (size > 0) {
    first = static_cast<uint8_t>(data[0]) | static_cast<uint64_t>(static_cast<uint8_t>(data[size / 2])) << 8 |
            static_cast<uint64_t>(static_cast<uint8_t>(data[size - 1])) << 16;
  }
  const uint64_t mixed = fold(first ^ 0xa0761d6478bd642fULL, last ^ 0xe7037ed1a0b428dbULL);
  return fold(mixed ^ 0x8ebc6af09c88c6e3ULL, size ^ 0x589965cc75374cc3ULL);
}

// Of texts of the same size.
inline bool short_text_equal(const char* a, const char* b, size_t size) {
  if (size > 32) return std::memcmp(a, b, size) == 0;
  if (size > 16)
    return load_bytes(a, 8) == load_bytes(b, 8) && load_bytes(a + 8, 8) == load_bytes(b + 8, 8) &&
           load_bytes(a + size - 16, 8) == load_bytes(b + size - 16, 8) &&
           load_bytes(a + size - 8, 8) == load_bytes(b + size - 8, 8);
  if (size >= 8) return load_bytes(a, 8) == load_bytes(b, 8) && load_bytes(a + size - 8, 8) == load_bytes(b + size - 8, 8);
  if (size >= 4) return load_bytes(a, 4) == load_bytes(b, 4) && load_bytes(a + size - 4, 4) == load_bytes(b + size - 4, 4);
  return size == 0 || (a[0] == b[0] && a[size / 2] == b[size / 2] && a[size - 1] == b[size - 1]);
}

}  // namespace ektm
