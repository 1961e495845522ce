// The part of the conformance suite that trains: every entry of the zoo, EKTM over every backbone.
#include "train/stepper.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "checkpoint/safetensors.h"
#include "models/zoo.h"
#include "tests/support/toy_data.h"

namespace ektm {
namespace {

std::vector<std::string> models() {
  std::vector<std::string> all;
  for (const auto& entry : zoo())
    if (entry.name != "ektm") all.push_back("{name: " + entry.name + "}");
  for (const auto& backbone : backbone_names()) all.push_back("{name: ektm, backbone: {name: " + backbone + "}}");
  all.push_back("{name: ektm, transmit: residual, detach_sources: true, detach_own: true}");
  return all;
}

RunConfig config_for(const std::string& model, const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides = {"model=" + model};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return parse_run_config(parse_yaml("embedding: {dim: 8, init_std: 0.1, learning_rate: 0.02}\noptimizer: {learning_rate: 0.01}\n", "test"), "test", overrides);
}

// 64 rows with distinct ids: every label can be learned by heart.
Batch rows_to_memorise(DatasetInfo& info) {
  info.tables[0].rows = 200;
  Batch batch = toy_batch(info, 64, 3);
  for (int64_t b = 0; b < batch.rows; ++b) batch.ids[b * info.fields.size()] = static_cast<int32_t>(100 + b);
  return batch;
}

class Training : public testing::TestWithParam<std::string> {};

TEST_P(Training, Overfits64Rows) {
  DatasetInfo info = toy_info("parallel");
  const Batch batch = rows_to_memorise(info);
  RunConfig config = config_for(GetParam());
  Network network(config, info);
  Stepper stepper(network, config, 300);
  for (int step = 0; step < 300; ++step) stepper.step(batch);  // as if new each time: EKTM's mix must not run away on rows known by heart
  const at::Tensor served = network.score(batch).served;
  const int64_t tasks = static_cast<int64_t>(info.tasks.size());
  for (int64_t b = 0; b < batch.rows; ++b)
    for (int64_t t = 0; t < tasks; ++t)
      if (batch.observed[b * tasks + t])
        EXPECT_NEAR(served[t][b].item<double>(), batch.labels[b * tasks + t], 0.2) << "row " << b << ", task " << info.tasks[t].name;
}

TEST_P(Training, ACheckpointGoesOnWithTheSameBits) {
  const DatasetInfo info = toy_info("parallel");
  RunConfig config = config_for(GetParam(), {"optimizer.schedule=cosine", "optimizer.clip_norm=1", "attention.targets={history: item}"});
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / ("ektm_stepper_" + std::to_string(getpid()) + ".safetensors");
  Network whole(config, info), first(config, info), second(config, info);
  Stepper whole_steps(whole, config, 6), first_steps(first, config, 6), second_steps(second, config, 6);
  auto batch = [&](int step) { return toy_batch(info, 16, 50 + step); };
  for (int step = 0; step < 6; ++step) whole_steps.step(batch(step));
  for (int step = 0; step < 3; ++step) first_steps.step(batch(step));
  TensorFile saved;
  saved.tensors = first_steps.state();
  save_tensors(file, saved);
  load_into(load_tensors(file), second_steps.state(), file);
  std::filesystem::remove(file);
  second_steps.set_steps(3);
  for (int step = 3; step < 6; ++step) second_steps.step(batch(step));
  const auto expected = whole_steps.state(), found = second_steps.state();
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(at::equal(expected[i].second, found[i].second)) << expected[i].first;
}

std::string model_name(const testing::TestParamInfo<std::string>& info) {
  std::string clean;
  for (char c : info.param)
    if (std::isalnum(static_cast<unsigned char>(c))) clean += c;
  return clean;
}

INSTANTIATE_TEST_SUITE_P(Zoo, Training, testing::ValuesIn(models()), model_name);

TEST(Stepper, DropoutDependsOnSeedAndStepAlone) {
  const DatasetInfo info = toy_info("parallel");
  auto train = [&](const std::string& seed) {
    RunConfig config = config_for("{name: mmoe, dropout: 0.5}", {"seed=" + seed});
    Network network(config, info);
    Stepper stepper(network, config, 5);
    for (int step = 0; step < 3; ++step) stepper.step(toy_batch(info, 16, step));
    return network.parameters().values().clone();
  };
  EXPECT_TRUE(at::equal(train("1"), train("1")));
  EXPECT_FALSE(at::equal(train("1"), train("2")));
}

TEST(Stepper, AnInfiniteNumberStopsBeforeAnyWeightChanged) {
  const DatasetInfo info = toy_info("parallel");
  RunConfig config = config_for("{name: mmoe}");
  Network network(config, info);
  Stepper stepper(network, config, 5);
  Batch batch = toy_batch(info, 16, 1);
  stepper.step(batch);
  const at::Tensor before = network.parameters().values().clone();
  batch.numbers[0] = std::numeric_limits<float>::quiet_NaN();
  try {
    stepper.step(batch);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Model);
    EXPECT_NE(error.where().find("step 2, task click"), std::string::npos) << error.where();
  }
  EXPECT_TRUE(at::equal(before, network.parameters().values()));
}

TEST(Stepper, TheMixObservesTheFirstPassOnlyTheServedShiftEveryStep) {
  const DatasetInfo info = toy_info("parallel");
  RunConfig config = config_for("{name: ektm, mix_prior: 1}");
  Network network(config, info);
  Stepper stepper(network, config, 4);
  auto state = [&](const std::string& wanted) {
    for (const auto& [name, tensor] : network.state(false))
      if (name == wanted) return tensor.clone();
    return at::Tensor();
  };
  const at::Tensor mix = state("transmitter.mix.coefficients"), shift = state("serve.shift");
  EXPECT_TRUE(at::equal(shift, at::zeros_like(shift)));
  for (int step = 0; step < 2; ++step) stepper.step(toy_batch(info, 64, 1), /*first_pass=*/false);  // at the first both heads say the same
  EXPECT_TRUE(at::equal(state("transmitter.mix.coefficients"), mix));
  EXPECT_TRUE((state("serve.shift") != 0).all().item<bool>());
  stepper.step(toy_batch(info, 64, 1), /*first_pass=*/true);
  EXPECT_FALSE(at::equal(state("transmitter.mix.coefficients"), mix));
}

TEST(Stepper, Bf16IsDeterministicAndNearFloat32) {
  const DatasetInfo info = toy_info("parallel");
  auto train = [&](const std::string& precision) {
    RunConfig config = config_for("{name: ektm}", {"precision=" + precision});
    Network network(config, info);
    Stepper stepper(network, config, 5);
    for (int step = 0; step < 5; ++step) stepper.step(toy_batch(info, 16, step));
    return network.score(toy_batch(info, 16, 9)).served;
  };
  const at::Tensor exact = train("f32"), rounded = train("bf16");
  EXPECT_TRUE(at::equal(rounded, train("bf16")));
  EXPECT_FALSE(at::equal(rounded, exact));
  EXPECT_LT((rounded - exact).abs().max().item<double>(), 0.02);
  EXPECT_TRUE(at::equal(exact, train("auto")));  // a Stepper takes what the trainer decided
}

// What a sequence under attention was made of is shared by the tasks like x is: with every method its rows get gradients.
TEST(Stepper, BalancingReachesSequences) {
  const DatasetInfo info = toy_info("parallel");
  for (const char* method : {"dwa", "pcgrad", "metabalance"}) {
    RunConfig config = config_for("{name: mmoe}", {"attention.targets={history: item}", std::string("loss.balance=") + method, "embedding.optimizer=sgd"});
    Network network(config, info);
    Stepper stepper(network, config, 5);
    Batch batch = toy_batch(info, 16, 1);
    // One value of the history that nothing else looks up.
    const int32_t row = 19;
    for (auto& id : batch.ids) id %= 12;
    for (auto& value : batch.bags[0].values) value %= 12;
    batch.bags[0].values[0] = row;
    const at::Tensor before = network.embeddings().weights()[network.embeddings().table_offset(1) + row].clone();
    for (int step = 0; step < 2; ++step) stepper.step(batch);
    EXPECT_FALSE(at::equal(before, network.embeddings().weights()[network.embeddings().table_offset(1) + row])) << method;
  }
}

// Tasks with embeddings, towers and attention of their own share nothing: balancing leaves them alone, as without a sequence.
TEST(Stepper, BalancingLeavesSequencesOfATaskAlone) {
  const DatasetInfo info = toy_info("parallel");
  const Batch batch = toy_batch(info, 40, 1);
  const auto stepped = [&](const std::string& model, const std::string& balance, std::vector<double>* weights = nullptr) {
    RunConfig config = config_for(model, {"attention.targets={history: item}", "loss.balance=" + balance, "embedding.optimizer=sgd"});
    Network network(config, info);
    Stepper stepper(network, config, 5);
    stepper.step(batch);
    if (weights) *weights = stepper.balancer()->weights();
    return network.embeddings().weights().clone();
  };
  std::vector<double> weights;
  const auto plain = stepped("{name: single_task}", "fixed"), alone = stepped("{name: single_task}", "mgda", &weights);
  for (double weight : weights) EXPECT_EQ(weight, 1);
  EXPECT_TRUE(at::allclose(plain, alone, 1e-5, 1e-7));
}

// The label says whether the item is in the history: attention finds out, a pooled history tells less.
TEST(Stepper, AttentionComparesTheTargetWithEachValue) {
  DatasetInfo info;
  info.tables = {{"item", 200}};
  info.fields = {{"item", 0, false}};
  info.bags = {{"history", 0, false}};
  info.tasks = {{"click", -1}};
  auto draw = [&](uint64_t seed) {
    Rng rng(seed);
    Batch batch;
    batch.rows = 256;
    batch.bags.resize(1);
    batch.bags[0].offsets = {0};
    for (int64_t b = 0; b < batch.rows; ++b) {
      std::vector<int32_t> history;
      for (uint64_t i = 0, length = 4 + rng.below(8); i < length; ++i) history.push_back(static_cast<int32_t>(rng.below(200)));
      const int32_t item = rng.below(2) ? history[rng.below(history.size())] : static_cast<int32_t>(rng.below(200));
      batch.ids.push_back(item);
      batch.labels.push_back(std::find(history.begin(), history.end(), item) != history.end());
      batch.observed.push_back(1);
      batch.bags[0].values.insert(batch.bags[0].values.end(), history.begin(), history.end());
      batch.bags[0].offsets.push_back(static_cast<int32_t>(batch.bags[0].values.size()));
    }
    return batch;
  };
  auto logloss_after_training = [&](const std::string& targets) {
    RunConfig config = config_for("{name: shared_bottom, bottom_hidden: [32], tower_hidden: []}", {"attention.targets=" + targets});
    Network network(config, info);
    Stepper stepper(network, config, 600);
    for (int step = 0; step < 600; ++step) stepper.step(draw(static_cast<uint64_t>(step)));
    const Batch fresh = draw(99999);
    const at::Tensor served = network.score(fresh).served;
    double sum = 0;
    for (int64_t b = 0; b < fresh.rows; ++b) {
      const double p = served[0][b].item<double>();
      sum -= std::log(fresh.labels[b] ? p : 1 - p);
    }
    return sum / static_cast<double>(fresh.rows);
  };
  const double attention = logloss_after_training("{history: item}"), pooling = logloss_after_training("{}");
  EXPECT_LT(attention, 0.3);
  EXPECT_GT(pooling, 1.4 * attention);
}

TEST(LearningRate, WarmsUpAndFalls) {
  OptimizerConfig config;
  EXPECT_EQ(learning_rate_factor(config, 5, 10), 1);
  config.warmup_steps = 4;
  EXPECT_EQ(learning_rate_factor(config, 0, 14), 0.25);
  EXPECT_EQ(learning_rate_factor(config, 3, 14), 1);
  config.schedule = "linear";
  config.final_ratio = 0.2;
  EXPECT_NEAR(learning_rate_factor(config, 9, 14), 0.6, 1e-12);   // half way from 1 to 0.2
  EXPECT_NEAR(learning_rate_factor(config, 14, 14), 0.2, 1e-12);
  EXPECT_NEAR(learning_rate_factor(config, 99, 14), 0.2, 1e-12);
  config.schedule = "cosine";
  EXPECT_NEAR(learning_rate_factor(config, 4, 14), 1, 1e-12);
  EXPECT_NEAR(learning_rate_factor(config, 9, 14), 0.6, 1e-12);
}

}  // namespace
}  // namespace ektm
