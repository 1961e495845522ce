#include <gtest/gtest.h>

#include "base/error.h"
#include "models/zoo.h"

namespace ektm {
namespace {

std::string message(const std::string& keys) {
  ModelSpec spec;
  spec.tasks = {{"click", -1}, {"like", 0}};
  spec.features = 5;
  spec.columns = {{"user", 0, 2, true}, {"item", 2, 2, true}, {"price", 4, 1, false}};
  spec.task_weights = {1, 1};
  ConfigErrors errors("test");
  const ModelEntry& entry = find_model("mkt", "test");
  const YAML::Node config = entry.resolve(YAML::Load("{name: mkt, " + keys + "}"), errors, "");
  errors.throw_if_any();
  ParameterStore store(1, at::kDouble);
  try {
    entry.make(config, spec, store);
    return "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Config);
    return error.what();
  }
}

TEST(Mkt, BadKeysAreNamed) {
  EXPECT_EQ(message("entity: [price, item]"), "no error");
  EXPECT_NE(message("entity: [prize]").find("model mkt, key entity: found 'prize'"), std::string::npos);
  EXPECT_NE(message("entity: [prize]").find("Did you mean 'price'?"), std::string::npos);
  EXPECT_NE(message("hidden: []").find("model mkt, key hidden: found []"), std::string::npos);
}

TEST(Mkt, IsNoBackbone) { EXPECT_EQ(find_model("mkt", "test").make_backbone, nullptr); }

}  // namespace
}  // namespace ektm
