#include "data/number_encoding.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace ektm {

std::optional<double> parse_finite(std::string_view text) {
  const char* first = text.data();
  const char* last = first + text.size();
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

std::vector<double> QuantileSample::edges(int64_t bins) const {
  std::vector<double> sorted = values_, edges;
  std::sort(sorted.begin(), sorted.end());
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
  return static_cast<int32_t>(std::lower_bound(edges.begin(), edges.end(), x) - edges.begin());
}

}  // namespace ektm
