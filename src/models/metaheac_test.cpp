#include <gtest/gtest.h>

#include <cmath>

#include "models/zoo.h"

namespace ektm {
namespace {

class Metaheac : public testing::Test {
 protected:
  std::unique_ptr<Model> make(const std::string& keys) {
    ConfigErrors errors("test");
    const ModelEntry& entry = find_model("metaheac", "test");
    const YAML::Node config = entry.resolve(YAML::Load("{name: metaheac, " + keys + "}"), errors, "");
    errors.throw_if_any();
    return entry.make(config, spec_, store_);
  }
  // p of the single task where every critic's output is its own number and all critics weigh the same.
  double logit_of(const std::vector<double>& outputs) {
    for (const auto& entry : store_.entries()) {
      entry.tensor.detach().zero_();
      if (entry.name == "head.bias") entry.tensor.detach().view(-1).copy_(at::tensor(outputs));
    }
    Context context;
    return model_->forward(at::ones({1, 1, spec_.features}, at::kDouble), context).logits.item<double>();
  }
  ModelSpec spec_{.tasks = {{"click", -1}}, .features = 5, .columns = {{"user", 0, 2, true}, {"item", 2, 2, true}, {"price", 4, 1, false}},
                  .task_weights = {1.0}, .labels = {}};
  ParameterStore store_{1, at::kDouble};
  std::unique_ptr<Model> model_;
};

TEST_F(Metaheac, TheProbabilityIsTheSumOfTheGatedCritics) {
  model_ = make("critics: 2, critic_hidden: [3]");
  const double p = (1 / (1 + std::exp(-0.3)) + 1 / (1 + std::exp(1.1))) / 2;
  EXPECT_NEAR(logit_of({0.3, -1.1}), std::log(p / (1 - p)), 1e-12);
  EXPECT_NEAR(logit_of({2.5, 2.5}), 2.5, 1e-12);  // critics that agree are one: nothing caps p
}

TEST_F(Metaheac, TheLogitIsExactWhereProbabilitiesRound) {
  model_ = make("critics: 2, critic_hidden: [3]");
  EXPECT_NEAR(logit_of({-800, -800}), -800, 1e-9);
  EXPECT_NEAR(logit_of({800, 800}), 800, 1e-9);
  EXPECT_NEAR(logit_of({-800, -900}), -800 - std::log(2), 1e-9);
}

TEST_F(Metaheac, NumbersAloneLeaveTheGatesTheTask) {
  spec_.columns = {{"price", 0, 1, false}};
  spec_.features = 1;
  model_ = make("task_width: 3");
  Context context;
  EXPECT_TRUE(model_->forward(at::ones({1, 2, 1}, at::kDouble), context).logits.isfinite().all().item<bool>());
  for (const auto& entry : store_.entries())
    if (entry.name == "expert_gate.weight") EXPECT_EQ(entry.tensor.size(0), 3);
}

}  // namespace
}  // namespace ektm
