#include "nn/layers.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/losses.h"
#include "nn/model.h"
#include "nn/ops.h"

namespace ektm {
namespace {

TEST(ParameterStore, FlattenKeepsValuesAndHandles) {
  ParameterStore store(1);
  at::Tensor a = store.add("a", {2, 3}, Init::Xavier), b = store.add("b", {4}, Init::One), unused = store.add("c", {2}, Init::One);
  at::Tensor before = a.detach().clone();
  store.flatten();
  EXPECT_TRUE(at::equal(a, before));
  EXPECT_EQ(store.values().numel(), 12);
  store.zero_grad();
  (a.sum() * 2 + b.sum() * 3 + a.sum()).backward();  // gradients come as one number spread over the tensor
  store.collect_grads();
  EXPECT_TRUE(at::equal(store.grads().narrow(0, 0, 6), at::full({6}, 3.f)));
  EXPECT_TRUE(at::equal(store.grads().narrow(0, 6, 4), at::full({4}, 3.f)));
  EXPECT_TRUE(at::equal(store.grads().narrow(0, 10, 2), at::zeros({2})));
  store.values().fill_(7);
  EXPECT_EQ(a[1][2].item<float>(), 7);
  store.zero_grad();
  a.sum().backward();
  store.collect_grads();
  EXPECT_EQ(store.grads().sum().item<float>(), 6);  // of this pass alone
}

TEST(ParameterStore, StartDependsOnSeedAndNameAlone) {
  ParameterStore one(1), two(1), other(2);
  one.add("x", {9, 9}, Init::Xavier);
  at::Tensor a = one.add("w", {5, 5}, Init::Xavier), b = two.add("w", {5, 5}, Init::Xavier), c = other.add("w", {5, 5}, Init::Xavier);
  EXPECT_TRUE(at::equal(a, b));
  EXPECT_FALSE(at::equal(a, c));
  EXPECT_LE(a.abs().max().item<double>(), std::sqrt(6.0 / 10));
}

// click -> cart -> pay, and a like after click.
const std::vector<TaskInfo> kChain{{"click", -1}, {"cart", 0}, {"pay", 1}, {"like", 0}};

TEST(Paths, TargetsAreKnownWhereThePathBrokeOffOrItsLabelIsSeen) {
  // Rows: no click; click without cart; the whole path, weight 2; click, cart not reported; click and like, cart but pay not reported.
  const at::Tensor labels = at::tensor({0., 1., 1., 1., 1., 0., 0., 1., 0., 1., 0., 0., 1., 0., 0., 0., 0., 0., 0., 1.}).view({4, 5});
  const at::Tensor weight = at::tensor({1., 1., 2., 1., 1., 0., 1., 2., 0., 1., 0., 0., 2., 0., 0., 0., 1., 2., 1., 1.}).view({4, 5});
  const Targets paths = path_targets({labels, weight}, kChain);
  EXPECT_TRUE(at::equal(paths.labels, labels));
  // Of clicks that weigh 5 the carts of 4 are known, which stand for all; of the 3.75 that came to the cart the payment of 2.5 is.
  const at::Tensor expected = at::tensor({1., 1., 2., 1., 1., 1., 1.25, 2.5, 0., 1.25, 1., 1.25, 3.75, 0., 0., 1., 1., 2., 1., 1.}).view({4, 5});
  EXPECT_TRUE(at::equal(paths.weight, expected)) << paths.weight;
}

TEST(Paths, ConditionalIsTheInverseOfPath) {
  at::manual_seed(1);
  const at::Tensor p = at::rand({4, 6}) * 0.9 + 0.05, paths = path_probabilities(p, kChain);
  EXPECT_TRUE(at::allclose(paths[2], p[0] * p[1] * p[2]));
  EXPECT_TRUE(at::allclose(conditional_probabilities(paths, kChain), p, 1e-5, 1e-6));
  // A head may say that paying is likelier than the cart before it.
  const at::Tensor crossed = conditional_probabilities(at::tensor({0.5f, 0.1f, 0.2f, 0.f}).view({4, 1}), kChain);
  EXPECT_FLOAT_EQ(crossed[2].item<float>(), 1 - 1e-6f);
  EXPECT_FLOAT_EQ(crossed[3].item<float>(), 0);
}

TEST(Layers, BatchedMapsEqualOneMapEach) {
  ParameterStore store(1);
  FanOutLinear fan(store, "fan", 3, 4, 2);
  BatchedLinear batched(store, "batched", 3, 2, 5);
  at::Tensor x = at::randn({7, 4});
  Context context;
  at::Tensor y = fan.forward(x, context), z = batched.forward(y, context);
  const auto& e = store.entries();  // fan.weight [4,3,2], fan.bias [3,2], batched.weight [3,2,5], batched.bias [3,1,5]
  for (int64_t k = 0; k < 3; ++k) {
    at::Tensor one = at::matmul(x, e[0].tensor.select(1, k)) + e[1].tensor[k];
    EXPECT_TRUE(at::allclose(y[k], one, 1e-5, 1e-6));
    EXPECT_TRUE(at::allclose(z[k], at::matmul(one, e[2].tensor[k]) + e[3].tensor[k], 1e-5, 1e-6));
  }
}

TEST(Layers, MixExpertsIsTheWeightedSum) {
  at::Tensor logits = at::randn({2, 6, 3}), gates = at::softmax(logits, 2), experts = at::randn({3, 6, 4});
  at::Tensor mixed = mix_experts(logits, experts);
  for (int64_t k = 0; k < 2; ++k)
    for (int64_t b = 0; b < 6; ++b) {
      at::Tensor sum = at::zeros({4});
      for (int64_t e = 0; e < 3; ++e) sum += gates[k][b][e] * experts[e][b];
      EXPECT_TRUE(at::allclose(mixed[k][b], sum, 1e-5, 1e-6));
    }
}

TEST(Layers, DropoutKeepsTheMeanAndIsOffOutsideTraining) {
  Context context;
  at::Tensor x = at::ones({200, 500});
  EXPECT_TRUE(at::equal(ops::dropout(x, 0.3, context), x));
  context.training = true;
  context.generator = at::make_generator<at::CPUGeneratorImpl>(5);
  at::Tensor y = ops::dropout(x, 0.3, context);
  EXPECT_NEAR(y.mean().item<double>(), 1, 0.01);
  EXPECT_NEAR((y == 0).to(at::kFloat).mean().item<double>(), 0.3, 0.01);
  EXPECT_NEAR(y.max().item<double>(), 1 / 0.7, 1e-5);
}

TEST(Losses, BceIsStableAndExact) {
  at::Tensor logits = at::tensor({0.0f, 2.0f, -100.f, 100.f}).unsqueeze(0), labels = at::tensor({1.f, 0.f, 1.f, 1.f}).unsqueeze(0);
  at::Tensor loss = bce(logits, labels)[0];
  EXPECT_NEAR(loss[0].item<double>(), std::log(2), 1e-6);
  EXPECT_NEAR(loss[1].item<double>(), std::log1p(std::exp(2.0)), 1e-6);
  EXPECT_NEAR(loss[2].item<double>(), 100, 1e-4);
  EXPECT_NEAR(loss[3].item<double>(), 0, 1e-6);
}

TEST(Losses, MaskedMeanWeighsAndSurvivesAnEmptyTask) {
  at::Tensor loss = at::tensor({1.f, 2.f, 4.f, 8.f, 1.f, 1.f}).view({2, 3});
  loss.set_requires_grad(true);
  at::Tensor weight = at::tensor({1.f, 0.f, 3.f, 0.f, 0.f, 0.f}).view({2, 3});
  at::Tensor mean = masked_mean(loss, weight);
  EXPECT_FLOAT_EQ(mean[0].item<float>(), (1 + 12) / 4.f);
  EXPECT_FLOAT_EQ(mean[1].item<float>(), 0);
  mean.sum().backward();
  EXPECT_TRUE(at::equal(loss.grad()[1], at::zeros({3})));
  EXPECT_EQ(loss.grad()[0][1].item<float>(), 0);
}

TEST(Model, PathProbabilitiesMultiplyAlongTheChain) {
  at::Tensor p = at::tensor({0.5f, 0.4f, 0.2f, 0.1f}).view({4, 1});
  at::Tensor path = path_probabilities(p, {{"click", -1}, {"cart", 0}, {"pay", 1}, {"share", 0}});
  const float expected[] = {0.5f, 0.2f, 0.04f, 0.05f};
  for (int t = 0; t < 4; ++t) EXPECT_FLOAT_EQ(path[t][0].item<float>(), expected[t]);
}

}  // namespace
}  // namespace ektm
