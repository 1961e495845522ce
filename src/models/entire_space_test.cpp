// Losses of the ESMM family and of AITM on numbers that are small enough to follow.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/network.h"
#include "models/zoo.h"
#include "tests/support/toy_data.h"

namespace ektm {
namespace {

struct Made {
  ParameterStore store{1, at::kDouble};
  std::unique_ptr<Model> model;
};

// click -> a, on 2 features.
std::unique_ptr<Made> make(const std::string& config) {
  auto made = std::make_unique<Made>();
  ModelSpec spec;
  spec.tasks = {{"click", -1}, {"a", 0}};
  spec.features = 2;
  spec.task_weights = {1, 2};
  ConfigErrors errors("test");
  const YAML::Node node = parse_yaml(config, "test");
  const ModelEntry& entry = find_model(node["name"].as<std::string>(), "test");
  const YAML::Node resolved = entry.resolve(node, errors, "model.");
  errors.throw_if_any();
  made->model = entry.make(resolved, spec, made->store);
  return made;
}

double value(const LossTerms& terms, const std::string& name) {
  for (size_t i = 0; i < terms.names.size(); ++i)
    if (terms.names[i] == name) return terms.values[static_cast<int64_t>(i)].item<double>();
  ADD_FAILURE() << "no term " << name;
  return 0;
}

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }
double softplus(double z) { return std::log1p(std::exp(z)); }
at::Tensor rows(std::vector<double> values) { return at::tensor(values, at::kDouble).view({2, -1}); }

// Four impressions: clicked and converted, clicked only, not clicked, clicked with an unknown conversion.
const std::vector<double> kClick = {0.2, -1.0, 0.5, 1.5}, kA = {-0.3, 0.8, 0.1, 2.0};
Targets four_impressions() { return {rows({1, 1, 0, 1, 1, 0, 1, 0}), rows({1, 1, 1, 1, 1, 1, 0, 0})}; }

ModelOutput output_of(std::vector<std::pair<std::string, at::Tensor>> extra = {}) {
  ModelOutput output;
  std::vector<double> logits = kClick;
  logits.insert(logits.end(), kA.begin(), kA.end());
  output.logits = rows(logits);
  output.extra = std::move(extra);
  return output;
}

TEST(Esmm, LossIsThatOfWholePathsOverImpressions) {
  auto made = make("{name: esmm}");
  const LossTerms terms = made->model->loss(output_of(), four_impressions());
  const double click = (softplus(-0.2) + softplus(1.0) + softplus(0.5) + softplus(-1.5)) / 4;
  auto path = [](size_t b) { return sigmoid(kClick[b]) * sigmoid(kA[b]); };
  // The fourth is unknown: the two other clicks stand for it.
  const double a = -(1.5 * (std::log(path(0)) + std::log(1 - path(1))) + std::log(1 - path(2))) / 4;
  EXPECT_NEAR(value(terms, "click"), click, 1e-12);
  EXPECT_NEAR(value(terms, "a.path"), a, 1e-12);
  EXPECT_NEAR(terms.task_losses[1].item<double>(), 2 * a, 1e-12);
  EXPECT_NEAR(terms.total.item<double>(), click + 2 * a, 1e-12);
}

// Hidden labels must not make conversions look rarer: what is measured with a part of them is what is measured with all.
TEST(Paths, LabelsThatAreMissingAtRandomMoveNoLoss) {
  at::manual_seed(2);
  const int64_t impressions = 400000;
  const std::vector<TaskInfo> tasks = {{"click", -1}, {"cart", 0}, {"pay", 1}};
  auto drawn = [&](double share) { return (at::rand({impressions}, at::kDouble) < share).to(at::kDouble); };
  const at::Tensor click = drawn(0.3), cart = click * drawn(0.4), pay = cart * drawn(0.5), every = at::ones_like(click);
  const Targets all{at::stack({click, cart, pay}), at::stack({every, click, cart})};
  // Of the carts a fifth is known, and apart from that of the payments half, as train.label_shares takes them away.
  const Targets part{all.labels, at::stack({every, click * drawn(0.2), cart * drawn(0.5)})};
  const Targets paths = path_targets(all, tasks), thinned = path_targets(part, tasks);
  EXPECT_TRUE(at::equal(paths.weight, at::ones_like(paths.weight)));
  EXPECT_TRUE(at::equal(paths.labels, all.labels));
  for (int64_t t = 0; t < 3; ++t) {
    const double rate = masked_mean(thinned.labels, thinned.weight)[t].item<double>(), expected = paths.labels[t].mean().item<double>();
    EXPECT_NEAR(rate / expected, 1, 0.03) << tasks[t].name;
    EXPECT_NEAR(thinned.weight[t].sum().item<double>() / impressions, 1, 1e-9) << tasks[t].name;
  }
  // Clicks without one known label: the others would say that nothing converts.
  const Targets none = path_targets({all.labels, at::stack({every, every * 0, every * 0})}, tasks);
  EXPECT_EQ(none.weight[1].sum().item<double>(), 0);
  EXPECT_EQ(none.weight[2].sum().item<double>(), 0);
}

// Nor in batches that see one label or none of those that came as far: over many of them the means have the rates of all labels.
TEST(Paths, FewLabelsABatchMoveNoLossWhereTheirShareIsKnown) {
  at::manual_seed(3);
  const int64_t batches = 20000, rows = 40;
  const std::vector<TaskInfo> tasks = {{"click", -1}, {"cart", 0}, {"pay", 1}};
  auto drawn = [&](double share) { return (at::rand({rows}, at::kDouble) < share).to(at::kDouble); };
  at::Tensor rate = at::zeros({3}, at::kDouble), without = at::zeros({3}, at::kDouble), used = at::zeros({3}, at::kDouble), came = at::zeros({3}, at::kDouble);
  for (int64_t b = 0; b < batches; ++b) {
    const at::Tensor click = drawn(0.3), cart = click * drawn(0.4), pay = cart * drawn(0.5), every = at::ones_like(click);
    const Targets part{at::stack({click, cart, pay}), at::stack({every, click * drawn(0.15), cart * drawn(0.6)})};
    const Targets paths = path_targets(part, tasks, {1, 0.15, 0.6}), dropped = path_targets(part, tasks);
    rate += masked_mean(paths.labels, paths.weight) / batches;
    without += masked_mean(dropped.labels, dropped.weight);
    used += (dropped.weight.sum(1) > 0).to(at::kDouble);
    came[2] += ((paths.labels[1] * paths.weight[2]).sum() / paths.weight[2].sum()) / batches;
  }
  without /= used;
  EXPECT_NEAR(rate[1].item<double>(), 0.12, 0.003);
  EXPECT_NEAR(rate[2].item<double>(), 0.06, 0.003);
  EXPECT_NEAR(came[2].item<double>(), 0.12, 0.003);  // the weight of those that came to the cart
  EXPECT_LT(without[2].item<double>(), 0.055);       // what it mends
  // Where nearly every row comes as far, they have their share too: it is not cut to what a batch gives at most beyond it.
  const at::Tensor most = (at::arange(400) >= 20).to(at::kDouble), half = most * (at::arange(400) % 2).to(at::kDouble);
  const Targets often = path_targets({at::stack({most, most}), at::stack({at::ones_like(most), half})}, {{"click", -1}, {"pay", 0}}, {1, 0.5});
  EXPECT_NEAR(masked_mean(often.labels, often.weight)[1].item<double>(), 0.95, 1e-9);
  // Known to the last one: the same to the bit, told or not.
  const at::Tensor click = drawn(0.3), cart = click * drawn(0.4), pay = cart * drawn(0.5);
  const Targets all{at::stack({click, cart, pay}), at::stack({at::ones_like(click), click, cart})};
  EXPECT_TRUE(at::equal(path_targets(all, tasks, {1, 1, 1}).weight, path_targets(all, tasks).weight));
  // Never known: nothing is said of it.
  const Targets none{all.labels, at::stack({at::ones_like(click), click * 0, cart * 0})};
  EXPECT_EQ(path_targets(none, tasks, {1, 0, 0}).weight[1].sum().item<double>(), 0);
  // Every row came as far: the known ones are the mean.
  const Targets clicks{at::ones({1, 4}, at::kDouble).expand({2, 4}), at::tensor({1., 1., 1., 1., 0., 1., 0., 0.}).view({2, 4})};
  const Targets of_clicks = path_targets(clicks, {{"click", -1}, {"pay", 0}}, {1, 0.3});
  EXPECT_EQ(masked_mean(of_clicks.labels, of_clicks.weight)[1].item<double>(), 1);
  EXPECT_TRUE(of_clicks.weight.isfinite().all().item<bool>());
}

// Below that share a batch's labels of a conversion cannot stand for all that are missing: no row weighs more than nine times all others.
TEST(Paths, FewerThanOneLabelABatchHaveABoundedWeight) {
  const at::Tensor click = at::tensor({1., 1., 1., 0., 0., 0., 0., 0.}), pay = at::tensor({1., 0., 0., 0., 0., 0., 0., 0.});
  const Targets targets{at::stack({click, pay}), at::stack({at::ones_like(click), at::tensor({1., 0., 0., 0., 0., 0., 0., 0.})})};
  const Targets path = path_targets(targets, {{"click", -1}, {"pay", 0}}, {1, 0.001});
  EXPECT_NEAR(path.weight[1][0].item<double>(), 9 * 5, 1e-9);
  EXPECT_NEAR(path.weight[1].sum().item<double>(), 50, 1e-9);
}

// Each of these models is told the share of known labels: a batch without a known label then still says that the rows without a click have no conversion.
TEST(Paths, ModelsUseTheShareOfKnownLabels) {
  const DatasetInfo info = toy_info("one");
  Batch batch = toy_batch(info, 32, 1);
  for (int64_t b = 0; b < batch.rows; ++b) batch.observed[b * 2 + 1] = 0;
  for (const char* name : {"esmm", "escm2_ipw", "escm2_dr", "dcmt", "aitm"}) {
    auto path_loss = [&](std::vector<double> known) {
      LabelStatistics labels;
      labels.known = std::move(known);
      Network network(parse_run_config(parse_yaml(fmt::format("model: {{name: {}}}", name), "test"), "test", {}), info, labels);
      Context context;
      const LossTerms terms = network.model().loss(network.forward(batch, context).output, make_targets(batch, 2));
      return terms.task_losses[1].item<double>();
    };
    EXPECT_GT(path_loss({1, 0.5}), 0.01) << name;
    EXPECT_EQ(path_loss({1, 1}), 0) << name;
    EXPECT_EQ(path_loss({}), 0) << name;
  }
}

// A task that a batch says nothing of has no loss: balancing would take what is left for its gradient.
TEST(Aitm, WithoutAKnownPathThereIsNoExcess) {
  auto made = make("{name: aitm, constraint: 0.5}");
  const Targets targets{rows({1, 1, 1, 1, 0, 0, 0, 0}), rows({1, 1, 1, 1, 0, 0, 0, 0})};
  EXPECT_EQ(made->model->loss(output_of(), targets).task_losses[1].item<double>(), 0);
}

TEST(Aitm, TheExcessCountsRowsByTheirWeight) {
  auto made = make("{name: aitm, constraint: 0.5}");
  Targets targets = four_impressions();
  targets.weight = targets.weight * rows({1, 3, 1, 0, 1, 3, 1, 0});
  EXPECT_NEAR(value(made->model->loss(output_of(), targets), "a.excess"), 3 * (sigmoid(0.8) - sigmoid(-1.0)) / 5, 1e-12);
}

TEST(Escm2, CounterfactualRisksAreMeansOverImpressions) {
  // Click probabilities .55 and .27: the second is clipped.
  const double weight0 = 1 / sigmoid(0.2), weight1 = 1 / 0.4, error0 = softplus(0.3), error1 = softplus(0.8);
  auto ipw = make("{name: escm2_ipw, clip: 0.4}");
  const LossTerms terms = ipw->model->loss(output_of(), four_impressions());
  const double risk = 1.5 * (weight0 * error0 + weight1 * error1) / 4;
  EXPECT_NEAR(value(terms, "a.ipw"), risk, 1e-12);
  EXPECT_NEAR(terms.task_losses[1].item<double>(), 2 * (risk + value(terms, "a.path")), 1e-12);

  const std::vector<double> imputation = {0.4, -0.2, 1.0, 3.0};
  auto dr = make("{name: escm2_dr, clip: 0.4, lambda_c: 0.5, lambda_i: 0.25, lambda_g: 3}");
  const LossTerms robust = dr->model->loss(output_of({{"imputation", at::tensor(imputation, at::kDouble).view({1, 4})}}), four_impressions());
  const double imputed0 = softplus(0.4), imputed1 = softplus(-0.2), imputed2 = softplus(1.0);
  const double doubly = (1.5 * (imputed0 + imputed1 + weight0 * (error0 - imputed0) + weight1 * (error1 - imputed1)) + imputed2) / 4;
  const double learned = 1.5 * (weight0 * std::pow(error0 - imputed0, 2) + weight1 * std::pow(error1 - imputed1, 2)) / 4;
  EXPECT_NEAR(value(robust, "a.dr"), doubly, 1e-12);
  EXPECT_NEAR(value(robust, "a.imputation"), learned, 1e-12);
  EXPECT_NEAR(robust.task_losses[1].item<double>(), 2 * (0.5 * doubly + 0.25 * learned + 3 * value(robust, "a.path")), 1e-12);
}

// The risk weighted by true propensities is that of all impressions, had all been clicked: the estimate's mean over draws of clicks.
TEST(Escm2, TheRiskIsUnbiased) {
  at::manual_seed(1);
  const int64_t impressions = 100000;
  at::Tensor click = at::randn({impressions}, at::kDouble) - 0.5, a = at::randn({impressions}, at::kDouble) + click;  // selected by what converts
  auto draw = [&](const at::Tensor& logits) { return (at::rand({impressions}, at::kDouble) < at::sigmoid(logits)).to(at::kDouble); };
  at::Tensor clicks = draw(click), conversions = draw(a);
  Targets targets{at::stack({clicks, conversions * clicks}), at::stack({at::ones({impressions}, at::kDouble), clicks})};
  ModelOutput output;
  output.logits = at::stack({click, at::full_like(a, -1)});  // right click model, some CVR model
  const double everywhere = bce(output.logits[1], conversions).mean().item<double>();
  const double clicked_only = masked_mean(bce(output.logits, targets.labels), targets.weight)[1].item<double>();
  auto ipw = make("{name: escm2_ipw, clip: 0.001}"), dr = make("{name: escm2_dr, clip: 0.001}");
  EXPECT_GT(clicked_only - everywhere, 0.08);
  EXPECT_NEAR(value(ipw->model->loss(output, targets), "a.ipw"), everywhere, 0.02);
  output.extra.emplace_back("imputation", at::randn({1, impressions}, at::kDouble));  // whatever is imputed
  EXPECT_NEAR(value(dr->model->loss(output, targets), "a.dr"), everywhere, 0.02);
}

TEST(Dcmt, ClicksAndOthersLearnFromTheirOwnHead) {
  auto made = make("{name: dcmt, clip: 0.4, lambda: 0.5}");
  const std::vector<double> twin = {0.4, -0.2, 1.0, 3.0};
  const ModelOutput output = output_of({{"counterfactual", at::tensor(twin, at::kDouble).view({1, 4})}});
  const LossTerms terms = made->model->loss(output, four_impressions());
  const double weight0 = 1 / sigmoid(0.2), weight1 = 1 / 0.4;
  EXPECT_NEAR(value(terms, "a.factual"), (weight0 * softplus(0.3) + weight1 * softplus(0.8)) / (weight0 + weight1), 1e-12);
  EXPECT_NEAR(value(terms, "a.counterfactual"), softplus(-1.0), 1e-12);  // one impression without a click
  double gap = 0;
  for (size_t b = 0; b < 3; ++b) gap += (b < 2 ? 1.5 : 1) * std::abs(1 - sigmoid(kA[b]) - sigmoid(twin[b])) / 4;
  EXPECT_NEAR(value(terms, "a.gap"), gap, 1e-12);
  EXPECT_NEAR(terms.task_losses[1].item<double>(),
              2 * (value(terms, "a.path") + value(terms, "a.factual") + value(terms, "a.counterfactual") + 0.5 * gap), 1e-12);
  auto plain = make("{name: dcmt, clip: 0.4, self_normalize: false}");
  const LossTerms sums = plain->model->loss(output, four_impressions());
  EXPECT_NEAR(value(sums, "a.factual"), 1.5 * (weight0 * softplus(0.3) + weight1 * softplus(0.8)) / 4, 1e-12);
  EXPECT_NEAR(value(sums, "a.counterfactual"), softplus(-1.0) / 0.4 / 4, 1e-12);  // P(no click) = .38 is clipped
}

TEST(Aitm, APathShouldNotBeLikelierThanItsBeginning) {
  auto made = make("{name: aitm, constraint: 0.5}");
  const LossTerms terms = made->model->loss(output_of(), four_impressions());
  EXPECT_NEAR(value(terms, "a.path"), (1.5 * (softplus(0.3) + softplus(0.8)) + softplus(0.1)) / 4, 1e-12);
  const double excess = (sigmoid(0.8) - sigmoid(-1.0) + sigmoid(2.0) - sigmoid(1.5)) / 4;  // the second and the fourth
  EXPECT_NEAR(value(terms, "a.excess"), excess, 1e-12);
  EXPECT_NEAR(terms.task_losses[1].item<double>(), 2 * (value(terms, "a.path") + 0.5 * excess), 1e-12);
}

RunConfig config_for(const std::string& model) {
  return parse_run_config(parse_yaml("embedding: {dim: 4, init_std: 0.5}", "test"), "test", {"model=" + model});
}

TEST(Aitm, ServesWhatItsPathsImply) {
  const DatasetInfo info = toy_info("sequential");
  Network network(config_for("{name: aitm}"), info);
  const Network::Scores scores = network.score(toy_batch(info, 30, 1));
  EXPECT_TRUE(at::allclose(scores.served[0], scores.path[0]));
  for (int64_t t = 1; t < 4; ++t) EXPECT_TRUE(at::allclose(scores.served[t], (scores.path[t] / scores.path[t - 1]).clamp_max(1 - 1e-6)));
}

TEST(Clipping, SharesAreReportedByConversion) {
  const DatasetInfo info = toy_info("parallel");
  const Batch batch = toy_batch(info, 50, 1);
  for (const std::string name : {"escm2_ipw", "escm2_dr", "dcmt"}) {
    Network network(config_for("{name: " + name + ", clip: 0.48}"), info);
    const Network::Scores scores = network.score(batch, true);
    at::Tensor click = scores.served[0], clipped = click < 0.48;
    if (name == "dcmt") clipped = clipped.logical_or(click > 0.52);
    ASSERT_EQ(scores.diagnostics.size(), 1u);
    EXPECT_EQ(scores.diagnostics[0].first, "clipped_propensities");
    const double expected = clipped.to(at::kDouble).mean().item<double>();
    EXPECT_GT(expected, 0);
    EXPECT_TRUE(at::allclose(scores.diagnostics[0].second.to(at::kDouble), at::full({3}, expected, at::kDouble))) << name;
  }
}

}  // namespace
}  // namespace ektm
