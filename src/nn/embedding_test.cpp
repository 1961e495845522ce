#include "nn/embedding.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/threads.h"
#include "tests/support/toy_data.h"

namespace ektm {
namespace {

// x by the definition, and for each arena row the summed gradient, in double.
struct BruteForce {
  std::vector<std::vector<double>> x;                  // [G*B][D]
  std::map<int64_t, std::vector<double>> row_grads;    // row -> [W]
};

BruteForce brute_force(const EmbeddingStore& store, const DatasetInfo& info, const Batch& batch, const at::Tensor& x_grad) {
  BruteForce result;
  const int64_t dim = store.dim(), groups = store.groups();
  const float* weights = store.weights().const_data_ptr<float>();
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t b = 0; b < batch.rows; ++b) {
      std::vector<double> x;
      int64_t slot = 0;
      auto look_up = [&](int64_t row, double scale, std::vector<double>& into) {
        auto& grad = result.row_grads[row];
        grad.resize(store.width());
        for (int64_t w = 0; w < dim; ++w) {
          into[w] += scale * weights[row * store.width() + g * dim + w];
          grad[g * dim + w] += scale * x_grad[g][b][slot * dim + w].item<double>();
        }
      };
      for (size_t f = 0; f < info.fields.size(); ++f, ++slot) {
        std::vector<double> values(dim);
        look_up(store.table_offset(info.fields[f].table) + batch.ids[b * info.fields.size() + f], 1, values);
        x.insert(x.end(), values.begin(), values.end());
      }
      for (size_t k = 0; k < info.bags.size(); ++k, ++slot) {
        std::vector<double> values(dim);
        const Bag& bag = batch.bags[k];
        for (int32_t i = bag.offsets[b]; i < bag.offsets[b + 1]; ++i)
          look_up(store.table_offset(info.bags[k].table) + bag.values[i], info.bags[k].sum_pooling ? 1.0 : 1.0 / (bag.offsets[b + 1] - bag.offsets[b]),
                  values);
        x.insert(x.end(), values.begin(), values.end());
      }
      for (size_t n = 0; n < info.numbers.size(); ++n) x.push_back(batch.numbers[b * info.numbers.size() + n]);
      result.x.push_back(x);
    }
  return result;
}

class EmbeddingTest : public testing::TestWithParam<int64_t> {};

TEST_P(EmbeddingTest, GatherAndRowGradientsEqualTheDefinition) {
  const DatasetInfo info = toy_info("parallel");
  EmbeddingConfig config;
  config.dim = 3;
  config.init_std = 1;
  EmbeddingStore store(info, config, GetParam(), 5);
  const Batch batch = toy_batch(info, 300, 9);
  at::Tensor x = store.gather(batch, true);
  ASSERT_TRUE(x.requires_grad());
  at::Tensor x_grad = at::randn(x.sizes());
  const double squares = store.collect(batch, x_grad);
  BruteForce expected = brute_force(store, info, batch, x_grad);
  for (int64_t g = 0; g < GetParam(); ++g)
    for (int64_t b = 0; b < batch.rows; ++b)
      for (int64_t d = 0; d < store.features(); ++d)
        ASSERT_NEAR(x[g][b][d].item<double>(), expected.x[g * batch.rows + b][d], 1e-5) << g << " " << b << " " << d;
  ASSERT_EQ(store.unique_rows().size(), expected.row_grads.size());
  double expected_squares = 0;
  for (size_t u = 0; u < store.unique_rows().size(); ++u) {
    const auto& grad = expected.row_grads.at(store.unique_rows()[u]);
    for (int64_t w = 0; w < store.width(); ++w) {
      ASSERT_NEAR(store.row_grads()[static_cast<int64_t>(u)][w].item<double>(), grad[w], 2e-5);
      expected_squares += grad[w] * grad[w];
    }
  }
  EXPECT_NEAR(squares, expected_squares, 1e-4 * expected_squares);
}

TEST_P(EmbeddingTest, OnlyTouchedRowsChange) {
  const DatasetInfo info = toy_info("parallel");
  for (const char* optimizer : {"adam", "adagrad", "rowwise_adagrad", "sgd"}) {
    EmbeddingConfig config;
    config.optimizer = optimizer;
    config.l2 = 0.1;
    EmbeddingStore store(info, config, GetParam(), 5);
    const Batch batch = toy_batch(info, 2, 9);
    at::Tensor before = store.weights().clone();
    store.collect(batch, at::ones({GetParam(), batch.rows, store.features()}));
    store.apply(1, 1);
    std::vector<bool> touched(store.rows());
    for (int64_t row : store.unique_rows()) touched[row] = true;
    int64_t untouched = 0;
    for (int64_t row = 0; row < store.rows(); ++row) {
      EXPECT_EQ(at::equal(before[row], store.weights()[row]), !touched[row]) << optimizer << " row " << row;
      untouched += !touched[row];
    }
    EXPECT_GT(untouched, 0);
  }
}

// Handed out one by one, the values of a bag get the gradients that the sum of them would have passed on.
TEST_P(EmbeddingTest, UnpooledBags) {
  const DatasetInfo info = toy_info("parallel");
  EmbeddingConfig config;
  config.dim = 3;
  EmbeddingStore pooled(info, config, GetParam(), 5), unpooled(info, config, GetParam(), 5, {1});
  const Batch batch = toy_batch(info, 300, 9);
  const Bag& tags = batch.bags[1];  // sum-pooled
  at::Tensor x = unpooled.gather(batch, true), values = unpooled.look_up(batch, 1, true), expected = pooled.gather(batch, true);
  const int64_t slot = static_cast<int64_t>(info.fields.size() + 1) * 3, count = static_cast<int64_t>(tags.values.size());
  ASSERT_TRUE(values.requires_grad());
  ASSERT_EQ(values.sizes(), at::IntArrayRef({count, GetParam() * 3}));
  for (int64_t i = 0; i < count; ++i)
    ASSERT_TRUE(at::equal(values[i], unpooled.weights()[unpooled.table_offset(info.bags[1].table) + tags.values[i]]));
  EXPECT_EQ(x.narrow(2, slot, 3).abs().max().item<float>(), 0);
  EXPECT_TRUE(at::equal(x.narrow(2, 0, slot), expected.narrow(2, 0, slot)));
  EXPECT_TRUE(at::equal(x.narrow(2, slot + 3, 2), expected.narrow(2, slot + 3, 2)));

  at::Tensor x_grad = at::randn(x.sizes()), value_grads = at::empty({count, GetParam(), 3});
  for (int64_t b = 0; b < batch.rows; ++b)
    for (int32_t i = tags.offsets[b]; i < tags.offsets[b + 1]; ++i) value_grads[i] = x_grad.select(1, b).narrow(1, slot, 3);
  const double squares = pooled.collect(batch, x_grad);
  EXPECT_EQ(unpooled.collect(batch, x_grad, {value_grads.view({count, -1})}), squares);
  EXPECT_EQ(unpooled.unique_rows(), pooled.unique_rows());
  EXPECT_TRUE(at::equal(unpooled.row_grads(), pooled.row_grads()));
}

INSTANTIATE_TEST_SUITE_P(Groups, EmbeddingTest, testing::Values(1, 4));

TEST(EmbeddingStore, AdamFollowsTheFormula) {
  DatasetInfo info;
  info.tables = {{"t", 3}};
  info.fields = {{"f", 0, false}};
  EmbeddingConfig config;
  config.dim = 1;
  config.learning_rate = 0.1;
  EmbeddingStore store(info, config, 1, 1);
  Batch batch;
  batch.rows = 1;
  batch.ids = {2};
  double weight = store.weights()[2][0].item<double>(), m = 0, v = 0;
  for (int step = 1; step <= 5; ++step) {
    const double g = 0.5 * step;
    store.collect(batch, at::full({1, 1, 1}, g));
    store.apply(0.5, 2);  // gradient halved, rate doubled
    m = 0.9 * m + 0.1 * g / 2;
    v = 0.999 * v + 0.001 * g * g / 4;
    weight -= 0.2 * m / (1 - std::pow(0.9, step)) / (std::sqrt(v / (1 - std::pow(0.999, step))) + 1e-8);
    EXPECT_NEAR(store.weights()[2][0].item<double>(), weight, 1e-6);
  }
}

TEST(EmbeddingStore, BitsDoNotDependOnThreads) {
  const DatasetInfo info = toy_info("parallel");
  auto train = [&](int threads) {
    set_threads(threads);
    EmbeddingStore store(info, EmbeddingConfig{}, 2, 5);
    at::Tensor grad;
    for (int step = 0; step < 3; ++step) {
      const Batch batch = toy_batch(info, 3000, 20 + step);
      at::manual_seed(step);
      store.collect(batch, at::randn({2, batch.rows, store.features()}));
      store.apply(1, 1);
    }
    set_threads(1);
    return store.weights();
  };
  EXPECT_TRUE(at::equal(train(1), train(2)));
}

TEST(EmbeddingStore, TheStartOfATableDependsOnItsNameAndSeedAlone) {
  DatasetInfo one, two;
  one.tables = {{"user", 5}};
  two.tables = {{"item", 7}, {"user", 5}};
  one.fields = {{"user", 0, false}};
  two.fields = {{"item", 0, false}, {"user", 1, false}};
  EmbeddingStore a(one, EmbeddingConfig{}, 1, 3), b(two, EmbeddingConfig{}, 1, 3), c(one, EmbeddingConfig{}, 1, 4);
  EXPECT_TRUE(at::equal(a.weights(), b.weights().narrow(0, 7, 5)));
  EXPECT_FALSE(at::equal(a.weights(), c.weights()));
}

}  // namespace
}  // namespace ektm
