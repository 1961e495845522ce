#pragma once
// Random numbers that are the same on every machine: a counter-based generator (SplitMix64 over seed and stream).
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace ektm {

// Mixes 64 bits well (the finaliser of SplitMix64, Steele et al. 2014).
inline uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// A generator per (seed, stream): independent streams need no shared state, so any part of a run can be replayed.
class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) : state_(mix64(seed ^ mix64(stream + 0x632be59bd9b4e019ULL))) {}
  uint64_t next() { return mix64(state_++); }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }  // [0, 1)
  // [0, n), n >= 1, by multiply-shift (bias below 2^-64 n).
  uint64_t below(uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64); }
  // Standard normal, Box-Muller.
  double normal() {
    double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * v);
  }

 private:
  uint64_t state_;
};

// Fisher-Yates.
template <class T>
void shuffle(std::vector<T>& values, Rng& rng) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[rng.below(i)]);
}

}  // namespace ektm
