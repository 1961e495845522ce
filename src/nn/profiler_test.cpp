#include "nn/profiler.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace ektm {
namespace {

void step(const at::Tensor& a) {
  {
    EKTM_PROFILE("forward");
    at::mm(a, a);
  }
  EKTM_PROFILE("backward");
  {
    EKTM_PROFILE("gather");  // inside of another part: that part's time
    at::add(a, a);
  }
  at::mm(a, a);
}

const Profiler::Line* find(const std::vector<Profiler::Line>& lines, const std::string& name) {
  auto found = std::find_if(lines.begin(), lines.end(), [&](const auto& line) { return line.name == name; });
  return found == lines.end() ? nullptr : &*found;
}

TEST(Profiler, CountsPartsAndOperationsAfterTwoSteps) {
  at::Tensor a = at::ones({8, 8});
  step(a);  // before: not recorded
  Profiler profiler(1);
  for (int i = 0; i < 5; ++i) step(a), profiler.step_ends();
  profiler.stop();
  step(a);  // after: not recorded
  EXPECT_EQ(profiler.steps(), 3);
  const auto parts = profiler.parts(), operations = profiler.operations();
  ASSERT_NE(find(parts, "forward"), nullptr);
  EXPECT_EQ(find(parts, "forward")->calls, 3);
  EXPECT_EQ(find(parts, "backward")->calls, 3);
  EXPECT_EQ(find(parts, "gather"), nullptr);
  ASSERT_NE(find(operations, "aten::mm"), nullptr);
  EXPECT_EQ(find(operations, "aten::mm")->calls, 6);
  EXPECT_EQ(find(operations, "aten::add")->calls, 3);
  // Parts and "other" are all of the time between the second step's end and the stop; operations lie inside of the parts.
  double part_ms = 0, operation_ms = 0;
  for (const auto& line : parts) part_ms += line.ms;
  for (const auto& line : operations) operation_ms += line.ms;
  EXPECT_LE(operation_ms, part_ms);
  EXPECT_NE(profiler.table(64).find("Profile of 3 steps of 64 rows"), std::string::npos);
}

TEST(Profiler, TraceHoldsTheTracedSteps) {
  at::Tensor a = at::ones({8, 8});
  Profiler profiler(1);
  for (int i = 0; i < 5; ++i) step(a), profiler.step_ends();
  profiler.stop();
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "trace.json";
  profiler.write_trace(file);
  std::ifstream in(file);
  const auto trace = nlohmann::json::parse(in);
  int products = 0, parts = 0;
  for (const auto& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    EXPECT_GE(event["dur"].get<double>(), 0);
    products += event["name"] == "aten::mm";
    parts += event["cat"] == "part";
  }
  EXPECT_EQ(products, 2);
  EXPECT_EQ(parts, 3);
  std::filesystem::remove(file);
}

TEST(Profiler, TooFewSteps) {
  Profiler profiler;
  profiler.step_ends();
  profiler.stop();
  EXPECT_EQ(profiler.steps(), 0);
  EXPECT_NE(profiler.table(64).find("too few steps"), std::string::npos);
}

}  // namespace
}  // namespace ektm
