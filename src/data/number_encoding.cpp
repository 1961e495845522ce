#include "data/number_encoding.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <numeric>

namespace ektm {

namespace {

// A plain decimal of at most 15 digits: then digits and power of ten are exact doubles, and their quotient is the nearest double
// (Clinger 1990).
std::optional<double> parse_short_decimal(const char* at, const char* last) {
  constexpr double kPowers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const bool negative = *at == '-';
  at += negative;
  if (last - at > 16 || at == last) return std::nullopt;
  uint64_t digits = 0;
  const char* const first = at;
  const char* point = nullptr;
  for (; at != last; ++at) {
    const unsigned digit = static_cast<unsigned char>(*at) - unsigned{'0'};
    if (digit <= 9) {
      digits = 10 * digits + digit;
    } else if (*at == '.' && !point) {
      point = at;
    } else {
      return std::nullopt;
    }
  }
  const int64_t count = last - first - (point ? 1 : 0), decimals = point ? last - point - 1 : 0;
  if (count == 0 || count > 15) return std::nullopt;
  const double value = static_cast<double>(digits) / kPowers[decimals];
  return negative ? -value : value;
}

}  // namespace

std::optional<double> parse_finite(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const char* first = text.data();
  const char* last = first + text.size();
  if (const auto value = parse_short_decimal(first, last)) return value;
  if (first != last && *first == '+' && first + 1 != last && first[1] != '-') ++first;
  double value = 0;
  auto [end, error] = std::from_chars(first, last, value);
  if (error != std::errc() || end != last || !std::isfinite(value)) return std::nullopt;
  return value;
}

namespace {

double signed_log1p(double x) {
  return std::copysign(std::log1p(std::abs(x)), x);
}

}  // namespace

double NumberScaling::apply(double x) const {
  return ((log ? signed_log1p(x) : x) - shift) / scale;
}

ScalingFitter::ScalingFitter(const std::string& normalize)
    : log_(normalize == "log_standard"), minmax_(normalize == "minmax"), none_(normalize == "none") {}

void ScalingFitter::add(double x) {
  if (log_) x = signed_log1p(x);
  low_ = count_ == 0 ? x : std::min(low_, x);
  high_ = count_ == 0 ? x : std::max(high_, x);
  ++count_;
  const double off = x - mean_;
  mean_ += off / count_;
  squares_ += off * (x - mean_);
}

NumberScaling ScalingFitter::finish() const {
  NumberScaling scaling;
  scaling.log = log_;
  if (none_ || count_ == 0) return scaling;
  // Of equal values the running mean may be off by a rounding, and so the spread: take the value itself.
  scaling.shift = minmax_ || low_ == high_ ? low_ : mean_;
  if (low_ < high_) scaling.scale = minmax_ ? high_ - low_ : std::sqrt(squares_ / count_);
  return scaling;
}

void QuantileSample::add(double x) {
  ++seen_;
  if (values_.size() < kCapacity) {
    values_.push_back(x);
  } else if (uint64_t at = rng_.below(seen_); at < kCapacity) {
    values_[at] = x;
  }
}

void sort_numbers(std::vector<double>& values) {
  constexpr size_t kFewValues = 1000;
  if (values.size() < kFewValues) return std::sort(values.begin(), values.end());
  // By digits of the bits, which are in the order of the numbers once those of negative ones are inverted and others get the
  // sign.
  constexpr int kDigitBits = 11, kDigits = 6;
  constexpr uint64_t kSign = uint64_t{1} << 63, kDigitMask = (1 << kDigitBits) - 1;
  std::vector<uint64_t> keys(values.size()), sorted(values.size());
  std::vector<size_t> starts(kDigits << kDigitBits, 0);  // by digit
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t bits = std::bit_cast<uint64_t>(values[i]);
    keys[i] = bits & kSign ? ~bits : bits | kSign;
    for (int d = 0; d < kDigits; ++d) ++starts[(d << kDigitBits) + ((keys[i] >> (d * kDigitBits)) & kDigitMask)];
  }
  for (int d = 0; d < kDigits; ++d) {
    size_t* counts = &starts[d << kDigitBits];
    if (std::find(counts, counts + kDigitMask + 1, values.size()) != counts + kDigitMask + 1) continue;  // one digit for all
    std::exclusive_scan(counts, counts + kDigitMask + 1, counts, size_t{0});
    for (uint64_t key : keys) sorted[counts[(key >> (d * kDigitBits)) & kDigitMask]++] = key;
    keys.swap(sorted);
  }
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = std::bit_cast<double>(keys[i] & kSign ? keys[i] ^ kSign : ~keys[i]);
}

std::vector<double> QuantileSample::edges(int64_t bins) const {
  std::vector<double> sorted = values_, edges;
  sort_numbers(sorted);
  const size_t n = sorted.size();
  for (int64_t k = 1; n > 0 && k < bins; ++k) {
    // The smallest value with at least k/bins of the values at or below it.
    const size_t rank = static_cast<size_t>((static_cast<unsigned __int128>(k) * n + bins - 1) / bins);
    const double edge = sorted[rank - 1];
    if (edge < sorted.back() && (edges.empty() || edge > edges.back())) edges.push_back(edge);
  }
  return edges;
}

int32_t bin_of(const std::vector<double>& edges, double x) {
  // The first edge that is not below x, without branches that depend on x.
  const double* first = edges.data();
  for (size_t count = edges.size(); count > 0;) {
    const size_t half = (count + 1) / 2;
    first += half & -static_cast<size_t>(first[half - 1] < x);
    count -= half;
  }
  return static_cast<int32_t>(first - edges.data());
}

}  // namespace ektm
