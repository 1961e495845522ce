#include "base/auc.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace ektm {
namespace {

using Scored = std::vector<std::pair<double, bool>>;

TEST(TieAwareAuc, ByHand) {
  Scored perfect = {{0.9, true}, {0.1, false}}, reversed = {{0.1, true}, {0.9, false}}, tied = {{0.5, true}, {0.5, false}};
  EXPECT_EQ(tie_aware_auc(perfect), 1.0);
  EXPECT_EQ(tie_aware_auc(reversed), 0.0);
  EXPECT_EQ(tie_aware_auc(tied), 0.5);
  // Of the pairs (2,1) (2,2) (3,1) (3,2): three are won and one is a tie.
  Scored mixed = {{1, false}, {2, true}, {2, false}, {3, true}};
  EXPECT_EQ(tie_aware_auc(mixed), 3.5 / 4);
}

TEST(TieAwareAuc, AbsentWithoutBothClasses) {
  Scored none, positive = {{1, true}}, negative = {{1, false}};
  EXPECT_FALSE(tie_aware_auc(none));
  EXPECT_FALSE(tie_aware_auc(positive));
  EXPECT_FALSE(tie_aware_auc(negative));
}

TEST(TieAwareAuc, EqualsTheCountOfAllPairs) {
  Rng rng(5);
  for (int round = 0; round < 20; ++round) {
    Scored scored = {{0, true}, {0, false}};
    for (int i = 0; i < 100; ++i) scored.emplace_back(static_cast<double>(rng.below(10)), rng.uniform() < 0.3);
    double wins = 0, pairs = 0;
    for (const auto& a : scored)
      for (const auto& b : scored)
        if (a.second && !b.second) ++pairs, wins += a.first > b.first ? 1 : a.first == b.first ? 0.5 : 0;
    EXPECT_DOUBLE_EQ(*tie_aware_auc(scored), wins / pairs);
  }
}

}  // namespace
}  // namespace ektm
