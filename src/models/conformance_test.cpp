// Every entry of the zoo, EKTM over every backbone, must hold these properties.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/network.h"
#include "models/zoo.h"
#include "tests/support/toy_data.h"

namespace ektm {
namespace {

struct Entry {
  std::string model, chain;
};

std::vector<Entry> entries() {
  std::vector<Entry> all;
  for (const std::string chain : {"parallel", "sequential", "roots"}) {
    for (const auto& entry : zoo())
      if (entry.name != "ektm") all.push_back({"{name: " + entry.name + "}", chain});
    for (const auto& backbone : backbone_names()) all.push_back({"{name: ektm, backbone: {name: " + backbone + "}}", chain});
  }
  all.push_back({"{name: dcmt, self_normalize: false}", "parallel"});
  for (const char* keys : {"similarity: cosine", "similarity: label", "transmit: concat", "transmit: gate", "transmit: residual", "detach_sources: false", "hard: hinge",
                           "hard: focal", "enhanced: false", "serve: enhanced"})
    all.push_back({std::string("{name: ektm, ") + keys + "}", "parallel"});
  return all;
}

RunConfig config_for(const std::string& model, int64_t seed = 3) {
  return parse_run_config(parse_yaml("embedding: {dim: 4, init_std: 0.1}\nseed: " + std::to_string(seed), "test"), "test", {"model=" + model});
}

class Conformance : public testing::TestWithParam<Entry> {
 protected:
  DatasetInfo info_ = toy_info(GetParam().chain);
  int64_t tasks_ = static_cast<int64_t>(info_.tasks.size());
};

TEST_P(Conformance, Shapes) {
  Network network(config_for(GetParam().model), info_);
  for (int64_t rows : {1, 7}) {
    Network::Scores scores = network.score(toy_batch(info_, rows, 1), true);
    EXPECT_EQ(scores.served.sizes(), at::IntArrayRef({tasks_, rows}));
    EXPECT_EQ(scores.path.sizes(), at::IntArrayRef({tasks_, rows}));
    EXPECT_GT(scores.served.min().item<float>(), 0);
    EXPECT_LT(scores.served.max().item<float>(), 1);
  }
}

TEST_P(Conformance, SameSeedSameBits) {
  const Batch batch = toy_batch(info_, 20, 1);
  Network a(config_for(GetParam().model), info_), b(config_for(GetParam().model), info_), c(config_for(GetParam().model, 4), info_);
  EXPECT_TRUE(at::equal(a.score(batch).served, b.score(batch).served));
  EXPECT_FALSE(at::equal(a.score(batch).served, c.score(batch).served));
}

TEST_P(Conformance, ARowsScoreDoesNotDependOnItsNeighbours) {
  Network network(config_for(GetParam().model), info_);
  Batch whole = toy_batch(info_, 9, 1), one = whole;
  one.rows = 1;
  at::Tensor together = network.score(whole).served, alone = network.score(one).served;
  EXPECT_TRUE(at::allclose(together.narrow(1, 0, 1), alone, 1e-5, 1e-6));
}

// The analytic gradient of the loss against central differences, in double precision, for every parameter tensor and the input.
// Stop-gradients are switched off here (finite differences see through them); golden parity checks them.
TEST_P(Conformance, GradientsEqualFiniteDifferences) {
  RunConfig config = config_for(GetParam().model);
  if (config.model["name"].as<std::string>() == "ektm") {
    config.model["detach_sources"] = false;
    if (config.model["hard"].as<std::string>() != "focal") config.model["hard"] = "none";
  }
  if (config.model["stop_gradients"]) config.model["stop_gradients"] = false;
  for (YAML::Node node : {config.model, config.model["backbone"]})
    for (const char* key : {"detach_others", "detach_gates"})
      if (node && node[key]) node[key] = false;
  if (config.model["name"].as<std::string>() == "cross_distil") config.model["distill"] = 0;  // what is distilled has no gradient
  ParameterStore store(3, at::kDouble);
  ModelSpec spec;
  spec.tasks = info_.tasks;
  spec.features = 6;
  spec.columns = {{"user", 0, 2, true}, {"item", 2, 2, true}, {"price", 4, 1, false}, {"age", 5, 1, false}};
  for (int64_t t = 0; t < tasks_; ++t) spec.task_weights.push_back(0.5 + 0.25 * t);
  spec.labels = {at::rand({tasks_, tasks_}), at::full({tasks_, tasks_}, 100), at::arange(1, tasks_ + 1) * 100};
  auto model = find_model(config.model["name"].as<std::string>(), "test").make(config.model, spec, store);
  store.flatten();
  at::manual_seed(2);
  store.values().add_(at::randn_like(store.values()) * 0.1);  // moves layers that start at zero
  const Batch batch = toy_batch(info_, 12, 1, true);
  const Targets targets = make_targets(batch, tasks_, at::kDouble);
  at::Tensor x = at::randn({model->embedding_groups(), batch.rows, spec.features}, at::kDouble);
  x.set_requires_grad(true);
  Context context;
  context.training = true;
  ModelOutput output = model->forward(x, context);
  model->loss(output, targets).total.backward();

  auto loss_at = [&] {
    at::NoGradGuard no_grad;
    Context again = context;  // batch normalisation differs between training and scoring
    return model->loss(model->forward(x, again), targets).total.item<double>();
  };
  const double step = 1e-6;
  auto check = [&](const std::string& name, at::Tensor values, const at::Tensor& grad) {
    double* data = values.data_ptr<double>();
    const double* analytic = grad.const_data_ptr<double>();
    const int64_t size = values.numel(), stride = std::max<int64_t>(1, size / 5);
    for (int64_t i = 0; i < size; i += stride) {
      const double kept = data[i];
      data[i] = kept + step;
      const double up = loss_at();
      data[i] = kept - step;
      const double down = loss_at();
      data[i] = kept;
      EXPECT_NEAR((up - down) / (2 * step), analytic[i], 1e-6 + 1e-4 * std::abs(analytic[i])) << name << "[" << i << "]";
    }
  };
  for (const auto& entry : store.entries())
    if (entry.trainable) check(entry.name, entry.tensor.detach(), entry.tensor.grad().contiguous());
  check("x", x.detach(), x.grad().contiguous());
}

// A task's label where it is unobserved must change nothing.
TEST_P(Conformance, MaskedLabelsHaveNoInfluence) {
  Network network(config_for(GetParam().model), info_);
  Batch batch = toy_batch(info_, 40, 1);
  if (GetParam().chain == "roots")
    for (int64_t b = 0; b < batch.rows; b += 2) batch.observed[b * tasks_ + 1] = 0;
  auto loss_and_grad = [&] {
    Context context;
    context.training = true;
    network.parameters().zero_grad();
    Network::Pass pass = network.forward(batch, context);
    LossTerms loss = network.model().loss(pass.output, make_targets(batch, tasks_));
    loss.total.backward();
    network.parameters().collect_grads();
    return std::pair{loss.total.item<float>(), network.parameters().grads().clone()};
  };
  auto [loss, grads] = loss_and_grad();
  int64_t flipped = 0;
  for (size_t i = 0; i < batch.labels.size(); ++i)
    if (!batch.observed[i]) batch.labels[i] ^= 1, ++flipped;
  ASSERT_GT(flipped, 0);
  auto [loss_flipped, grads_flipped] = loss_and_grad();
  EXPECT_EQ(loss, loss_flipped);
  EXPECT_TRUE(at::equal(grads, grads_flipped));
}

TEST_P(Conformance, ABatchWithoutObservedLabelsOfATaskWorks) {
  Network network(config_for(GetParam().model), info_);
  Batch batch = toy_batch(info_, 10, 1);
  for (int64_t b = 0; b < batch.rows; ++b) batch.observed[b * tasks_ + tasks_ - 1] = 0;
  Context context;
  context.training = true;
  Network::Pass pass = network.forward(batch, context);
  LossTerms loss = network.model().loss(pass.output, make_targets(batch, tasks_));
  loss.total.backward();
  network.parameters().collect_grads();
  EXPECT_TRUE(std::isfinite(loss.total.item<float>()));
  EXPECT_TRUE(network.parameters().grads().isfinite().all().item<bool>());
  const std::string last = info_.tasks.back().name;
  int found = 0;
  for (size_t i = 0; i < loss.names.size(); ++i)
    if (loss.names[i] == last || loss.names[i] == last + ".path") {
      EXPECT_EQ(loss.values[static_cast<int64_t>(i)].item<float>(), 0);
      ++found;
    }
  EXPECT_EQ(found, 1);
}

// With attention over a sequence, every model trains it and scores each row by itself.
TEST_P(Conformance, TakesAttentionOverSequences) {
  for (const char* normalize : {"none", "softmax"}) {
    RunConfig config = config_for(GetParam().model);
    config.attention.targets = {{"history", "last_item"}, {"tags", "user"}};
    config.attention.normalize = normalize;
    Network network(config, info_), plain(config_for(GetParam().model), info_);
    EXPECT_EQ(plain.parameters().count() + 2 * network.model().embedding_groups() * (16 * 32 + 32 + 32 + (std::string(normalize) == "none")),
              network.parameters().count());
    Batch whole = toy_batch(info_, 9, 1), first = whole;
    first.rows = 1;
    for (Bag& bag : first.bags) {
      bag.offsets.resize(2);
      bag.values.resize(static_cast<size_t>(bag.offsets[1]));
    }
    at::Tensor together = network.score(whole).served;
    EXPECT_TRUE(at::allclose(together.narrow(1, 0, 1), network.score(first).served, 1e-5, 1e-6));
    EXPECT_FALSE(at::equal(together, plain.score(whole).served));

    Context context;
    context.training = true;
    Network::Pass pass = network.forward(whole, context);
    network.model().loss(pass.output, make_targets(whole, tasks_)).total.backward();
    for (const auto& entry : network.parameters().entries())
      if (entry.name.starts_with("attention.")) EXPECT_GT(entry.tensor.grad().abs().max().item<float>(), 0) << entry.name;
    EXPECT_GT(network.collect(whole, pass), 0);
  }
}

std::string entry_name(const testing::TestParamInfo<Entry>& info) {
  std::string name = info.param.model + "_" + info.param.chain;
  std::string clean;
  for (char c : name) clean += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return clean;
}

INSTANTIATE_TEST_SUITE_P(Zoo, Conformance, testing::ValuesIn(entries()), entry_name);

// EKTM by itself, on 6 columns of features.
struct LoneEktm {
  DatasetInfo info = toy_info("parallel");
  int64_t tasks = static_cast<int64_t>(info.tasks.size());
  ModelSpec spec;
  ParameterStore store{3, at::kFloat};
  std::unique_ptr<Model> model;

  explicit LoneEktm(const std::string& config) {
    spec.tasks = info.tasks;
    spec.features = 6;
    spec.columns = {{"user", 0, 2, true}, {"item", 2, 2, true}, {"price", 4, 1, false}, {"age", 5, 1, false}};
    spec.task_weights.assign(info.tasks.size(), 1.0);
    spec.labels = {at::zeros({tasks, tasks}), at::full({tasks, tasks}, 100), at::arange(1, tasks + 1) * 100};
    model = find_model("ektm", "test").make(config_for(config).model, spec, store);
    store.flatten();
  }
};

// Where the enhanced head is sure, 1 - q is 0: its power has no finite gradient for gamma < 1.
TEST(Ektm, FocalLossOfSureRowsHasAFiniteGradient) {
  LoneEktm ektm("{name: ektm, hard: focal, gamma: 0.5}");
  auto& [info, tasks, spec, store, model] = ektm;
  store.values().mul_(100);
  Context context;
  context.training = true;
  const ModelOutput output = model->forward(at::randn({1, 64, spec.features}), context);
  EXPECT_GT(output.enhanced_logits.abs().max().item<float>(), 40);
  model->loss(output, make_targets(toy_batch(info, 64, 1, true), tasks, at::kFloat)).total.backward();
  for (const auto& entry : store.entries())
    if (entry.trainable && entry.tensor.grad().defined()) EXPECT_TRUE(at::isfinite(entry.tensor.grad()).all().item<bool>()) << entry.name;
}

// The enhanced head may say who converts, not how many: outside training it predicts as many events as the base head, in the same order.
TEST(Ektm, ServedEnhancedHeadsPredictAsManyEventsAsBaseHeads) {
  LoneEktm ektm("{name: ektm, serve: enhanced}");
  auto& [info, tasks, spec, store, model] = ektm;
  const int64_t rows = 512;
  for (const auto& entry : store.entries())
    if (entry.name == "enhanced.bias") entry.tensor.detach().fill_(-0.7);  // as a mix that weighs more than 1 would have it
  const Targets targets = make_targets(toy_batch(info, rows, 1), tasks, at::kFloat);
  Context training, serving;
  training.training = true;
  at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({1, rows, spec.features});
  auto events = [&](const at::Tensor& logits) { return (at::sigmoid(logits) * targets.weight.slice(0, 1)).sum(1); };
  const ModelOutput before = model->forward(x, training);
  EXPECT_TRUE(at::equal(before.enhanced_logits, model->forward(x, serving).enhanced_logits));
  const at::Tensor wanted = events(before.base_logits.slice(0, 1));
  EXPECT_TRUE((events(before.enhanced_logits) < 0.8 * wanted).all().item<bool>());
  for (int step = 0; step < 400; ++step) model->observe(before, targets, /*first_pass=*/false);
  EXPECT_TRUE(at::equal(before.enhanced_logits, model->forward(x, training).enhanced_logits));
  const ModelOutput served = model->forward(x, serving);
  EXPECT_TRUE(at::allclose(events(served.enhanced_logits), wanted, 1e-3)) << events(served.enhanced_logits) << wanted;
  EXPECT_TRUE(at::allclose(served.enhanced_logits - before.enhanced_logits, at::full_like(served.enhanced_logits, 0.7), 1e-3, 1e-3));
  EXPECT_TRUE(at::equal(served.logits.slice(0, 1), served.enhanced_logits));
}

TEST(Zoo, UnknownModelNamesTheNearest) {
  try {
    find_model("mmeo", "config.yaml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("Did you mean 'mmoe'?"), std::string::npos) << error.what();
  }
}

TEST(RunConfig, ResolvesEveryKeyAndReadsItself) {
  for (const auto& entry : zoo()) {
    RunConfig config = config_for("{name: " + entry.name + "}");
    const std::string text = run_config_text(config);
    EXPECT_EQ(run_config_text(parse_run_config(parse_yaml(text, "again"), "again", {})), text);
    for (const auto& field : entry.describe()) EXPECT_NE(text.find(field.key.substr(field.key.rfind('.') + 1)), std::string::npos) << field.key;
  }
}

TEST(RunConfig, ReportsAllProblemsTogether) {
  try {
    parse_run_config(parse_yaml("modle: {}\nmodel: {name: mmoe, expert: 3}\ntrain: {epochs: 0, batch_rows: many}\n", "bad.yaml"), "bad.yaml", {});
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("line 1, modle: unknown key. Did you mean 'model'?"), std::string::npos) << text;
    EXPECT_NE(text.find("model.expert: unknown key. Did you mean 'model.experts'?"), std::string::npos) << text;
    EXPECT_NE(text.find("train.epochs: found 0; expected a value in 1 .. 100000"), std::string::npos) << text;
    EXPECT_NE(text.find("train.batch_rows: found 'many'; expected a whole number"), std::string::npos) << text;
    EXPECT_EQ(error.exit_code(), 1);
  }
}

TEST(Network, AttentionNeedsASequenceAndATargetOfItsTable) {
  auto error_of = [](const std::string& targets) {
    try {
      Network(parse_run_config(parse_yaml("model: {name: mmoe}\nattention: {targets: " + targets + "}", "test"), "test", {}), toy_info("parallel"));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Config);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  auto expect_parts = [&](const std::string& targets, const std::vector<std::string>& parts) {
    const std::string text = error_of(targets);
    for (const auto& part : parts) EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  EXPECT_EQ(error_of("{history: item, tags: user}"), "no error");
  expect_parts("{histroy: item}", {"attention.targets.histroy", "kind ids or sequence", "history, tags", "Did you mean 'history'?"});
  expect_parts("{item: item}", {"attention.targets.item", "kind ids or sequence"});
  expect_parts("{history: itme}", {"attention.targets.history", "'itme'", "item, last_item", "Did you mean 'item'?"});
  expect_parts("{history: user}", {"attention.targets.history", "'user' is of the table 'user', the sequence of the table 'item'", "item, last_item"});
  expect_parts("{history: price}", {"attention.targets.history", "'price'", "item, last_item"});
}

TEST(Network, ATaskWeightForNoTaskIsAnError) {
  RunConfig config = config_for("{name: mmoe}");
  config.loss.task_weights = {{"clik", 2.0}};
  EXPECT_THROW(Network(config, toy_info("parallel")), Error);
}

}  // namespace
}  // namespace ektm
