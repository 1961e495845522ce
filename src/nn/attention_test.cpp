#include "nn/attention.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/random.h"
#include "base/threads.h"
#include "tests/support/same_gradients.h"

namespace ektm {
namespace {

at::Tensor offsets_of(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> offsets{0};
  for (int64_t length : lengths) offsets.push_back(offsets.back() + static_cast<int32_t>(length));
  return at::tensor(offsets, at::kInt);
}

struct Network {
  std::vector<at::Tensor> weights, biases;
  Network(int64_t groups, int64_t dim, const std::vector<int64_t>& hidden, bool last_bias) {
    int64_t in = 4 * dim;
    for (size_t l = 0; l <= hidden.size(); ++l) {
      const int64_t out = l < hidden.size() ? hidden[l] : 1;
      weights.push_back(leaf({groups, in, out}));
      if (l < hidden.size() || last_bias) biases.push_back(leaf({groups, 1, out}));
      in = out;
    }
  }
  std::vector<at::Tensor> leaves(std::vector<at::Tensor> others) const {
    for (const auto* list : {&weights, &biases}) others.insert(others.end(), list->begin(), list->end());
    return others;
  }
  // As the paper writes it, sample by sample.
  at::Tensor plain(const at::Tensor& values, const at::Tensor& query, const at::Tensor& offsets, bool softmax) const {
    const int64_t groups = query.size(0), samples = query.size(1), dim = query.size(2);
    std::vector<at::Tensor> by_group;
    for (int64_t g = 0; g < groups; ++g) {
      std::vector<at::Tensor> pooled;
      for (int64_t b = 0; b < samples; ++b) {
        const int64_t first = offsets[b].item<int32_t>(), count = offsets[b + 1].item<int32_t>() - first;
        at::Tensor e = values.narrow(0, first, count).narrow(1, g * dim, dim), q = query[g][b].expand({count, dim});
        at::Tensor y = at::cat({e, q, e - q, e * q}, 1);
        for (size_t l = 0; l < weights.size(); ++l) {
          y = at::mm(y, weights[l][g]);
          if (l < biases.size()) y = y + biases[l][g];
          if (l + 1 < weights.size()) y = y.relu();
        }
        if (softmax) y = at::softmax(y, 0);
        pooled.push_back((y * e).sum(0));
      }
      by_group.push_back(at::stack(pooled));
    }
    return at::stack(by_group);
  }
};

struct Attention : testing::TestWithParam<std::tuple<int, bool, std::vector<int64_t>>> {  // threads, softmax, hidden
  void SetUp() override {
    at::manual_seed(3);
    set_threads(std::get<0>(GetParam()));
  }
  void TearDown() override { set_threads(1); }
};

TEST_P(Attention, EqualsItsFormula) {
  const auto& [threads, softmax, hidden] = GetParam();
  Rng rng(5);
  std::vector<int64_t> many;
  for (int i = 0; i < 300; ++i) many.push_back(static_cast<int64_t>(rng.below(12)));
  // None, one, some without any value, one longer than a block; many.
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{3}, {0}, {2, 0, 1, 5, 0}, {700, 1, 600, 3}, many})
    for (int64_t groups : {1, 3}) {
      SCOPED_TRACE(testing::Message() << lengths.size() << " samples, " << groups << " groups");
      const int64_t dim = 3, positions = std::accumulate(lengths.begin(), lengths.end(), int64_t{0}), samples = static_cast<int64_t>(lengths.size());
      const at::Tensor offsets = offsets_of(lengths);
      at::Tensor values = leaf({positions, groups * dim}), query = leaf({groups, samples, dim}), wide = leaf({groups, samples, 7});
      const Network network(groups, dim, hidden, !softmax);
      expect_same(network.leaves({values, query}), [&] { return ops::attend(values, query, offsets, network.weights, network.biases, softmax); },
                  [&] { return network.plain(values, query, offsets, softmax); });
      // The query as columns of a wider tensor.
      expect_same({wide}, [&] { return ops::attend(values, wide.narrow(2, 2, dim), offsets, network.weights, network.biases, softmax); },
                  [&] { return network.plain(values, wide.narrow(2, 2, dim), offsets, softmax); });
    }
}

TEST_P(Attention, GradientsEqualFiniteDifferences) {
  const auto& [threads, softmax, hidden] = GetParam();
  const at::Tensor offsets = offsets_of({3, 0, 4, 1});
  at::Tensor values = leaf({8, 6}), query = leaf({2, 4, 3}), up = at::randn({2, 4, 3}, kDouble);
  const Network network(2, 3, hidden, !softmax);
  auto sum = [&] { return (ops::attend(values, query, offsets, network.weights, network.biases, softmax) * up).sum(); };
  sum().backward();
  at::NoGradGuard no_grad;
  for (const at::Tensor& tensor : network.leaves({values, query})) {
    double* data = tensor.detach().data_ptr<double>();
    const at::Tensor grad = tensor.grad().contiguous();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      const double step = 1e-6, kept = data[i];
      data[i] = kept + step;
      const double above = sum().item<double>();
      data[i] = kept - step;
      const double below = sum().item<double>();
      data[i] = kept;
      ASSERT_NEAR((above - below) / (2 * step), grad.const_data_ptr<double>()[i], 1e-7) << tensor.sizes() << " number " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Attention,
                         testing::Combine(testing::Values(1, 3), testing::Bool(),
                                          testing::Values(std::vector<int64_t>{}, std::vector<int64_t>{5}, std::vector<int64_t>{6, 4})));

// By hand: a = relu(e * q) + 1/2 with d = 1.
TEST(TargetAttention, ByHand) {
  ParameterStore store(1, at::kDouble);
  const TargetAttention attention(store, "attention.h", 1, 1, AttentionConfig{{}, {1}, "none"});
  store.flatten();
  at::NoGradGuard no_grad;
  std::vector<std::string> names;
  for (const auto& entry : store.entries()) names.push_back(entry.name);
  EXPECT_EQ(names, (std::vector<std::string>{"attention.h.0.weight", "attention.h.0.bias", "attention.h.score.weight", "attention.h.score.bias"}));
  store.entries()[0].tensor.view({4}).copy_(at::tensor({0., 0., 0., 1.}, kDouble));
  store.entries()[2].tensor.fill_(1);
  store.entries()[3].tensor.fill_(0.5);
  at::Tensor pooled = attention.forward(at::tensor({2., -1., 3., 7.}, kDouble).view({4, 1}), at::tensor({1., -2., 5.}, kDouble).view({1, 3, 1}),
                                        offsets_of({3, 1, 0}));
  // (2 + .5) 2 + (0 + .5)(-1) + (3 + .5) 3;  (0 + .5) 7;  nothing
  EXPECT_TRUE(at::allclose(pooled.flatten(), at::tensor({15., 3.5, 0.}, kDouble), 1e-12, 1e-12)) << pooled;
}

// With small embeddings it starts as the sum, with softmax as the mean.
TEST(TargetAttention, StartsAsPooling) {
  at::manual_seed(1);
  const at::Tensor values = at::randn({5, 16}) * 0.01, query = at::randn({2, 2, 8}) * 0.01, offsets = offsets_of({2, 3});
  for (const char* normalize : {"none", "softmax"}) {
    ParameterStore store(1);
    const TargetAttention attention(store, "attention.h", 2, 8, AttentionConfig{{}, {32}, normalize});
    store.flatten();
    at::Tensor pooled = attention.forward(values, query, offsets);
    for (int64_t g = 0; g < 2; ++g) {
      at::Tensor own = values.narrow(1, g * 8, 8);
      at::Tensor first = own.narrow(0, 0, 2).sum(0), second = own.narrow(0, 2, 3).sum(0);
      if (std::string(normalize) == "softmax") first = first / 2, second = second / 3;
      EXPECT_TRUE(at::allclose(pooled[g], at::stack({first, second}), 0, 2e-3)) << pooled[g] << first << second;
    }
  }
}

TEST(PutColumns, PassesGradientsToXAndToTheColumns) {
  at::Tensor x = leaf({2, 3, 5}), columns = leaf({2, 3, 2}), kept = x.detach().clone(), up = at::randn({2, 3, 5}, kDouble);
  at::Tensor y = ops::put_columns(x, columns, 1);
  EXPECT_TRUE(at::equal(y.narrow(2, 1, 2), columns));
  EXPECT_TRUE(at::equal(y.narrow(2, 3, 2), kept.narrow(2, 3, 2)));
  EXPECT_TRUE(at::equal(y.narrow(2, 0, 1), kept.narrow(2, 0, 1)));
  EXPECT_EQ(y.data_ptr(), x.data_ptr());
  (y * y * up).sum().backward();
  EXPECT_TRUE(at::allclose(columns.grad(), 2 * columns * up.narrow(2, 1, 2)));
  for (int64_t column : {0, 3, 4}) EXPECT_TRUE(at::allclose(x.grad().select(2, column), 2 * kept.select(2, column) * up.select(2, column)));
}

}  // namespace
}  // namespace ektm
