#include <gtest/gtest.h>

#include "models/zoo.h"

namespace ektm {
namespace {

// "All forward, task-specific backward": the loss of one task, and what it reaches.
TEST(Stem, ATasksGradientReachesItsOwnAndTheSharedEmbeddingsOnly) {
  ModelSpec spec;
  spec.tasks = {{"click", -1}, {"like", 0}, {"buy", 0}};
  spec.features = 5;
  for (const bool detach : {true, false}) {
    ParameterStore store(1, at::kDouble);
    const YAML::Node config = YAML::Load(std::string("{name: stem, expert_hidden: [6], gate_hidden: [4], tower_hidden: [3], detach_others: ") +
                                         (detach ? "true}" : "false}"));
    ConfigErrors errors("test");
    auto stem = find_model("stem", "test").make_backbone(find_model("stem", "test").resolve(config, errors, ""), spec, store);
    errors.throw_if_any();
    ASSERT_EQ(stem->embedding_groups(), 4);
    at::manual_seed(1);
    at::Tensor x = at::randn({4, 8, 5}, at::kDouble).set_requires_grad(true);
    Context context;
    ModelOutput output;
    at::Tensor f = stem->features(x, context, output);
    f[1].sum().backward();
    at::Tensor reach = x.grad().abs().sum({1, 2});
    EXPECT_GT(reach[1].item<double>(), 0);
    EXPECT_GT(reach[3].item<double>(), 0);
    for (int64_t other : {0, 2}) EXPECT_EQ(reach[other].item<double>() == 0, detach) << other;
    // Forward, the other tasks' experts do take part.
    at::Tensor changed = x.detach().clone();
    changed[0].add_(1);
    EXPECT_FALSE(at::equal(stem->features(changed, context, output)[1], f[1]));
  }
}

}  // namespace
}  // namespace ektm
