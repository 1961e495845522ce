// Against the formulas of online_regression.h written out with loops, and against a stream whose coefficients are known.
#include "nn/online_regression.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"

namespace ektm {
namespace {

constexpr double kPrior = 5, kWarmup = 2;

struct Stream {
  at::Tensor logits, sources, labels, weight;  // [1,B], [K,B], [1,B], [1,B]
};

// logit P(y = 1) = `intercept` + truth . u. The logits given are those of `coefficients`, plus `offset`.
Stream draw(Rng& rng, int64_t rows, const std::vector<double>& truth, const at::Tensor& coefficients, double intercept, double offset) {
  const int64_t sources = static_cast<int64_t>(truth.size());
  Stream stream{at::zeros({1, rows}, at::kDouble), at::zeros({sources, rows}, at::kDouble), at::zeros({1, rows}, at::kDouble), at::ones({1, rows}, at::kDouble)};
  auto u = stream.sources.accessor<double, 2>();
  auto y = stream.labels.accessor<double, 2>();
  for (int64_t b = 0; b < rows; ++b) {
    double logit = intercept;
    for (int64_t j = 0; j < sources; ++j) {
      u[j][b] = rng.normal();
      logit += truth[static_cast<size_t>(j)] * u[j][b];
    }
    y[0][b] = rng.uniform() < 1 / (1 + std::exp(-logit));
  }
  stream.logits = at::matmul(coefficients.to(at::kDouble), stream.sources) + offset;
  return stream;
}

at::Tensor row(std::vector<double> values) { return at::tensor(values, at::kDouble).unsqueeze(0); }

// The same by loops. p must predict the number of positives: bisection instead of Newton's method.
struct ByHand {
  std::vector<double> start, a, r, d2;
  std::vector<std::vector<double>> s;
  int64_t batches = 0;
  explicit ByHand(std::vector<double> from) : start(from), a(from), r(from.size(), 0.0), d2(from.size(), 0.0), s(from.size(), std::vector<double>(from.size(), 0.0)) {}

  void observe(const Stream& stream) {
    const size_t k = a.size();
    const int64_t rows = stream.logits.size(1);
    auto z = stream.logits.accessor<double, 2>();
    auto u = stream.sources.accessor<double, 2>();
    auto y = stream.labels.accessor<double, 2>();
    auto w = stream.weight.accessor<double, 2>();
    double positives = 0, low = -50, high = 50;
    for (int64_t b = 0; b < rows; ++b) positives += w[0][b] * y[0][b];
    auto curvature = [](double q, double label) { return (q * (1 - q) + (label - q) * (label - q)) / 2; };
    auto p = [&](int64_t b, double shift) { return 1 / (1 + std::exp(-z[0][b] - shift)); };
    for (int i = 0; i < 200; ++i) {
      const double middle = (low + high) / 2;
      double sum = 0;
      for (int64_t b = 0; b < rows; ++b) sum += w[0][b] * p(b, middle);
      (sum < positives ? low : high) = middle;
    }
    std::vector<double> mean(k, 0), slope(k, 0);
    double total = 0;
    for (int64_t b = 0; b < rows; ++b) {
      const double q = p(b, low), weight = w[0][b] * curvature(q, y[0][b]);
      total += weight;
      for (size_t j = 0; j < k; ++j) mean[j] += weight * u[j][b], slope[j] += w[0][b] * (y[0][b] - q) * u[j][b];
    }
    ++batches;
    const double keep = 1 - 1 / static_cast<double>(batches);
    std::vector<std::vector<double>> h(k, std::vector<double>(k, 0.0));
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < k; ++j)
        for (int64_t b = 0; b < rows; ++b)
          h[i][j] += w[0][b] * curvature(p(b, low), y[0][b]) * (u[i][b] - mean[i] / total) * (u[j][b] - mean[j] / total);
    std::vector<double> d(k);
    for (size_t i = 0; i < k; ++i) {
      d2[i] = batches == 1 ? h[i][i] / total : 0.9 * d2[i] + 0.1 * h[i][i] / total;
      d[i] = std::sqrt(std::max(d2[i], 1.0));
    }
    for (size_t i = 0; i < k; ++i) {
      r[i] *= keep;
      for (size_t j = 0; j < k; ++j) {
        s[i][j] = keep * s[i][j] + h[i][j] / (d[i] * d[j]);
        r[i] += h[i][j] / d[i] * (a[j] - start[j]);
      }
      r[i] += slope[i] / d[i];
    }
    // Two sources within [-1, 1]: a fine grid of what the second is, the best first to each by its formula.
    const double ridge = kPrior * (1 + kWarmup / static_cast<double>(batches)), s00 = s[0][0] + ridge, s11 = s[1][1] + ridge, s01 = s[0][1];
    double best = INFINITY;
    constexpr int kGrid = 200000;
    for (int g = 0; g <= kGrid; ++g) {
      const double a1 = -1 + 2.0 * g / kGrid, c1 = (a1 - start[1]) * d[1];
      const double a0 = std::clamp(start[0] + (r[0] - s01 * c1) / s00 / d[0], -1.0, 1.0), c0 = (a0 - start[0]) * d[0];
      const double value = (s00 * c0 * c0 + s11 * c1 * c1) / 2 + s01 * c0 * c1 - r[0] * c0 - r[1] * c1;
      if (value < best) best = value, a = {a0, a1};
    }
  }
};

// Within [-1, 1].
OnlineRegression make(ParameterStore& store, const at::Tensor& start, const at::Tensor& open = {}) {
  return OnlineRegression(store, "r", start, open.defined() ? open : at::ones_like(start).to(at::kBool), at::full_like(start, -1), at::ones_like(start), kPrior, kWarmup);
}

TEST(OnlineRegression, ComputesItsFormulas) {
  for (double truth : {0.8, 5.0}) {  // the second outside the bounds
    ParameterStore store(1, at::kDouble);
    OnlineRegression regression = make(store, row({1, 0.25}));
    ByHand by_hand({1, 0.25});
    Rng rng(3);
    for (int batch = 0; batch < 4; ++batch) {
      Stream stream = draw(rng, 200, {0.3, truth}, regression.coefficients(), -1.5, 0.4 * batch);
      for (int64_t b = 0; b < 50; ++b) stream.weight[0][b] = b % 3 == 0 ? 0.0 : 0.5;
      stream.sources[0] *= 0.5, stream.sources[1] *= 2;  // below and above the scale from which it counts
      regression.observe(stream.logits, stream.sources, stream.labels, stream.weight);
      by_hand.observe(stream);
      // to the width of the grid
      for (int64_t j = 0; j < 2; ++j) EXPECT_NEAR(regression.coefficients()[0][j].item<double>(), by_hand.a[static_cast<size_t>(j)], 2e-5) << "batch " << batch;
    }
    EXPECT_EQ(regression.coefficients()[0][1].item<double>() == 1, truth > 1);
  }
}

TEST(OnlineRegression, PredictsTheNumberOfPositivesHoweverTheLogitsLie) {
  // One row that is sure outweighs all others at the start; or two clusters, between which the likelihood is flat.
  for (const bool clusters : {false, true}) {
    ParameterStore store(1, at::kDouble);
    OnlineRegression regression = make(store, row({1, 0.25}));
    ByHand by_hand({1, 0.25});
    Rng rng(4);
    Stream stream = draw(rng, 500, {0.3, 0.5}, regression.coefficients(), -1.5, clusters ? 0 : -6);
    if (clusters)
      for (int64_t b = 0; b < 500; ++b) stream.logits[0][b] += b % 2 == 0 ? 9 : -9;
    else
      stream.logits[0][7] = 20;
    regression.observe(stream.logits, stream.sources, stream.labels, stream.weight);
    by_hand.observe(stream);
    for (int64_t j = 0; j < 2; ++j) EXPECT_NEAR(regression.coefficients()[0][j].item<double>(), by_hand.a[static_cast<size_t>(j)], 1e-3) << "clusters " << clusters;
  }
}

TEST(OnlineRegression, TheScaleOfTheSourcesDoesNotCount) {
  // Sources that shrink to a twentieth while they are seen, with coefficients that grow likewise: what was seen while they were large says the same, and does
  // not count for more. In natural units it would have 400 times the weight.
  ParameterStore steady_store(1, at::kDouble), shrinking_store(1, at::kDouble);
  OnlineRegression steady = make(steady_store, row({0, 0})), shrinking = make(shrinking_store, row({0, 0}));
  Rng rng(7), same(7);
  for (int batch = 0; batch < 200; ++batch) {
    const double scale = std::pow(20, 1 - std::min(batch, 100) / 100.0);
    const Stream a = draw(rng, 500, {0.5, -0.2}, steady.coefficients(), -1, 0), b = draw(same, 500, {0.5, -0.2}, shrinking.coefficients() * scale, -1, 0);
    steady.observe(a.logits, a.sources, a.labels, a.weight);
    shrinking.observe(b.logits, b.sources * scale, b.labels, b.weight);
  }
  for (int64_t j = 0; j < 2; ++j) EXPECT_NEAR(shrinking.coefficients()[0][j].item<double>(), steady.coefficients()[0][j].item<double>(), 0.05);
}

TEST(OnlineRegression, FindsTheCoefficientsOfARareLabelWhateverTheIntercept) {
  for (double offset : {-6.0, 0.0, 3.0}) {  // true: -4.5
    ParameterStore store(1);
    OnlineRegression regression = make(store, row({1, 0, 0}));
    Rng rng(4);
    double positives = 0;
    for (int batch = 0; batch < 100; ++batch) {
      Stream stream = draw(rng, 1000, {0.1, 0.9, -0.4}, regression.coefficients(), -4.5, offset);
      positives += stream.labels.sum().item<double>();
      regression.observe(stream.logits.to(at::kFloat), stream.sources.to(at::kFloat), stream.labels.to(at::kFloat), stream.weight.to(at::kFloat));
    }
    const double error = 3 / std::sqrt(0.75 * positives);  // three standard errors; weights k / n use three quarters of the data
    const double expected[] = {0.1, 0.9, -0.4};
    for (int64_t j = 0; j < 3; ++j) EXPECT_NEAR(regression.coefficients()[0][j].item<double>(), expected[j], error) << "offset " << offset;
  }
}

TEST(OnlineRegression, HoldsToItsStartWithoutEvidence) {
  ParameterStore store(1);
  const at::Tensor open = at::tensor({1, 1, 0}).to(at::kBool).unsqueeze(0);
  OnlineRegression regression = make(store, row({1, 0, 0}), open);
  Rng rng(5);
  Stream stream = draw(rng, 500, {0, 1, 1}, regression.coefficients(), -1, 0);
  // No positive, no negative, nothing observed.
  for (const at::Tensor& labels : {at::zeros({1, 500}), at::ones({1, 500})})
    regression.observe(stream.logits.to(at::kFloat), stream.sources.to(at::kFloat), labels, at::ones({1, 500}));
  regression.observe(stream.logits.to(at::kFloat), stream.sources.to(at::kFloat), stream.labels.to(at::kFloat), at::zeros({1, 500}));
  EXPECT_TRUE(at::equal(regression.coefficients(), row({1, 0, 0}).to(at::kFloat)));
  // What is closed stays closed, and the rest moves.
  regression.observe(stream.logits.to(at::kFloat), stream.sources.to(at::kFloat), stream.labels.to(at::kFloat), at::ones({1, 500}));
  EXPECT_EQ(regression.coefficients()[0][2].item<double>(), 0);
  EXPECT_GT(regression.coefficients()[0][1].item<double>(), 0.5);
}

TEST(OnlineRegression, ItsStateIsInTheStore) {
  // A second regression that is given the state goes on to the same numbers.
  ParameterStore first(1), second(1);
  OnlineRegression a = make(first, row({1, 0})), b = make(second, row({1, 0}));
  Rng rng(6);
  auto observe = [&](OnlineRegression& regression, const Stream& s) {
    regression.observe(s.logits.to(at::kFloat), s.sources.to(at::kFloat), s.labels.to(at::kFloat), s.weight.to(at::kFloat));
  };
  for (int batch = 0; batch < 3; ++batch) observe(a, draw(rng, 300, {0, 1}, a.coefficients(), -1, 0));
  for (size_t i = 0; i < first.entries().size(); ++i) {
    EXPECT_FALSE(first.entries()[i].trainable);
    second.entries()[i].tensor.copy_(first.entries()[i].tensor);
  }
  const Stream next = draw(rng, 300, {0, 1}, a.coefficients(), -1, 0);
  observe(a, next);
  observe(b, next);
  EXPECT_TRUE(at::equal(a.coefficients(), b.coefficients()));
}

}  // namespace
}  // namespace ektm
