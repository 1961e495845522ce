#include <gtest/gtest.h>

#include "base/error.h"
#include "models/zoo.h"

namespace ektm {
namespace {

class Home : public testing::Test {
 protected:
  Home() {
    spec_.tasks = {{"click", -1}, {"like", 0}, {"share", 0}};
    spec_.features = 5;
  }
  std::unique_ptr<Backbone> make(const std::string& keys, const std::string& hidden = "[4]") {
    ConfigErrors errors("test");
    const ModelEntry& entry = find_model("home", "test");
    const std::string text = "{name: home, expert_hidden: " + hidden + ", tower_hidden: [3], gate_rank: 2, " + keys + "}";
    const YAML::Node config = entry.resolve(YAML::Load(text), errors, "");
    errors.throw_if_any();
    store_ = std::make_unique<ParameterStore>(1, at::kDouble);
    return entry.make_backbone(config, spec_, *store_);
  }
  std::string message(const std::string& keys, const std::string& hidden = "[4]") {
    try {
      make(keys, hidden);
      return "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Config);
      return error.what();
    }
  }
  at::Tensor tensor(const std::string& name) const {
    for (const auto& entry : store_->entries())
      if (entry.name == name) return entry.tensor.detach();
    return {};
  }
  at::Tensor run(Backbone& home, const at::Tensor& x, bool training) {
    Context context;
    context.training = training;
    ModelOutput output;
    return home.features(x, context, output).detach();
  }
  ModelSpec spec_;
  std::unique_ptr<ParameterStore> store_;
};

TEST_F(Home, GroupsHoldEveryTaskOnce) {
  EXPECT_EQ(message("groups: [[click, lke], [share]]"), "Config error in model home, key groups: found 'lke'; no task has this name. The data set's "
                                                        "tasks are: click, like, share. Did you mean 'like'?");
  EXPECT_NE(message("groups: [[click, like], [share, like]]").find("found 'like' twice"), std::string::npos);
  EXPECT_NE(message("groups: [[click], [share]]").find("the groups leave out: like."), std::string::npos);
  EXPECT_NE(message("groups: [[click, like, share], []]").find("found a group without a task"), std::string::npos);
  EXPECT_NE(message("momentum: 0.1", "[]").find("key expert_hidden: found []"), std::string::npos);
}

TEST_F(Home, WithoutGroupsRootsAndConversionsAreTwo) {
  make("momentum: 0.1");
  EXPECT_EQ(tensor("meta.group_gate.weight").size(1), 2);
  make("groups: [[like], [click], [share]]");
  EXPECT_EQ(tensor("meta.group_gate.weight").size(1), 3);
  for (auto& task : spec_.tasks) task.parent = -1;
  make("momentum: 0.1");
  EXPECT_EQ(tensor("meta.group_gate.weight").size(1), 1);
}

TEST_F(Home, RunningStatisticsFollowTheBatchesAndScoreWithoutThem) {
  auto home = make("momentum: 0.25, meta_experts: 1");
  at::manual_seed(1);
  const at::Tensor x = at::randn({1, 6, 5}, at::kDouble);
  const at::Tensor scored = run(*home, x, false);
  EXPECT_TRUE(at::equal(run(*home, x, false), scored));  // scoring moves nothing
  EXPECT_TRUE(at::equal(tensor("meta.expert.norm.running_mean"), at::zeros({3, 4}, at::kDouble)));

  run(*home, x, true);
  // The feature gates are 1 at the start, so the first level's experts see x.
  const at::Tensor y = at::matmul(x, tensor("meta.expert.0.weight"));  // [3,6,4]
  EXPECT_TRUE(at::allclose(tensor("meta.expert.norm.running_mean"), 0.25 * y.mean(1)));
  EXPECT_TRUE(at::allclose(tensor("meta.expert.norm.running_variance"), 0.75 + 0.25 * y.var(at::IntArrayRef{1}, 1)));
  EXPECT_FALSE(at::allclose(run(*home, x, false), scored));

  // A batch of one row has no variance: the statistics stay finite, and where they are.
  const at::Tensor before = tensor("task.expert.norm.running_variance").clone();
  EXPECT_TRUE(run(*home, x.narrow(1, 0, 1), true).isfinite().all().item<bool>());
  EXPECT_TRUE(at::equal(tensor("task.expert.norm.running_variance"), before));
}

}  // namespace
}  // namespace ektm
