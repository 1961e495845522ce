#include "experiment/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace ektm {
namespace {

constexpr double kTail = 0.05;  // both ends of a 95 % interval

// An error is normal with a variance that is drawn: error² * degrees / chi² for Student's. The variances and their weights, which sum to 1, of
// the trapezoidal rule over log chi: the integrand is smooth and falls off fast on both sides, so with steps that are small beside its width
// the rule is exact to rounding.
std::vector<std::pair<double, double>> variances(const Estimate& estimate) {
  const double square = estimate.error * estimate.error;
  if (!estimate.degrees || square == 0) return {{square, 1.0}};
  const double degrees = static_cast<double>(*estimate.degrees), step = std::min(0.1, 0.4 / std::sqrt(degrees));
  std::vector<std::pair<double, double>> result;
  double sum = 0;
  for (double at = -37 / degrees; at < std::log(std::sqrt(degrees) + 9); at += step) {
    const double chi_square = std::exp(2 * at), weight = std::exp(degrees * at - chi_square / 2 - degrees / 2 * (std::log(degrees) - 1));
    result.emplace_back(square * degrees / chi_square, weight);
    sum += weight;
  }
  for (auto& [variance, weight] : result) weight /= sum;
  return result;
}

// The p-value of `distance` where the variance is the sum of one of each.
double two_sided(double distance, const std::vector<std::pair<double, double>>& a, const std::vector<std::pair<double, double>>& b) {
  double p = 0;
  for (const auto& [variance_a, weight_a] : a)
    for (const auto& [variance_b, weight_b] : b) p += weight_a * weight_b * normal_two_sided(distance / std::sqrt(variance_a + variance_b));
  return std::min(p, 1.0);
}

}  // namespace

MeanStd mean_std(const std::vector<double>& values) {
  EKTM_CHECK(!values.empty());
  const double n = static_cast<double>(values.size());
  MeanStd result{std::accumulate(values.begin(), values.end(), 0.0) / n, 0};
  if (values.size() < 2) return result;
  double squares = 0;
  for (double value : values) squares += (value - result.mean) * (value - result.mean);
  result.std = std::sqrt(squares / (n - 1));
  return result;
}

double student_two_sided(double t, int64_t degrees) {
  EKTM_CHECK(degrees >= 1);
  if (std::isinf(t)) return 0;
  const double angle = std::atan(std::abs(t) / std::sqrt(static_cast<double>(degrees))), sine = std::sin(angle), cosine = std::cos(angle);
  double sum = 0, term = degrees % 2 ? cosine : 1;
  for (int64_t i = degrees % 2 ? 3 : 2; i <= degrees; i += 2) {
    sum += term;
    term *= cosine * cosine * static_cast<double>(i - 1) / static_cast<double>(i);
  }
  const double inside = degrees % 2 ? 2 / M_PI * (angle + sine * sum) : sine * sum;
  return std::clamp(1 - inside, 0.0, 1.0);
}

double student_quantile(double tail, int64_t degrees) {
  double low = 0, high = 1;
  while (student_two_sided(high, degrees) > tail) high *= 2;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = (low + high) / 2;
    (student_two_sided(middle, degrees) > tail ? low : high) = middle;
  }
  return (low + high) / 2;
}

double normal_two_sided(double z) { return std::erfc(std::abs(z) / std::sqrt(2.0)); }

std::optional<Estimate> over_seeds(const std::vector<double>& differences) {
  if (differences.size() < 2) return std::nullopt;
  const MeanStd at = mean_std(differences);
  const int64_t degrees = static_cast<int64_t>(differences.size()) - 1;
  const double error = at.std / std::sqrt(static_cast<double>(differences.size())), half = student_quantile(kTail, degrees) * error;
  Estimate result{at.mean, {at.mean - half, at.mean + half}, 1, error, degrees};
  if (error > 0)
    result.p = student_two_sided(at.mean / error, degrees);
  else if (at.mean != 0)
    result.p = 0;
  return result;
}

Estimate over_rows(double value, double variance) {
  const double error = std::sqrt(variance), half = 1.959963984540054 * error;  // the 97.5 % quantile of the standard normal
  Estimate result{value, {value - half, value + half}, 1, error, std::nullopt};
  if (error > 0)
    result.p = normal_two_sided(value / error);
  else if (value != 0)
    result.p = 0;
  return result;
}

double sum_two_sided(double distance, const Estimate& a, const Estimate& b) {
  if (a.error == 0 && b.error == 0) return distance == 0 ? 1 : 0;
  return two_sided(distance, variances(a), variances(b));
}

Estimate over_both(const Estimate& a, const Estimate& b) {
  Estimate result{a.value, {a.value, a.value}, sum_two_sided(a.value, a, b), std::hypot(a.error, b.error), std::nullopt};
  if (result.error == 0) return result;
  const auto of_a = variances(a), of_b = variances(b);
  double low = 0, high = result.error;
  while (two_sided(high, of_a, of_b) > kTail) high *= 2;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (two_sided(middle, of_a, of_b) > kTail ? low : high) = middle;
  }
  result.interval = {a.value - high, a.value + high};
  return result;
}

std::vector<double> holm(const std::vector<double>& p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  std::vector<double> adjusted(p.size());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    largest = std::max(largest, std::min(1.0, static_cast<double>(order.size() - rank) * p[order[rank]]));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

std::optional<AucInfluence> auc_influence(const std::vector<float>& scores, const std::vector<uint8_t>& labels, const std::vector<int64_t>& cluster,
                                          int64_t clusters) {
  EKTM_CHECK(scores.size() == labels.size() && scores.size() == cluster.size());
  std::vector<uint8_t> has(static_cast<size_t>(clusters), 0);  // bit 0: a negative, bit 1: a positive
  double positives = 0, negatives = 0;
  for (size_t row = 0; row < scores.size(); ++row) {
    has[cluster[row]] |= labels[row] ? 2 : 1;
    (labels[row] ? positives : negatives) += 1;
  }
  const double with_positive = static_cast<double>(std::count_if(has.begin(), has.end(), [](uint8_t bits) { return bits & 2; }));
  const double with_negative = static_cast<double>(std::count_if(has.begin(), has.end(), [](uint8_t bits) { return bits & 1; }));
  if (with_positive < 2 || with_negative < 2) return std::nullopt;

  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  // Of a positive the share of negatives below it, of a negative the share of positives above it; ties count one half.
  std::vector<double> placement(scores.size());
  double positives_below = 0, negatives_below = 0, sum = 0;
  for (size_t begin = 0, end; begin < order.size(); begin = end) {
    double tied_positives = 0, tied_negatives = 0;
    for (end = begin; end < order.size() && scores[order[end]] == scores[order[begin]]; ++end)
      (labels[order[end]] ? tied_positives : tied_negatives) += 1;
    for (size_t i = begin; i < end; ++i)
      placement[order[i]] =
          labels[order[i]] ? (negatives_below + tied_negatives / 2) / negatives : (positives - positives_below - tied_positives / 2) / positives;
    sum += tied_positives * (negatives_below + tied_negatives / 2);
    positives_below += tied_positives;
    negatives_below += tied_negatives;
  }
  AucInfluence result{sum / (positives * negatives), std::vector<double>(static_cast<size_t>(clusters), 0.0)};
  // Each class by its own degrees of freedom, as the variances of both papers have them.
  const double of_positive = std::sqrt(with_positive / (with_positive - 1)) / positives,
               of_negative = std::sqrt(with_negative / (with_negative - 1)) / negatives;
  for (size_t row = 0; row < scores.size(); ++row)
    result.by_cluster[cluster[row]] += (placement[row] - result.auc) * (labels[row] ? of_positive : of_negative);
  return result;
}

}  // namespace ektm
