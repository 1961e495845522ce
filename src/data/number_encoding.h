#pragma once
// Real values as the model sees them: normalised, or as bins of equal training frequency.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace ektm {

// A decimal number ("1.5", "-2e3", "+7"); absent when the text is none or not finite.
std::optional<double> parse_finite(std::string_view text);

// Normalised = (f(x) - shift) / scale; f is log1p of the absolute value with the sign kept for log_standard, else the identity.
struct NumberScaling {
  bool log = false;
  double shift = 0, scale = 1;
  double apply(double x) const;
};

// Fits a NumberScaling by one pass (Welford 1962). The result depends on the order of the values only in rounding.
class ScalingFitter {
 public:
  explicit ScalingFitter(const std::string& normalize);  // standard | log_standard | minmax | none
  void add(double x);
  // A constant column becomes 0. Without any value: no change. Not finite when the values' spread overflows a double.
  NumberScaling finish() const;

 private:
  bool log_, minmax_, none_;
  double count_ = 0, mean_ = 0, squares_ = 0, low_ = 0, high_ = 0;
};

// A uniform sample of at most kCapacity values (Vitter's algorithm R), so that quantiles are exact up to as many.
class QuantileSample {
 public:
  static constexpr size_t kCapacity = 1'000'000;
  explicit QuantileSample(uint64_t seed) : rng_(seed) {}
  void add(double x);
  // Upper edges of bins of equal frequency: bin b holds edges[b-1] < x <= edges[b], the last bin the rest; at most bins - 1 of
  // them. Quantiles that fall together are one edge, so that no bin is empty.
  std::vector<double> edges(int64_t bins) const;

 private:
  Rng rng_;
  uint64_t seen_ = 0;
  std::vector<double> values_;
};

// Ascending; no value may be NaN. Equal to std::sort, and several times as fast on many values.
void sort_numbers(std::vector<double>& values);

// 0 .. edges.size().
int32_t bin_of(const std::vector<double>& edges, double x);

}  // namespace ektm
