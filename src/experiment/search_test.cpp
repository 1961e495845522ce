#include "experiment/search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <set>

namespace ektm {
namespace {

const std::vector<size_t> kSizes{4, 3, 5, 2, 3};  // 360 combinations
const std::vector<std::optional<size_t>> kFree(5);

// The best is {2, 1, 3, 0, 2}, with 0; every step away from it on a key costs.
double response(const TrialChoices& x) {
  const TrialChoices best{2, 1, 3, 0, 2};
  const double costs[] = {3, 2, 1, 0.5, 1.5};
  double value = 0;
  for (size_t i = 0; i < x.size(); ++i) value -= costs[i] * std::abs(static_cast<double>(x[i]) - static_cast<double>(best[i]));
  return value;
}

TrialChoices draw_evenly(Rng& rng) {
  TrialChoices choices;
  for (size_t size : kSizes) choices.push_back(rng.below(size));
  return choices;
}

std::vector<TriedChoices> search(uint64_t seed, int trials, int startup) {
  std::vector<TriedChoices> history;
  for (int trial = 0; trial < trials; ++trial) {
    Rng rng(seed, static_cast<uint64_t>(trial));
    const TrialChoices choices = trial < startup ? draw_evenly(rng) : propose_tpe(kSizes, kFree, history, {}, rng);
    history.push_back({choices, response(choices)});
  }
  return history;
}

TEST(Search, TpeFindsTheBestOftenerThanRandomDraws) {
  constexpr int kSeeds = 200, kTrials = 40;
  int tpe = 0, random = 0;
  double tpe_regret = 0, random_regret = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    double best[2] = {-1e9, -1e9};
    for (const auto& trial : search(seed, kTrials, 5)) best[0] = std::max(best[0], *trial.value);
    for (const auto& trial : search(seed, kTrials, kTrials)) best[1] = std::max(best[1], *trial.value);
    tpe += best[0] == 0, random += best[1] == 0;
    tpe_regret -= best[0] / kSeeds, random_regret -= best[1] / kSeeds;
  }
  RecordProperty("tpe_hits", tpe);
  RecordProperty("random_hits", random);
  std::printf("best found in %d trials of 360 combinations, %d seeds: TPE %d, random %d; mean regret %.3f, %.3f\n", kTrials, kSeeds, tpe, random,
              tpe_regret, random_regret);
  EXPECT_GT(tpe, 2 * random);
  EXPECT_LT(tpe_regret, random_regret / 2);
}

TEST(Search, EstimatesAreCountsWithAPrior) {
  const TriedChoices a{{0, 2}, 1.0}, b{{0, 1}, 0.5}, c{{1, 2}, 0.2};
  const auto logs = log_parzen({&a, &b, &c}, 1, 4, 1);
  const double expected[] = {0.25 / 4, 1.25 / 4, 2.25 / 4, 0.25 / 4};
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(std::exp(logs[i]), expected[i], 1e-12);
  for (double value : log_parzen({}, 0, 5, 1)) EXPECT_NEAR(std::exp(value), 0.2, 1e-12);
}

TEST(Search, SameHistoryAndStreamGiveTheSameTrial) {
  const auto once = search(3, 30, 5), again = search(3, 30, 5), other = search(4, 30, 5);
  bool differs = false;
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_EQ(once[i].choices, again[i].choices);
    differs |= once[i].choices != other[i].choices;
  }
  EXPECT_TRUE(differs);
}

// To the last combination, also where the estimate of the good trials lies on what was tried; then anything goes.
TEST(Search, NothingIsTriedTwiceWhileSomethingIsLeft) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::vector<TriedChoices> history;
    std::set<TrialChoices> tried;
    for (int trial = 0; trial < 360; ++trial) {
      Rng rng(seed, static_cast<uint64_t>(trial));
      const TrialChoices choices = propose_tpe(kSizes, kFree, history, {}, rng);
      ASSERT_TRUE(tried.insert(choices).second) << "trial " << trial;
      history.push_back({choices, response(choices)});
    }
    Rng rng(seed, 360);
    EXPECT_TRUE(tried.count(propose_tpe(kSizes, kFree, history, {}, rng)));
  }
}

TEST(Search, FixedKeysKeepTheirChoice) {
  std::vector<std::optional<size_t>> fixed(5);
  fixed[0] = 1, fixed[2] = 4;
  std::vector<TriedChoices> history;
  std::set<TrialChoices> tried;
  for (int trial = 0; trial < 3 * 2 * 3; ++trial) {
    Rng rng(9, static_cast<uint64_t>(trial));
    const TrialChoices choices = propose_tpe(kSizes, fixed, history, {}, rng);
    EXPECT_EQ(choices[0], 1u);
    EXPECT_EQ(choices[2], 4u);
    EXPECT_TRUE(tried.insert(choices).second);
    history.push_back({choices, response(choices)});
  }
}

// Where one choice always breaks off, TPE leaves it; NaN is no value either, and with nothing but failures the draws still go on.
TEST(Search, TrialsThatBrokeOffAreTheWorst) {
  int bad = 0, proposed = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    std::vector<TriedChoices> history;
    for (int trial = 0; trial < 20; ++trial) {
      Rng rng(seed, static_cast<uint64_t>(trial));
      const TrialChoices choices = trial < 8 ? draw_evenly(rng) : propose_tpe(kSizes, kFree, history, {}, rng);
      if (trial >= 8) ++proposed, bad += choices[3] == 1;
      std::optional<double> value = 1.0;
      if (choices[3] == 1) value = trial % 2 ? std::optional<double>() : std::numeric_limits<double>::quiet_NaN();
      history.push_back({choices, value});
    }
  }
  EXPECT_LT(bad, proposed / 10);
  Rng rng(1);
  const std::vector<TriedChoices> broken{{{0, 0, 0, 0, 0}, {}}, {{1, 0, 0, 0, 0}, {}}};
  EXPECT_NE(propose_tpe(kSizes, kFree, broken, {}, rng), broken[0].choices);
}

}  // namespace
}  // namespace ektm
