#include <gtest/gtest.h>

#include "base/error.h"
#include "models/zoo.h"

namespace ektm {
namespace {

class Pepnet : public testing::Test {
 protected:
  Pepnet() {
    spec_.tasks = {{"click", -1}, {"like", 0}};
    spec_.features = 5;
    spec_.columns = {{"user", 0, 2, true}, {"item", 2, 2, true}, {"price", 4, 1, false}};
  }
  std::unique_ptr<Backbone> make(const std::string& keys, const std::string& hidden = "[4, 3]") {
    ConfigErrors errors("test");
    const ModelEntry& entry = find_model("pepnet", "test");
    const YAML::Node config = entry.resolve(YAML::Load("{name: pepnet, tower_hidden: " + hidden + ", gate_hidden: 6, " + keys + "}"), errors, "");
    errors.throw_if_any();
    store_ = std::make_unique<ParameterStore>(1, at::kDouble);
    return entry.make_backbone(config, spec_, *store_);
  }
  std::string message(const std::string& keys, const std::string& hidden = "[4, 3]") {
    try {
      make(keys, hidden);
      return "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Config);
      return error.what();
    }
  }
  int64_t rows_of(const std::string& name) const {
    for (const auto& entry : store_->entries())
      if (entry.name == name) return entry.tensor.size(0);
    return -1;
  }
  ModelSpec spec_;
  std::unique_ptr<ParameterStore> store_;
};

TEST_F(Pepnet, AnUnknownFeatureNamesTheNearestAndListsAll) {
  EXPECT_EQ(message("domain: [itme]"), "Config error in model pepnet, key domain: found 'itme'; no feature has this name. The data set's "
                                       "features are: user, item, price. Did you mean 'item'?");
  EXPECT_NE(message("prior: [user, prize]").find("key prior: found 'prize'"), std::string::npos);
  EXPECT_NE(message("gamma: 2", "[]").find("key tower_hidden: found []"), std::string::npos);
}

TEST_F(Pepnet, GatesSeeTheColumnsOfTheNamedFeatures) {
  make("domain: [price], prior: [price, user, item]");
  EXPECT_EQ(rows_of("domain_gate.hidden.weight"), 1 + 5);
  EXPECT_EQ(rows_of("prior_gate.hidden.weight"), 5 + 5);
  make("gamma: 2");  // the first feature, and the first two
  EXPECT_EQ(rows_of("domain_gate.hidden.weight"), 2 + 5);
  EXPECT_EQ(rows_of("prior_gate.hidden.weight"), 4 + 5);
}

// With gates of zero weights sigmoid is 1/2: gamma = 2 leaves the bare towers.
TEST_F(Pepnet, GatesOfZeroWeightLeaveTheTowersAlone) {
  auto pepnet = make("gamma: 2");
  std::vector<at::Tensor> w;
  for (const auto& entry : store_->entries()) {
    if (entry.name.find("_gate.") != std::string::npos) entry.tensor.detach().zero_();
    if (entry.name == "tower.0.weight") w.push_back(entry.tensor.detach().transpose(0, 1));
    if (entry.name == "tower.1.weight") w.push_back(entry.tensor.detach());
  }
  ASSERT_EQ(w.size(), 2);
  at::manual_seed(1);
  const at::Tensor x = at::randn({1, 7, 5}, at::kDouble);
  Context context;
  ModelOutput output;
  const at::Tensor f = pepnet->features(x, context, output).detach();
  EXPECT_TRUE(at::allclose(f, at::relu(at::matmul(at::relu(at::matmul(x, w[0])), w[1]))));
}

}  // namespace
}  // namespace ektm
