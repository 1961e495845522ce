#include "nn/gemm.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "nn/kernels.h"
#include "nn/ops.h"

namespace ektm {
namespace {

// A, B and C lie in wider matrices, and one of the numbers around C tells whether the product keeps to its place.
at::Tensor strided_product(bool a_transposed, bool b_transposed, const at::Tensor& a, const at::Tensor& b, const at::Tensor& start, float beta) {
  auto in_wider = [](const at::Tensor& x) {
    at::Tensor wide = at::full({x.size(0), x.size(1) + 3}, 1e9f);
    wide.narrow(1, 0, x.size(1)).copy_(x);
    return wide;
  };
  at::Tensor left = in_wider(a_transposed ? a.t() : a), right = in_wider(b_transposed ? b.t() : b), c = in_wider(start);
  gemm(a_transposed, b_transposed, a.size(0), b.size(1), a.size(1), left.const_data_ptr<float>(), left.size(1), right.const_data_ptr<float>(), right.size(1),
       beta, c.data_ptr<float>(), c.size(1));
  EXPECT_TRUE(at::equal(c.narrow(1, start.size(1), 3), at::full({start.size(0), 3}, 1e9f)));
  return c.narrow(1, 0, start.size(1)).clone();
}

using Unit = std::optional<kernels::Bf16Unit>;

std::vector<Unit> bf16_units() {  // of this CPU
  std::vector<Unit> units;
  for (auto unit : {kernels::Bf16Unit::Amx, kernels::Bf16Unit::Vectors})
    if (kernels::has_bf16_product(unit)) units.push_back(unit);
  return units;
}

// Products by `unit` while it lives.
class UnitScope {
 public:
  explicit UnitScope(Unit unit) : before_(detail::set_bf16_unit(unit)) {}
  ~UnitScope() { detail::set_bf16_unit(before_); }

 private:
  Unit before_;
};

TEST(Gemm, Bf16IsTheProductOfRoundedFactorsByEveryUnit) {
  at::manual_seed(1);
  const at::Tensor a = at::randn({37, 53}), b = at::randn({53, 29}), start = at::randn({37, 29});
  auto rounded = [](const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kDouble); };
  const at::Tensor exact = at::mm(rounded(a), rounded(b));
  const PrecisionScope precision(Precision::Bf16);
  auto units = bf16_units();
  units.push_back({});
  for (const auto& unit : units) {
    const UnitScope scope(unit);
    for (int transposed = 0; transposed < 4; ++transposed)
      for (float beta : {0.f, 1.f}) {
        const at::Tensor c = strided_product(transposed & 1, transposed & 2, a, b, start, beta);
        const at::Tensor expected = exact + beta * start.to(at::kDouble);
        EXPECT_LT((c.to(at::kDouble) - expected).abs().max().item<double>(), 2e-5) << transposed << beta;
        EXPECT_GT((c.to(at::kDouble) - at::mm(a, b).to(at::kDouble) - beta * start).abs().max().item<double>(), 1e-3);
      }
  }
}

// Against the double product of the rounded factors, over sizes around those of their tiles and blocks.
TEST(Gemm, Bf16InstructionsTakeAnySize) {
  const auto units = bf16_units();
  if (units.empty()) GTEST_SKIP() << "this CPU has neither AMX-BF16 nor AVX512-BF16";
  at::manual_seed(3);
  const PrecisionScope precision(Precision::Bf16);
  const std::vector<std::array<int64_t, 3>> sizes = {{1, 1, 1},   {1, 33, 2},   {12, 32, 512}, {13, 31, 513},  {11, 16, 32},  {32, 32, 32},
                                                     {25, 17, 1}, {24, 65, 31}, {289, 40, 33}, {30, 513, 300}, {7, 3, 1030}, {64, 64, 64}};
  for (const auto& unit : units) {
    const UnitScope scope(unit);
    for (const auto& [m, n, k] : sizes)
      for (int transposed = 0; transposed < 4; ++transposed)
        for (float beta : {0.f, 0.5f, 1.f}) {
          const at::Tensor a = at::randn({m, k}).to(at::kBFloat16).to(at::kFloat), b = at::randn({k, n}).to(at::kBFloat16).to(at::kFloat);
          const at::Tensor start = beta == 0 ? at::full({m, n}, std::numeric_limits<float>::quiet_NaN()) : at::randn({m, n});
          at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
          if (beta != 0) expected += beta * start.to(at::kDouble);
          const at::Tensor c = strided_product(transposed & 1, transposed & 2, a, b, start, beta);
          EXPECT_LT((c.to(at::kDouble) - expected).abs().max().item<double>(), 1e-5 * std::sqrt(static_cast<double>(k)))
              << static_cast<int>(*unit) << ' ' << m << ' ' << n << ' ' << k << ' ' << transposed << ' ' << beta;
        }
    const at::Tensor start = at::randn({3, 5});  // nothing to add up
    EXPECT_TRUE(at::equal(strided_product(false, false, at::empty({3, 0}), at::empty({0, 5}), start, 0.5f), 0.5f * start));
  }
}

// Of sizes around those of tiles and blocks; in f32, in bf16 by each unit and without one.
TEST(Gemm, RightFactorMakesTheSameBits) {
  at::manual_seed(4);
  auto check = [](const char* what) {
    for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {37, 33, 2}, {300, 545, 31}, {13, 31, 513}, {64, 300, 1200}, {5, 7, 0}, {0, 5, 7}, {5, 0, 7}})
      for (bool transposed : {false, true})
        for (float beta : {0.f, 1.f}) {
          const at::Tensor a = at::randn({m, k + 3}), b = transposed ? at::randn({n, k + 2}) : at::randn({k, n + 2}), start = at::randn({m, n + 1});
          const at::Tensor expected = start.clone(), c = start.clone();
          gemm(false, transposed, m, n, k, a.const_data_ptr<float>(), a.size(1), b.const_data_ptr<float>(), b.size(1), beta, expected.data_ptr<float>(), n + 1);
          const RightFactor<float> right(transposed, n, k, b.const_data_ptr<float>(), b.size(1));
          right.multiply(m, a.const_data_ptr<float>(), a.size(1), beta, c.data_ptr<float>(), n + 1);
          EXPECT_TRUE(at::equal(c, expected)) << what << ' ' << m << ' ' << n << ' ' << k << ' ' << transposed << ' ' << beta;
          if (m * n * k > 0) { EXPECT_FALSE(at::equal(c, start)); }
        }
  };
  check("f32");
  const PrecisionScope precision(Precision::Bf16);
  auto units = bf16_units();
  units.push_back({});
  for (const auto& unit : units) {
    const UnitScope scope(unit);
    check(unit ? *unit == kernels::Bf16Unit::Amx ? "AMX" : "vectors" : "rounded");
  }
}

TEST(Gemm, PrecisionEndsWithItsScope) {
  at::manual_seed(2);
  const at::Tensor a = at::randn({5, 70}), b = at::randn({70, 6}), start = at::zeros({5, 6});
  const at::Tensor before = strided_product(false, false, a, b, start, 0);
  {
    const PrecisionScope precision(Precision::Bf16);
    EXPECT_FALSE(at::equal(before, strided_product(false, false, a, b, start, 0)));
  }
  EXPECT_TRUE(at::equal(before, strided_product(false, false, a, b, start, 0)));
}

TEST(Kernels, Bf16RoundsAsPyTorchDoes) {
  const float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  at::Tensor x = at::cat({at::randn({1000}), at::tensor({0.f, -0.f, 1.f, infinity, -infinity, largest, -largest, 1e-40f, 1.00390625f, 1.01171875f})});
  at::Tensor expected = x.to(at::kBFloat16).to(at::kFloat), y = at::empty_like(x);
  kernels::round_to_bf16(x.numel(), x.const_data_ptr<float>(), y.data_ptr<float>());
  EXPECT_TRUE(at::equal(y, expected));
  const float nan = -std::numeric_limits<float>::quiet_NaN();
  float out = 0;
  kernels::round_to_bf16(1, &nan, &out);
  EXPECT_TRUE(std::isnan(out));
}

}  // namespace
}  // namespace ektm
