#include "nn/task_levels.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ektm {
namespace {

// view -> a -> c and click -> b, roots and conversions in mixed order.
const std::vector<TaskInfo> kMixed = {{"view", -1}, {"a", 0}, {"click", -1}, {"b", 2}, {"c", 1}};

TEST(TaskLevels, FollowsTheChains) {
  TaskLevels levels(kMixed);
  ASSERT_EQ(levels.count(), 3u);
  EXPECT_EQ(levels.tasks(0), (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(levels.tasks(1), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(levels.tasks(2), (std::vector<int64_t>{4}));
}

TEST(TaskLevels, PartsOfATensorComeTogetherAgain) {
  TaskLevels levels(kMixed);
  at::Tensor all = at::arange(10.).view({5, 2});
  std::vector<at::Tensor> parts;
  for (size_t l = 0; l < levels.count(); ++l) parts.push_back(levels.select(all, l));
  EXPECT_TRUE(at::equal(parts[1], at::tensor({2., 3., 6., 7.}).view({2, 2})));
  EXPECT_TRUE(at::equal(levels.join(parts), all));
}

TEST(TaskLevels, ParentsAreOneRowATaskOrOneForAll) {
  TaskLevels mixed(kMixed);
  at::Tensor roots = at::tensor({10., 20.}).view({2, 1});
  EXPECT_TRUE(at::equal(mixed.parents(roots, 1), roots));
  EXPECT_TRUE(at::equal(mixed.parents(at::tensor({30., 40.}).view({2, 1}), 2), at::full({1, 1}, 30.)));
  TaskLevels crossed({{"view", -1}, {"click", -1}, {"a", 1}, {"b", 0}, {"c", 1}});
  EXPECT_TRUE(at::equal(crossed.parents(roots, 1), at::tensor({20., 10., 20.}).view({3, 1})));
  TaskLevels parallel({{"view", -1}, {"click", -1}, {"a", 1}, {"b", 1}});
  EXPECT_TRUE(at::equal(parallel.parents(roots, 1), at::full({1, 1}, 20.)));
}

TEST(PathBce, IsTheCrossEntropyOfTheProduct) {
  at::manual_seed(1);
  at::Tensor z = at::randn({5, 40}, at::kDouble) * 2, y = at::rand({5, 40}, at::kDouble).round();
  at::Tensor loss = path_bce(z, y, TaskLevels(kMixed));
  for (int64_t t = 0; t < 5; ++t)
    for (int64_t b = 0; b < 40; ++b) {
      double p = 1;
      for (int64_t a = t; a >= 0; a = kMixed[a].parent) p /= 1 + std::exp(-z[a][b].item<double>());
      const double label = y[t][b].item<double>();
      EXPECT_NEAR(loss[t][b].item<double>(), -(label * std::log(p) + (1 - label) * std::log(1 - p)), 1e-12);
    }
}

// Logits at which the product, or 1 minus it, is 0 in float32: loss and gradient stay those of the equation.
TEST(PathBce, ExtremeLogitsKeepLossAndGradient) {
  TaskLevels chain({{"click", -1}, {"a", 0}});
  //                         both sure   both never   click sure, a never
  at::Tensor z = at::tensor({60.f, -60.f, 60.f, 60.f, -60.f, -60.f}).view({2, 3}).requires_grad_(true);
  at::Tensor labels = at::tensor({0.f, 1.f, 0.f, 0.f, 1.f, 1.f}).view({2, 3});
  at::Tensor loss = path_bce(z, labels, chain);
  EXPECT_NEAR(loss[1][0].item<float>(), 60 - std::log(2.f), 1e-4);  // 1 - P = 2 exp(-60)
  EXPECT_NEAR(loss[1][1].item<float>(), 120, 1e-4);
  EXPECT_NEAR(loss[1][2].item<float>(), 60, 1e-4);
  loss[1].sum().backward();
  at::Tensor expected = at::tensor({0.5f, -1.f, 0.f, 0.5f, -1.f, -1.f}).view({2, 3});
  EXPECT_TRUE(at::allclose(z.grad(), expected, 1e-5, 1e-6)) << z.grad();
}

}  // namespace
}  // namespace ektm
