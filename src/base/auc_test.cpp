#include "base/auc.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace ektm {
namespace {

using Rows = std::vector<ScoredRows>;

TEST(TieAwareAuc, ByHand) {
  Rows perfect = {{0.9, 1, 0}, {0.1, 0, 1}}, reversed = {{0.1, 1, 0}, {0.9, 0, 1}}, tied = {{0.5, 1, 1}};
  EXPECT_EQ(tie_aware_auc(perfect), 1.0);
  EXPECT_EQ(tie_aware_auc(reversed), 0.0);
  EXPECT_EQ(tie_aware_auc(tied), 0.5);
  // Of the pairs (2,1) (2,2) (3,1) (3,2): three are won and one is a tie.
  Rows mixed = {{1, 0, 1}, {2, 1, 0}, {2, 0, 1}, {3, 1, 0}};
  EXPECT_EQ(tie_aware_auc(mixed), 3.5 / 4);
}

TEST(TieAwareAuc, AbsentWithoutBothClasses) {
  Rows none, positive = {{1, 2, 0}}, negative = {{1, 0, 2}};
  EXPECT_FALSE(tie_aware_auc(none));
  EXPECT_FALSE(tie_aware_auc(positive));
  EXPECT_FALSE(tie_aware_auc(negative));
}

TEST(TieAwareAuc, EqualsTheCountOfAllPairs) {
  Rng rng(5);
  for (int round = 0; round < 20; ++round) {
    Rows rows = {{0, 1, 1}};
    for (int i = 0; i < 100; ++i)
      rows.push_back(
          {static_cast<double>(rng.below(10)), static_cast<int64_t>(rng.below(3)), static_cast<int64_t>(rng.below(5))});
    double wins = 0, pairs = 0;
    for (const auto& a : rows)
      for (const auto& b : rows) {
        const double count = static_cast<double>(a.positives * b.negatives);
        pairs += count;
        wins += count * (a.score > b.score ? 1 : a.score == b.score ? 0.5 : 0);
      }
    EXPECT_DOUBLE_EQ(*tie_aware_auc(rows), wins / pairs);
  }
}

}  // namespace
}  // namespace ektm
