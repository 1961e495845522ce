#include "experiment/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/random.h"
#include "experiment/results.h"

namespace ektm {
namespace {

double squares(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

TEST(Statistics, StudentAsScipyHasIt) {
  EXPECT_NEAR(student_two_sided(0.5, 1), 0.704832764699133, 1e-12);
  EXPECT_NEAR(student_two_sided(-2.0, 1), 0.295167235300867, 1e-12);
  EXPECT_NEAR(student_two_sided(2.776, 4), 0.0500227783199764, 1e-12);
  EXPECT_NEAR(student_two_sided(1.3, 7), 0.234767835392377, 1e-12);
  EXPECT_NEAR(student_two_sided(3.0, 9), 0.0149563639104142, 1e-12);
  EXPECT_NEAR(student_two_sided(0.01, 30), 0.992087492573178, 1e-12);
  EXPECT_EQ(student_two_sided(0, 3), 1);
  EXPECT_NEAR(student_quantile(0.05, 1), 12.7062047362, 1e-9);
  EXPECT_NEAR(student_quantile(0.05, 2), 4.30265272975, 1e-9);
  EXPECT_NEAR(student_quantile(0.05, 4), 2.7764451052, 1e-9);
  EXPECT_NEAR(student_quantile(0.05, 29), 2.04522964213, 1e-9);
  EXPECT_NEAR(normal_two_sided(1.959963984540054), 0.05, 1e-12);
}

TEST(Statistics, PairedIntervalOverSeedsAsScipyHasIt) {
  const auto estimate = over_seeds({0.012, -0.004, 0.009, 0.015, 0.001});
  ASSERT_TRUE(estimate);
  EXPECT_NEAR(estimate->value, 0.0066, 1e-15);
  EXPECT_NEAR(estimate->interval.low, -0.00320049727719582, 1e-12);
  EXPECT_NEAR(estimate->interval.high, 0.0164004972771958, 1e-12);
  EXPECT_NEAR(estimate->p, 0.134869183396566, 1e-12);
  EXPECT_TRUE(estimate->holds_zero());
  EXPECT_NEAR(mean_std({0.012, -0.004, 0.009, 0.015, 0.001}).std, 0.007893034904268447, 1e-15);
  EXPECT_FALSE(over_seeds({0.1}));
  EXPECT_EQ(over_seeds({0.25, 0.25})->p, 0);  // no spread, and not 0
  EXPECT_EQ(over_seeds({0.0, 0.0})->p, 1);
}

Estimate error_of(double value, double error, std::optional<int64_t> degrees) { return {value, {value, value}, 1, error, degrees}; }

TEST(Statistics, SumOfTwoErrorsAsScipyIntegratesIt) {
  EXPECT_NEAR(sum_two_sided(2.5, error_of(0, 1, 4), error_of(0, 0.5, std::nullopt)), 0.07878948305072, 1e-10);
  EXPECT_NEAR(sum_two_sided(3, error_of(0, 0.7, 2), error_of(0, 1, std::nullopt)), 0.07366840859717, 1e-10);
  EXPECT_NEAR(sum_two_sided(1, error_of(0, 0.3, 1), error_of(0, 0.4, std::nullopt)), 0.2242343781433, 1e-10);
  EXPECT_NEAR(sum_two_sided(0.012, error_of(0, 0.0021, 4), error_of(0, 0.0033, std::nullopt)), 0.01101535683927, 1e-10);
  EXPECT_NEAR(sum_two_sided(4, error_of(0, 1, 2), error_of(0, 0.8, 2)), 0.1056225411951, 1e-10);
  EXPECT_NEAR(sum_two_sided(2, error_of(0, 1, 4), error_of(0, 1.5, 2)), 0.4056020399209, 1e-10);
  EXPECT_NEAR(sum_two_sided(9, error_of(0, 1, 9), error_of(0, 0.2, std::nullopt)), 8.695274545872e-06, 1e-10);
  // One of the two alone: its own law.
  EXPECT_NEAR(sum_two_sided(2.3, error_of(0, 1, 4), error_of(0, 0, std::nullopt)), student_two_sided(2.3, 4), 1e-12);
  EXPECT_NEAR(sum_two_sided(2.3, error_of(0, 1, 1), error_of(0, 0, std::nullopt)), student_two_sided(2.3, 1), 1e-12);
  for (int64_t degrees : {30, 100, 300, 1000})
    EXPECT_NEAR(sum_two_sided(3, error_of(0, 1, degrees), error_of(0, 0, std::nullopt)) / student_two_sided(3, degrees), 1, 1e-9) << degrees;
  EXPECT_NEAR(sum_two_sided(2.3, error_of(0, 0, 4), error_of(0, 1, std::nullopt)), normal_two_sided(2.3), 1e-12);
  EXPECT_EQ(sum_two_sided(0, error_of(0, 0, 4), error_of(0, 0, 2)), 1);
  EXPECT_EQ(sum_two_sided(0.1, error_of(0, 0, 4), error_of(0, 0, 2)), 0);
}

TEST(Statistics, TheIntervalOverBothHoldsTheOthers) {
  const auto seeds = *over_seeds({0.012, -0.004, 0.009, 0.015, 0.001});
  for (double variance : {0.0, 1e-7, 1e-5, 1e-3}) {
    const Estimate rows = over_rows(seeds.value, variance), both = over_both(seeds, rows);
    EXPECT_LE(both.interval.low, std::min(seeds.interval.low, rows.interval.low) + 1e-12);
    EXPECT_GE(both.interval.high, std::max(seeds.interval.high, rows.interval.high) - 1e-12);
    EXPECT_NEAR(sum_two_sided(both.interval.high - both.value, seeds, rows), 0.05, 1e-9);
    EXPECT_GE(both.p, std::max(seeds.p, rows.p) - 1e-12);
  }
  const Estimate certain = over_both(*over_seeds({0.25, 0.25}), over_rows(0.25, 0));
  EXPECT_EQ(certain.p, 0);
  EXPECT_FALSE(certain.holds_zero());
}

// What the test is for: where there is no difference, and the error of the rows is shared by all seeds, it errs in no more than its share of
// samples, far out as well; asking the interval over seeds and the one over rows by themselves errs more often.
TEST(Statistics, OverBothKeepsItsLevel) {
  constexpr int kSamples = 20000, kSeeds = 5;
  for (double share : {0.2, 0.5, 0.8, 1.0}) {  // of the variance of the mean, that of the seeds
    int both_05 = 0, both_005 = 0, each_05 = 0;
    for (int sample = 0; sample < kSamples; ++sample) {
      Rng rng(11, static_cast<uint64_t>(sample));
      const double of_rows = std::sqrt(1 - share) * rng.normal();
      std::vector<double> differences;
      for (int seed = 0; seed < kSeeds; ++seed) differences.push_back(of_rows + std::sqrt(share * kSeeds) * rng.normal());
      const auto seeds = *over_seeds(differences);
      const auto rows = over_rows(seeds.value, 1 - share);
      const double p = sum_two_sided(seeds.value, seeds, rows);
      both_05 += p < 0.05, both_005 += p < 0.005;
      each_05 += seeds.p < 0.05 && rows.p < 0.05;
    }
    EXPECT_LE(both_05, 0.055 * kSamples) << share;
    EXPECT_LE(both_005, 0.007 * kSamples) << share;
    EXPECT_GE(both_05, 0.025 * kSamples) << share;
    if (share == 0.5) EXPECT_GE(each_05, 0.075 * kSamples);
  }
}

TEST(Statistics, HolmByHand) {
  // Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2, 0.5 * 1, made to rise.
  EXPECT_EQ(holm({0.03, 0.01, 0.5, 0.02}), (std::vector<double>{0.06, 0.04, 0.5, 0.06}));
  EXPECT_EQ(holm({0.4, 0.9}), (std::vector<double>{0.8, 0.9}));
  EXPECT_EQ(holm({0.6, 0.7}), (std::vector<double>{1, 1}));
  EXPECT_TRUE(holm({}).empty());
}

// Twelve rows in five groups, two models with ties; the expected values are those of NumPy on the matrix of all pairs.
struct Case {
  std::vector<uint8_t> labels{1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 1};
  std::vector<float> a{.9f, .8f, .7f, .6f, .6f, .5f, .4f, .35f, .3f, .8f, .2f, .1f}, b{.7f, .9f, .8f, .5f, .4f, .5f, .6f, .3f, .1f, .9f, .35f, .2f};
  std::vector<int64_t> groups{0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4}, rows = std::vector<int64_t>(12);
  Case() { std::iota(rows.begin(), rows.end(), 0); }
};

TEST(Statistics, RowsAsClustersGiveDeLong) {
  const Case c;
  const auto a = auc_influence(c.a, c.labels, c.rows, 12), b = auc_influence(c.b, c.labels, c.rows, 12);
  ASSERT_TRUE(a && b);
  EXPECT_NEAR(a->auc, 2.0 / 3, 1e-12);
  EXPECT_NEAR(b->auc, 0.722222222222222, 1e-12);
  EXPECT_NEAR(squares(a->by_cluster, std::vector<double>(12, 0.0)), 0.0314814814814815, 1e-12);
  EXPECT_NEAR(squares(a->by_cluster, b->by_cluster), 0.00848765432098764, 1e-12);
  // The interval of `ektm evaluate` is the same method.
  BinaryAccumulator accumulator;
  for (size_t i = 0; i < 12; ++i) accumulator.add(c.a[i], c.labels[i]);
  const auto metrics = accumulator.compute(false);
  const double half = 1.959963984540054 * std::sqrt(squares(a->by_cluster, std::vector<double>(12, 0.0)));
  EXPECT_NEAR(metrics.auc_95->low, *metrics.auc - half, 1e-12);
}

TEST(Statistics, GroupsAsClusters) {
  const Case c;
  const auto a = auc_influence(c.a, c.labels, c.groups, 5), b = auc_influence(c.b, c.labels, c.groups, 5);
  ASSERT_TRUE(a && b);
  EXPECT_NEAR(squares(a->by_cluster, std::vector<double>(5, 0.0)), 0.00854443795976791, 1e-12);
  EXPECT_NEAR(squares(a->by_cluster, b->by_cluster), 0.0108512702980783, 1e-12);
  // One group with positives: no interval.
  EXPECT_FALSE(auc_influence({.1f, .2f, .3f, .4f}, {1, 1, 0, 0}, {0, 0, 1, 2}, 3));
}

// What the variance is for: over many samples of users, each with correlated rows, it is the spread of the AUC; DeLong's, which takes the
// rows as independent, is too small.
TEST(Statistics, VarianceByGroupsIsTheSpreadOverSamplesOfUsers) {
  constexpr int kSamples = 400, kUsers = 60, kRows = 8;
  std::vector<double> aucs;
  double by_groups = 0, by_rows = 0;
  for (int sample = 0; sample < kSamples; ++sample) {
    Rng rng(7, static_cast<uint64_t>(sample));
    std::vector<float> scores;
    std::vector<uint8_t> labels;
    std::vector<int64_t> users, rows;
    for (int user = 0; user < kUsers; ++user) {
      const double taste = rng.normal(), shift = rng.normal();
      for (int row = 0; row < kRows; ++row) {
        labels.push_back(taste + 0.5 * rng.normal() > 0.3);
        scores.push_back(static_cast<float>(labels.back() + 1.5 * shift + 0.5 * rng.normal()));
        users.push_back(user);
        rows.push_back(static_cast<int64_t>(rows.size()));
      }
    }
    const auto groups = auc_influence(scores, labels, users, kUsers), single = auc_influence(scores, labels, rows, kUsers * kRows);
    ASSERT_TRUE(groups && single);
    aucs.push_back(groups->auc);
    by_groups += squares(groups->by_cluster, std::vector<double>(groups->by_cluster.size(), 0.0)) / kSamples;
    by_rows += squares(single->by_cluster, std::vector<double>(single->by_cluster.size(), 0.0)) / kSamples;
  }
  const double spread = mean_std(aucs).std;
  EXPECT_NEAR(std::sqrt(by_groups) / spread, 1, 0.15);
  EXPECT_LT(std::sqrt(by_rows) / spread, 0.7);
}

TEST(Statistics, ADifferenceIsRealWhereSeedsAndRowsTogetherAndHolmSaySo) {
  auto comparison = [](std::vector<double> by_seed, double error_of_rows) {
    Comparison c;
    c.seeds = over_seeds(by_seed);
    c.difference = c.seeds->value;
    c.rows = over_rows(c.difference, error_of_rows * error_of_rows);
    return c;
  };
  const std::vector<double> gain = {0.0101, 0.0099, 0.0102, 0.0098, 0.01}, loss = {-0.0101, -0.0099, -0.0102, -0.0098, -0.01},
                            spread = {0.005, 0.015, 0.012, 0.008, 0.01};
  std::vector<Comparison> all = {comparison(gain, 0.001), comparison(loss, 0.001), comparison(gain, 0.006), comparison(spread, 0.004),
                                 comparison(spread, 0.005)};
  Comparison one_seed;
  one_seed.rows = over_rows(0.01, 1e-6);
  all.push_back(one_seed);
  std::vector<Comparison*> family;
  for (auto& c : all) family.push_back(&c);
  judge(family);
  EXPECT_EQ(all[0].verdict, Comparison::Verdict::Better);
  EXPECT_EQ(all[1].verdict, Comparison::Verdict::Worse);
  EXPECT_EQ(all[2].verdict, Comparison::Verdict::Tie);  // rows alone say so
  EXPECT_TRUE(all[2].rows->holds_zero());
  // Each alone excludes 0, together they do not.
  EXPECT_FALSE(all[4].seeds->holds_zero());
  EXPECT_FALSE(all[4].rows->holds_zero());
  EXPECT_TRUE(all[4].both->holds_zero());
  EXPECT_EQ(all[4].verdict, Comparison::Verdict::Tie);
  // Each alone stays below 0.05 after Holm's correction (.008, .037); both together do without it, but not as one of five.
  EXPECT_LT(all[3].both->p, 0.05);
  EXPECT_GE(*all[3].holm, 0.05);
  EXPECT_EQ(all[3].verdict, Comparison::Verdict::Tie);
  EXPECT_EQ(all[5].verdict, Comparison::Verdict::Undecided);
  EXPECT_FALSE(all[5].both);
  EXPECT_EQ(all[0].family, 5);  // those with a p-value
  std::vector<double> p;
  for (size_t i = 0; i < 5; ++i) p.push_back(all[i].both->p);
  const auto adjusted = holm(p);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(*all[i].holm, adjusted[i]);
}

}  // namespace
}  // namespace ektm
