#include <gtest/gtest.h>

#include "base/error.h"
#include "models/network.h"
#include "tests/support/toy_data.h"

namespace ektm {
namespace {

RunConfig config_for(const std::string& model) { return parse_run_config(parse_yaml("embedding: {dim: 4}", "test"), "test", {"model=" + model}); }

TEST(CrossStitch, NeedsALayerToStitch) {
  try {
    Network network(config_for("{name: cross_stitch, hidden: []}"), toy_info("parallel"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("model.hidden: found an empty list"), std::string::npos) << error.what();
  }
}

// Without stitching (own = 1) the tasks' networks are independent: a task's loss moves no other task's layers.
TEST(CrossStitch, OwnOneStartsAsSeparateNetworks) {
  const DatasetInfo info = toy_info("roots");
  Network network(config_for("{name: cross_stitch, own: 1}"), info);
  Context context;
  context.training = true;
  network.parameters().zero_grad();
  network.forward(toy_batch(info, 20, 1), context).output.logits[0].sum().backward();
  for (const auto& entry : network.parameters().entries())
    if (entry.name == "network.0.bias") {
      EXPECT_GT(entry.tensor.grad()[0].abs().max().item<float>(), 0);
      EXPECT_EQ(entry.tensor.grad()[1].abs().max().item<float>(), 0);
    }
}

}  // namespace
}  // namespace ektm
