// Each method on small problems whose answer is known; then on whole models.
#include "train/balancing.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "checkpoint/safetensors.h"
#include "models/zoo.h"
#include "tests/support/toy_data.h"
#include "train/stepper.h"

namespace ektm {
namespace {

using Vector = std::vector<double>;

const std::vector<std::string> kMethods = {"uncertainty", "dwa", "gradnorm", "pcgrad", "cagrad", "mgda", "metabalance"};

LossConfig loss_config(const std::string& yaml) {
  return parse_run_config(parse_yaml("model: {name: mmoe}\nloss: {" + yaml + "}", "test"), "test", {}).loss;
}

double dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }
double norm(const Vector& a) { return std::sqrt(dot(a, a)); }
Vector combine(const Vector& weights, const std::vector<Vector>& gradients) {
  Vector sum(gradients[0].size(), 0);
  for (size_t t = 0; t < gradients.size(); ++t)
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += weights[t] * gradients[t][i];
  return sum;
}
void expect_near(const Vector& found, const Vector& expected, double tolerance = 1e-12) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], tolerance) << i;
}

// K tasks with L_t = scale_t / 2 |w - target_t|^2 at w = 0: the gradient is -scale_t target_t, the loss half its square over the scale.
// Beside w each task has a number of its own, with the gradient -own.
class Quadratic {
 public:
  Quadratic(const std::string& yaml, int64_t tasks, int64_t width = 2, uint64_t seed = 5) : tasks_(tasks), width_(width) {
    w_ = store_.add("w", {width}, Init::Zero);
    own_ = store_.add("own", {tasks, 1, 1}, Init::Zero);
    store_.flatten();
    std::vector<std::string> names;
    for (int64_t t = 0; t < tasks; ++t) names.push_back("task" + std::to_string(t));
    balancer_ = std::make_unique<Balancer>(loss_config(yaml), names, store_, 1, seed);
  }
  // The gradient of w, from what the tasks' gradients are.
  Vector step(const std::vector<Vector>& gradients, const Vector& scales = {}) {
    std::vector<at::Tensor> losses;
    for (int64_t t = 0; t < tasks_; ++t) {
      const double scale = scales.empty() ? 1 : scales[t];
      losses.push_back((w_ + at::tensor(gradients[t], at::kDouble) / scale).square().sum() * (scale / 2) - own * own_[t][0][0]);
    }
    LossTerms loss;
    loss.task_losses = at::stack(losses);
    at::Tensor x = at::zeros({1, 1, 1}, at::kDouble);
    x.set_requires_grad(true);
    store_.zero_grad();
    balancer_->backward(loss, {{x, 0}}, step_++);
    const double* numbers = store_.grads().const_data_ptr<double>();
    own_gradients.assign(numbers + width_, numbers + width_ + tasks_);
    return {numbers, numbers + width_};
  }
  const Vector& weights() const { return balancer_->weights(); }
  double state(const std::string& name, int64_t task) const {
    for (const auto& [found, tensor] : balancer_->state())
      if (found == name) return tensor[task].item<double>();
    ADD_FAILURE() << name;
    return 0;
  }
  double own = 0;
  Vector own_gradients;

 private:
  int64_t tasks_, width_, step_ = 0;
  ParameterStore store_{1, at::kDouble};
  at::Tensor w_, own_;
  std::unique_ptr<Balancer> balancer_;
};

TEST(PcGrad, ProjectsConflictingGradientsOnly) {
  Quadratic problem("balance: pcgrad", 2);
  // g1 . g2 = -1: g1 + g2 / |g2|^2 = (0, 1), g2 + g1 / |g1|^2 = (-1/2, 1/2).
  expect_near(problem.step({{1, 1}, {-1, 0}}), {-0.5, 1.5});
  expect_near(problem.weights(), {1.5, 2});
  expect_near(problem.step({{1, 1}, {1, 0}}), {2, 1});
  expect_near(problem.weights(), {1, 1});
}

// The published algorithm on vectors, task i projected on the others in the order orders[i].
Vector pcgrad(const std::vector<Vector>& gradients, const std::vector<std::vector<int64_t>>& orders) {
  Vector sum(gradients[0].size(), 0);
  for (size_t i = 0; i < gradients.size(); ++i) {
    Vector own = gradients[i];
    for (int64_t j : orders[i])
      if (const double product = dot(own, gradients[j]); product < 0)
        own = combine({1, -product / dot(gradients[j], gradients[j])}, {own, gradients[j]});
    sum = combine({1, 1}, {sum, own});
  }
  return sum;
}

TEST(PcGrad, EveryOrderOfTheOthersComesUpAndNothingElse) {
  const std::vector<Vector> gradients = {{1, 0.2, 0}, {-0.5, 1, -0.3}, {-0.7, -0.6, 1}};
  std::vector<Vector> possible;
  for (int bits = 0; bits < 8; ++bits) {
    std::vector<std::vector<int64_t>> orders = {{1, 2}, {0, 2}, {0, 1}};
    for (int i = 0; i < 3; ++i)
      if (bits >> i & 1) std::swap(orders[i][0], orders[i][1]);
    possible.push_back(pcgrad(gradients, orders));
  }
  Quadratic problem("balance: pcgrad", 3, 3), again("balance: pcgrad", 3, 3), other("balance: pcgrad", 3, 3, 6);
  std::set<size_t> seen;
  int same_as_other = 0;
  for (int step = 0; step < 100; ++step) {
    const Vector found = problem.step(gradients);
    EXPECT_EQ(found, again.step(gradients));
    same_as_other += found == other.step(gradients);
    size_t nearest = 0;
    auto distance = [&](size_t i) { return norm(combine({1, -1}, {possible[i], found})); };
    for (size_t i = 1; i < possible.size(); ++i)
      if (distance(i) < distance(nearest)) nearest = i;
    EXPECT_LT(distance(nearest), 1e-12);
    seen.insert(nearest);
  }
  std::set<Vector> distinct(possible.begin(), possible.end());
  EXPECT_GE(seen.size(), distinct.size());
  EXPECT_LT(same_as_other, 90);
}

// Factors sum to K, so twice the least-norm point for two tasks.
TEST(Mgda, TwoTasksByFormula) {
  Quadratic problem("balance: mgda", 2);
  auto expected = [](const Vector& g1, const Vector& g2) {
    const Vector between = combine({1, -1}, {g2, g1});
    const double share = std::clamp(dot(between, g2) / dot(between, between), 0.0, 1.0);  // of g1
    return combine({2 * share, 2 * (1 - share)}, {g1, g2});
  };
  for (const auto& [g1, g2] : std::vector<std::pair<Vector, Vector>>{{{1, 0}, {0, 1}}, {{3, 1}, {-1, 2}}, {{4, 4}, {1, 0}}, {{1, 0}, {5, 1}}})
    expect_near(problem.step({g1, g2}), expected(g1, g2), 1e-9);
  expect_near(problem.step({{4, 4}, {1, 0}}), {2, 0}, 1e-9);  // the shorter gradient alone
  expect_near(problem.step({{2, 0}, {-1, 0}}), {0, 0}, 1e-9);  // nothing improves both
}

TEST(Mgda, TheLeastNormPointMeetsItsConditions) {
  Rng rng(3);
  for (int trial = 0; trial < 50; ++trial) {
    Quadratic problem("balance: mgda", 4, 3);
    std::vector<Vector> gradients(4, Vector(3));
    const double drift = trial % 2 ? 1.5 : 0;  // with it 0 lies outside of the hull
    for (auto& gradient : gradients)
      for (double& number : gradient) number = rng.normal() + drift;
    const Vector point = problem.step(gradients);
    // d of least norm in the hull: d . g >= |d|^2 for every g, and d is in the hull.
    const Vector d = combine({0.25}, {point});
    for (const auto& gradient : gradients) EXPECT_GE(dot(d, gradient), dot(d, d) - 1e-6);
    double sum = 0;
    for (double weight : problem.weights()) sum += weight;
    EXPECT_NEAR(sum, 4, 1e-9);
    expect_near(point, combine(problem.weights(), gradients), 1e-9);
  }
}

TEST(Mgda, NormalisedWhileTheWeightsAreSought) {
  const std::vector<Vector> gradients = {{4, 0}, {0, 1}};
  // Least norm of s1 a g1 + s2 (1-a) g2 for orthogonal gradients: a proportional to 1 / (s1 |g1|)^2.
  auto expected = [&](double s1, double s2) {
    const double one = 1 / (s1 * s1 * 16), two = 1 / (s2 * s2);
    return combine({2 * one / (one + two), 2 * two / (one + two)}, gradients);
  };
  expect_near(Quadratic("balance: mgda", 2).step(gradients), expected(1, 1), 1e-9);
  expect_near(Quadratic("balance: mgda, balancing: {normalize: norm}", 2).step(gradients), {4, 1}, 1e-9);
  expect_near(Quadratic("balance: mgda, balancing: {normalize: loss}", 2).step(gradients), expected(1.0 / 8, 2), 1e-9);
}

// K times g0 + c |g0| g_w / |g_w|, w by trying the points of ever finer grids around the best of the last.
Vector cagrad(const std::vector<Vector>& gradients, double c) {
  const double tasks = static_cast<double>(gradients.size());
  const Vector mean = combine(Vector(gradients.size(), 1 / tasks), gradients);
  double best = INFINITY, radius = 1;
  Vector best_w = Vector(gradients.size(), 1 / tasks);
  for (int round = 0; round < 12; ++round, radius /= 4) {
    const Vector centre = best_w;
    for (int i = -40; i <= 40; ++i)
      for (int j = -40; j <= 40; ++j) {
        const double first = centre[0] + radius * i / 40, second = gradients.size() == 2 ? 1 - first : centre[1] + radius * j / 40;
        Vector w = {first, second};
        if (gradients.size() == 3) w.push_back(1 - first - second);
        if (*std::min_element(w.begin(), w.end()) < 0) continue;
        const Vector point = combine(w, gradients);
        const double value = dot(point, mean) + c * norm(mean) * norm(point);
        if (value < best) best = value, best_w = w;
      }
  }
  const Vector point = combine(best_w, gradients);
  return combine({tasks, tasks * c * norm(mean) / norm(point)}, {mean, point});
}

TEST(CaGrad, TheDirectionOfBruteForce) {
  const std::vector<std::vector<Vector>> cases = {
      {{1, 0, 0}, {-0.5, 1, 0}}, {{3, 1, 0}, {-1, 0.2, 0}}, {{1, 1, 0}, {2, 1, 0}},
      {{1, 0.2, 0}, {-0.5, 1, -0.3}, {-0.7, -0.6, 2}}, {{5, 1, 0}, {-1, 1, 1}, {0, -1, 3}}};
  for (const auto& gradients : cases)
    for (double c : {0.2, 0.4, 0.9}) {
      Quadratic problem("balance: cagrad, balancing: {c: " + std::to_string(c) + "}", static_cast<int64_t>(gradients.size()), 3);
      expect_near(problem.step(gradients), cagrad(gradients, c), 1e-5);
    }
}

// What the weights are for: no direction within c |g0| of g0 raises the least improved task more.
TEST(CaGrad, NoOtherDirectionInTheBallIsBetterForTheWorstTask) {
  const std::vector<Vector> gradients = {{1, 0.2, 0}, {-0.5, 1, -0.3}, {-0.7, -0.6, 2}};
  Quadratic problem("balance: cagrad, balancing: {c: 0.5}", 3, 3);
  const Vector d = combine({1.0 / 3}, {problem.step(gradients)}), mean = combine({1.0 / 3, 1.0 / 3, 1.0 / 3}, gradients);
  const double radius = 0.5 * norm(mean);
  EXPECT_NEAR(norm(combine({1, -1}, {d, mean})), radius, 1e-9);
  auto worst = [&](const Vector& direction) {
    double least = INFINITY;
    for (const auto& gradient : gradients) least = std::min(least, dot(direction, gradient));
    return least;
  };
  Rng rng(8);
  for (int trial = 0; trial < 20000; ++trial) {
    Vector aside = {rng.normal(), rng.normal(), rng.normal()};
    const double length = radius * std::cbrt(rng.uniform()) / norm(aside);
    EXPECT_LE(worst(combine({1, length}, {mean, aside})), worst(d) + 1e-7);
  }
}

TEST(CaGrad, WithoutARadiusItIsTheSum) {
  expect_near(Quadratic("balance: cagrad, balancing: {c: 0}", 2).step({{1, 1}, {-1, 0}}), {0, 1});
}

TEST(GradNorm, WeightsMoveTowardsEqualNorms) {
  const std::vector<Vector> gradients = {{1, 0}, {0, 4}};
  Quadratic problem("balance: gradnorm, balancing: {alpha: 0}", 2);
  problem.own = 3;
  expect_near(problem.step(gradients), {1, 4});  // the start: weights of 1
  // Adam's first step has the size of its learning rate: up for the short gradient, down for the long one.
  EXPECT_NEAR(problem.state("balance.weights", 0), 1.025, 1e-6);
  EXPECT_NEAR(problem.state("balance.weights", 1), 0.975, 1e-6);
  expect_near(problem.step(gradients), {1.025, 4 * 0.975}, 1e-6);
  expect_near(problem.own_gradients, {-3 * 1.025, -3 * 0.975}, 1e-6);
  for (int step = 0; step < 500; ++step) problem.step(gradients);
  expect_near(problem.weights(), {1.6, 0.4}, 0.03);  // w1 1 = w2 4, w1 + w2 = 2
}

TEST(GradNorm, TheTaskThatLearnsSlowlyIsFavoured) {
  Quadratic problem("balance: gradnorm, balancing: {alpha: 1}", 2);
  const std::vector<Vector> gradients = {{1, 0}, {0, 1}};
  problem.step(gradients, {1, 1});
  expect_near({problem.state("balance.weights", 0), problem.state("balance.weights", 1)}, {1, 1});  // equal norms, no history
  // With the same gradient and twice the scale the loss is half: the second task has learned more.
  problem.step(gradients, {1, 2});
  EXPECT_GT(problem.state("balance.weights", 0), 1.01);
  EXPECT_LT(problem.state("balance.weights", 1), 0.99);
  // Rates 1 and 1/2 about their mean, 3/4: norms end at 4/3 and 2/3 of the mean.
  for (int step = 0; step < 500; ++step) problem.step(gradients, {1, 2});
  expect_near(problem.weights(), {4.0 / 3, 2.0 / 3}, 0.03);
}

TEST(Dwa, WeightsByHand) {
  // Gradients of length 2 at scale s have the loss 2 / s.
  const std::vector<Vector> gradients = {{2, 0}, {0, 2}};
  auto softmax = [](double r1, double r2) { return 2 / (1 + std::exp((r2 - r1) / 2)); };  // temperature 2
  {
    Quadratic problem("balance: dwa, balancing: {window_steps: 1}", 2);
    problem.own = 1;
    expect_near(problem.step(gradients, {1, 2}), {2, 2});  // losses 2, 1
    expect_near(problem.step(gradients, {2, 2}), {2, 2});  // losses 1, 1
    const double first = softmax(0.5, 1);
    expect_near(problem.step(gradients, {4, 1}), {2 * first, 2 * (2 - first)});  // losses 0.5, 2
    expect_near(problem.weights(), {first, 2 - first});
    expect_near(problem.own_gradients, {-first, first - 2});
    const double second = softmax(0.5, 2);
    expect_near(problem.step(gradients, {1, 1}), {2 * second, 2 * (2 - second)});
  }
  Quadratic problem("balance: dwa, balancing: {window_steps: 2}", 2);
  problem.step(gradients, {1, 1});  // 2, 2
  problem.step(gradients, {2, 1});  // 1, 2: means 1.5, 2
  problem.step(gradients, {2, 1});
  expect_near(problem.step(gradients, {4, 1}), {2, 2});  // means 0.75, 2 from here on
  for (int step = 0; step < 2; ++step) {
    const double first = softmax(0.5, 1);
    expect_near(problem.step(gradients, {1, 1}), {2 * first, 2 * (2 - first)});
  }
}

TEST(Uncertainty, EndsWhereTheWeightIsHalfTheInverseLoss) {
  const std::vector<Vector> gradients = {{2, 0}, {0, 0.6}};  // losses 2, 0.18
  Quadratic problem("balance: uncertainty, balancing: {learning_rate: 0.01}", 2);
  problem.own = 1;
  expect_near(problem.step(gradients), {2, 0.6});
  // ds = 1/2 - exp(-s) L: above 0 for a loss below 1/2, and Adam's first step has the size of its learning rate.
  EXPECT_NEAR(problem.state("balance.log_variances", 0), 0.01, 1e-6);
  EXPECT_NEAR(problem.state("balance.log_variances", 1), -0.01, 1e-6);
  expect_near(problem.step(gradients), {2 * std::exp(-0.01), 0.6 * std::exp(0.01)}, 1e-6);
  expect_near(problem.own_gradients, {-std::exp(-0.01), -std::exp(0.01)}, 1e-6);
  for (int step = 0; step < 3000; ++step) problem.step(gradients);
  EXPECT_NEAR(problem.state("balance.log_variances", 0), std::log(2 * 2), 0.02);
  EXPECT_NEAR(problem.state("balance.log_variances", 1), std::log(2 * 0.18), 0.02);
  expect_near(problem.weights(), {1 / 4.0, 1 / 0.36}, 0.05);
}

TEST(MetaBalance, NormsByHand) {
  const std::vector<Vector> gradients = {{4, 0}, {0, 1}, {0.5, 0}};
  auto factors = [&](const std::string& keys) {
    Quadratic problem("balance: metabalance, balancing: {target: task1, " + keys + "}", 3);
    problem.own = 1;
    const Vector found = problem.step(gradients);
    expect_near(found, combine(problem.weights(), gradients));
    expect_near(problem.own_gradients, {-1, -1, -1});
    return problem.weights();
  };
  expect_near(factors("relax: 1"), {0.25, 1, 2});
  expect_near(factors("relax: 0.7"), {0.7 * 0.25 + 0.3, 1, 0.7 * 2 + 0.3});
  expect_near(factors("relax: 0"), {1, 1, 1});
  expect_near(factors("relax: 1, direction: shrink"), {0.25, 1, 1});
  expect_near(factors("relax: 1, direction: enlarge"), {1, 1, 2});
}

TEST(MetaBalance, NormsAreMovingAverages) {
  Quadratic problem("balance: metabalance, balancing: {relax: 1, decay: 0.9}", 2);  // the target is the last task
  problem.step({{4, 0}, {0, 1}});
  problem.step({{2, 0}, {0, 3}});
  expect_near(problem.weights(), {(0.09 * 1 + 0.1 * 3) / (0.09 * 4 + 0.1 * 2), 1});
  // Without the target in the batch its average stands; without the other task nothing changes for it.
  expect_near(problem.step({{2, 0}, {0, 0}}), {2 * ((0.09 + 0.3) / 0.19) / ((0.081 * 4 + 0.09 * 2 + 0.1 * 2) / 0.271), 0});
}

// Tasks that share one matrix but not another: in the first each map has its own ratio.
TEST(MetaBalance, EachMapHasItsOwnNorms) {
  ParameterStore store(1, at::kDouble);
  const at::Tensor stack = store.add("stack", {2, 1, 1}, Init::One), alone = store.add("alone", {1}, Init::One);
  store.flatten();
  Balancer balancer(loss_config("balance: metabalance, balancing: {relax: 1}"), {"a", "b"}, store, 1, 1);
  at::Tensor x = at::zeros({1, 1, 1}, at::kDouble);
  x.set_requires_grad(true);
  LossTerms loss;
  loss.task_losses = at::stack({stack[0][0][0] * 2 + stack[1][0][0] * 5 + alone[0] * 7, stack[0][0][0] * 6 + stack[1][0][0] * 10});
  store.zero_grad();
  balancer.backward(loss, {{x, 0}}, 0);
  const double* grads = store.grads().const_data_ptr<double>();
  expect_near({grads, grads + 3}, {6 + 6, 10 + 10, 7});
}

// --- all methods -----------------------------------------------------------------------------------------------------

class EveryMethod : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Balancing, EveryMethod, testing::ValuesIn(kMethods), [](const auto& info) { return info.param; });

TEST_P(EveryMethod, ATaskWithoutAnObservedRowIsAsIfAbsent) {
  const std::string yaml = "balance: " + GetParam() + ", balancing: {window_steps: 2, target: task1}";
  Quadratic two(yaml, 2), three(yaml, 3);
  two.own = three.own = 0.5;
  Rng rng(4);
  for (int step = 0; step < 20; ++step) {
    const Vector g1 = {rng.normal(), rng.normal()}, g2 = {rng.normal(), rng.normal()};
    const Vector expected = two.step({g1, g2}), found = three.step({g1, g2, {0, 0}});
    if (GetParam() == "dwa") {
      // Its softmax gives every task a share; those of the two others keep their ratio.
      EXPECT_NEAR(three.weights()[0] / three.weights()[1], two.weights()[0] / two.weights()[1], 1e-9);
    } else {
      expect_near(found, expected, 1e-6);
      expect_near({three.weights()[0], three.weights()[1]}, two.weights(), 1e-6);
    }
  }
}

TEST_P(EveryMethod, NoObservedRowAtAllGivesNoGradient) {
  Quadratic problem("balance: " + GetParam() + ", balancing: {window_steps: 1}", 2);
  for (int step = 0; step < 3; ++step) expect_near(problem.step({{0, 0}, {0, 0}}), {0, 0});
  // ... and leaves nothing behind that is not finite.
  for (double number : problem.step({{1, 2}, {-2, 1}})) EXPECT_TRUE(std::isfinite(number));
  for (double weight : problem.weights()) EXPECT_TRUE(std::isfinite(weight) && weight > 0);
}

TEST_P(EveryMethod, OneTaskIsNotBalancedAgainstItself) {
  Quadratic problem("balance: " + GetParam(), 1);
  const Vector found = problem.step({{1, 2}});
  expect_near(found, {1, 2});
}

RunConfig config_for(const std::string& model, const std::vector<std::string>& more) {
  std::vector<std::string> overrides = {"model=" + model};
  overrides.insert(overrides.end(), more.begin(), more.end());
  const std::string base = "embedding: {dim: 8, init_std: 0.1, learning_rate: 0.02}\noptimizer: {learning_rate: 0.01}\n";
  return parse_run_config(parse_yaml(base, "test"), "test", overrides);
}

TEST_P(EveryMethod, ModelsLearnWithIt) {
  const DatasetInfo info = toy_info("parallel");
  // More rows than the models know by heart in the first half of the steps: at a loss of 0 training of every form of EKTM, and sometimes of
  // single_task, falls out of its minimum again, whatever the balancing.
  const Batch batch = toy_batch(info, 512, 3);
  for (const std::string model : {"{name: mmoe}", "{name: single_task}", "{name: ektm}"}) {
    const RunConfig config = config_for(model, {"loss.balance=" + GetParam(), "loss.balancing.window_steps=5"});
    Network network(config, info);
    Stepper stepper(network, config, 100);
    ASSERT_NE(stepper.balancer(), nullptr);
    const double first = stepper.step(batch).total.item<double>();
    double last = 0, highest = 0;  // highest: of the second half
    for (int step = 0; step < 60; ++step) {
      last = stepper.step(batch, /*first_pass=*/false).total.item<double>();
      if (step >= 30) highest = std::max(highest, last);
    }
    EXPECT_LT(last, 0.1 * first) << model;
    EXPECT_LT(highest, 0.3 * first) << model;
    EXPECT_TRUE(network.parameters().values().isfinite().all().item<bool>());
    EXPECT_TRUE(network.embeddings().weights().isfinite().all().item<bool>());
    for (const auto& [name, tensor] : stepper.state()) EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
  }
}

TEST_P(EveryMethod, ACheckpointGoesOnWithTheSameBits) {
  const DatasetInfo info = toy_info("sequential");
  for (const std::string model : {"{name: mmoe, dropout: 0.2}", "{name: ektm}"}) {
    const RunConfig config = config_for(model, {"loss.balance=" + GetParam(), "loss.balancing.window_steps=2", "optimizer.clip_norm=1"});
    const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / ("ektm_balancing_" + std::to_string(getpid()) + ".safetensors");
    Network whole(config, info), first(config, info), second(config, info);
    Stepper whole_steps(whole, config, 10), first_steps(first, config, 10), second_steps(second, config, 10);
    auto batch = [&](int step) { return toy_batch(info, 8, 50 + step); };  // of 8 rows: tasks without an observed one occur
    for (int step = 0; step < 10; ++step) whole_steps.step(batch(step));
    for (int step = 0; step < 5; ++step) first_steps.step(batch(step));
    TensorFile saved;
    saved.tensors = first_steps.state();
    save_tensors(file, saved);
    load_into(load_tensors(file), second_steps.state(), file);
    std::filesystem::remove(file);
    second_steps.set_steps(5);
    for (int step = 5; step < 10; ++step) second_steps.step(batch(step));
    const auto expected = whole_steps.state(), found = second_steps.state();
    ASSERT_EQ(expected.size(), found.size());
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(at::equal(expected[i].second, found[i].second)) << expected[i].first;
    EXPECT_EQ(whole_steps.balancer()->weights(), second_steps.balancer()->weights());
  }
}

// --- what is shared --------------------------------------------------------------------------------------------------

std::vector<std::string> models() {
  std::vector<std::string> all;
  for (const auto& entry : zoo()) all.push_back("{name: " + entry.name + "}");
  for (const auto& backbone : backbone_names()) all.push_back("{name: ektm, backbone: {name: " + backbone + "}}");
  return all;
}

struct Gradients {
  at::Tensor dense, x;
};

// Of one batch; with a balancer by its way, else of `loss` of the terms.
struct OneBatch {
  DatasetInfo info = toy_info("parallel");
  RunConfig config;
  Network network;
  Batch batch = toy_batch(info, 40, 1);
  explicit OneBatch(const std::string& model) : config(config_for(model, {})), network(config, info) {}
  Gradients of(const std::function<void(const LossTerms&, const at::Tensor& x)>& backward) {
    Context context;
    context.training = true;
    network.parameters().zero_grad();
    const Network::Pass pass = network.forward(batch, context);
    backward(network.model().loss(pass.output, make_targets(batch, 4)), pass.x);
    network.parameters().collect_grads();
    return {network.parameters().grads().clone(), pass.x.grad().clone()};
  }
  Gradients plain(int64_t task = -1) {
    return of([&](const LossTerms& loss, const at::Tensor&) { (task < 0 ? loss.total : loss.task_losses[task]).backward(); });
  }
  Gradients balanced(const std::string& yaml, std::vector<double>* weights = nullptr) {
    Balancer balancer(loss_config(yaml), {"click", "a", "b", "c"}, network.parameters(), network.model().embedding_groups(), 1);
    Context context;
    context.training = true;
    network.parameters().zero_grad();
    const Network::Pass pass = network.forward(batch, context);
    balancer.backward(network.model().loss(pass.output, make_targets(batch, 4)), {{pass.x}}, 0);
    if (weights) *weights = balancer.weights();
    return {network.parameters().grads().clone(), pass.x.grad().clone()};
  }
};

class Models : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Balancing, Models, testing::ValuesIn(models()), [](const auto& info) {
  std::string clean;
  for (char c : info.param)
    if (std::isalnum(static_cast<unsigned char>(c))) clean += c;
  return clean;
});

// The tasks' gradients, found one by one, are those whose sum the one backward pass yields.
TEST_P(Models, TheTasksGradientsAddUpToTheWhole) {
  OneBatch one(GetParam());
  const Gradients expected = one.plain(), found = one.balanced("balance: cagrad, balancing: {c: 0}");
  EXPECT_TRUE(at::allclose(found.dense, expected.dense, 1e-4, 1e-7));
  EXPECT_TRUE(at::allclose(found.x, expected.x, 1e-4, 1e-7));
}

TEST(Shared, ExpertsAndInputAreTowersGatesAndHeadsAreNot) {
  OneBatch one("{name: mmoe}");
  std::vector<double> weights;
  const Gradients plain = one.plain(), found = one.balanced("balance: mgda", &weights);
  Gradients weighted{at::zeros_like(plain.dense), at::zeros_like(plain.x)};
  for (int64_t t = 0; t < 4; ++t) {
    const Gradients task = one.plain(t);
    weighted.dense += weights[t] * task.dense;
    weighted.x += weights[t] * task.x;
  }
  EXPECT_TRUE(at::allclose(found.x, weighted.x, 1e-4, 1e-7));
  EXPECT_FALSE(at::allclose(found.x, plain.x, 1e-2, 1e-5));
  int64_t first = 0, shared = 0, own = 0;
  for (const auto& entry : one.network.parameters().entries()) {
    const int64_t size = entry.tensor.numel();
    const bool is_shared = entry.name.starts_with("expert.");
    (is_shared ? shared : own) += 1;
    const at::Tensor& expected = (is_shared ? weighted : plain).dense;
    EXPECT_TRUE(at::allclose(found.dense.narrow(0, first, size), expected.narrow(0, first, size), 1e-4, 1e-7)) << entry.name;
    first += size;
  }
  EXPECT_GT(shared, 0);
  EXPECT_GT(own, 0);
}

// Networks side by side in one tensor are no sharing; nor are embeddings of their own.
TEST(Shared, SingleTasksShareNothing) {
  OneBatch one("{name: single_task}");
  std::vector<double> weights;
  const Gradients plain = one.plain(), found = one.balanced("balance: mgda", &weights);
  expect_near(weights, {1, 1, 1, 1});
  EXPECT_TRUE(at::allclose(found.dense, plain.dense, 1e-5, 1e-8));
  EXPECT_TRUE(at::allclose(found.x, plain.x, 1e-5, 1e-8));
}

// What belongs to a task row by row, in a tensor of two dimensions, is no sharing either.
TEST(Shared, RowsOfATaskAreItsOwn) {
  for (const auto& [model, tensor] : {std::pair("{name: modular}", "selection.0"), {"{name: metaheac}", "task_embedding.weight"},
                                      {"{name: cross_stitch, hidden: [8]}", "stitch.0"}}) {
    OneBatch one(model);
    const Gradients plain = one.plain(), found = one.balanced("balance: mgda");
    int64_t first = 0, seen = 0;
    for (const auto& entry : one.network.parameters().entries()) {
      const int64_t size = entry.tensor.numel();
      const at::Tensor expected = plain.dense.narrow(0, first, size);
      if (entry.name == tensor) {
        EXPECT_GT(expected.abs().max().item<double>(), 1e-6) << model;
        EXPECT_TRUE(at::allclose(found.dense.narrow(0, first, size), expected, 1e-4, 1e-7)) << model;
        ++seen;
      }
      first += size;
    }
    EXPECT_EQ(seen, 1) << model << " " << tensor;
  }
}

TEST(Shared, ColumnsWithoutMeaningCountForNothing) {
  ParameterStore parameters(1);
  const at::Tensor unused = parameters.add("unused", {1, 1}, Init::Zero);
  parameters.flatten();
  const at::Tensor x = at::zeros({1, 1, 4}).set_requires_grad(true), values = at::zeros({3, 4}).set_requires_grad(true);
  LossTerms loss;  // gradients (1, 0, 9, 9) and (0, 1, 0, 9) of x; of values the first two columns and the last two
  const at::Tensor first = (x * at::tensor({1.f, 0.f, 9.f, 9.f})).sum() + values.narrow(1, 0, 2).sum();
  const at::Tensor second = (x * at::tensor({0.f, 1.f, 0.f, 9.f})).sum() + 5 * values.narrow(1, 2, 2).sum();
  loss.task_losses = at::stack({first, second});
  Balancer balancer(loss_config("balance: mgda"), {"a", "b"}, parameters, 3, 1);
  balancer.backward(loss, {{x, 0, {{2, 2}}}, {values, 2}}, 0);
  expect_near(balancer.weights(), {1, 1});
  EXPECT_TRUE(at::equal(x.grad().view({4}), at::tensor({1.f, 1.f, 0.f, 0.f})));
  EXPECT_TRUE(at::equal(values.grad(), at::tensor({1.f, 1.f, 5.f, 5.f}).expand({3, 4})));
}

// PLE's experts of a task are its own in the last level; in the one below, the gate of the shared experts sees them all.
TEST(Shared, PleExpertsOfATask) {
  for (int64_t levels : {1, 2}) {
    OneBatch one("{name: ple, levels: " + std::to_string(levels) + ", task_experts: 1, shared_experts: 1}");
    const Gradients plain = one.plain(), found = one.balanced("balance: mgda");
    int64_t first = 0;
    for (const auto& entry : one.network.parameters().entries()) {
      const int64_t size = entry.tensor.numel();
      if (entry.name == "level0.expert.0.weight") {
        const auto view = [&](const Gradients& g) { return g.dense.narrow(0, first, size).view(entry.tensor.sizes()); };
        for (int64_t e = 0; e < 5; ++e)
          EXPECT_EQ(at::allclose(view(found).select(1, e), view(plain).select(1, e), 1e-4, 1e-7), levels == 1 && e < 4) << levels << " " << e;
      }
      first += size;
    }
  }
}

TEST(Balancing, FixedHasNoBalancer) {
  const DatasetInfo info = toy_info("parallel");
  const RunConfig config = config_for("{name: mmoe}", {});
  Network network(config, info);
  EXPECT_EQ(Stepper(network, config, 5).balancer(), nullptr);
}

TEST(Balancing, ATargetThatIsNoTaskIsAnError) {
  const DatasetInfo info = toy_info("parallel");
  const RunConfig config = config_for("{name: mmoe}", {"loss.balance=metabalance", "loss.balancing.target=clik"});
  Network network(config, info);
  try {
    Stepper(network, config, 5);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Config);
    EXPECT_NE(std::string(error.what()).find("loss.balancing.target"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("Did you mean 'click'?"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ektm
