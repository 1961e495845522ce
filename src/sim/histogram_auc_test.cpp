#include "sim/histogram_auc.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace ektm {
namespace {

TEST(HistogramAuc, CountsPairsAndTiesByHand) {
  HistogramAuc auc;
  auc.add(0.1f, false);
  auc.add(0.4f, true);
  auc.add(0.4f, false);
  auc.add(0.9f, true);
  // Pairs (positive, negative): (.4,.1) 1, (.4,.4) 1/2, (.9,.1) 1, (.9,.4) 1.
  EXPECT_DOUBLE_EQ(auc.auc().value(), 3.5 / 4);
}

TEST(HistogramAuc, AbsentWithoutBothClasses) {
  HistogramAuc auc;
  EXPECT_FALSE(auc.auc());
  auc.add(0.5f, true);
  EXPECT_FALSE(auc.auc());
  auc.add(0.5f, false);
  EXPECT_DOUBLE_EQ(auc.auc().value(), 0.5);
}

TEST(HistogramAuc, TakesTheWholeRange) {
  HistogramAuc auc;
  auc.add(0.0f, false);
  auc.add(1e-30f, false);
  auc.add(1.0f, true);
  EXPECT_DOUBLE_EQ(auc.auc().value(), 1);
}

TEST(HistogramAuc, NearBruteForce) {
  Rng rng(5);
  HistogramAuc auc;
  std::vector<float> predictions[2];
  for (int i = 0; i < 3000; ++i) {
    float p = static_cast<float>(std::exp(-6 * rng.uniform()));
    bool positive = rng.uniform() < p;
    auc.add(p, positive);
    predictions[positive].push_back(p);
  }
  double wins = 0;
  for (float a : predictions[1])
    for (float b : predictions[0]) wins += a > b ? 1 : a == b ? 0.5 : 0;
  EXPECT_NEAR(auc.auc().value(), wins / (double(predictions[0].size()) * predictions[1].size()), 2e-4);
}

}  // namespace
}  // namespace ektm
