#include "data/number_encoding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

namespace ektm {
namespace {

NumberScaling fit(const std::string& normalize, const std::vector<double>& values) {
  ScalingFitter fitter(normalize);
  for (double x : values) fitter.add(x);
  return fitter.finish();
}

std::vector<double> edges(const std::vector<double>& values, int64_t bins) {
  QuantileSample sample(1);
  for (double x : values) sample.add(x);
  return sample.edges(bins);
}

TEST(ParseFinite, NumbersAndOthers) {
  EXPECT_EQ(parse_finite("1.5"), 1.5);
  EXPECT_EQ(parse_finite("-2e3"), -2000.0);
  EXPECT_EQ(parse_finite("+7"), 7.0);
  EXPECT_EQ(parse_finite("0.1"), 0.1);
  for (const char* text : {"", "+", "-", "abc", "1.5x", " 1", "1 ", "1,5", "nan", "inf", "-inf", "1e999", "+-1", "0x10"})
    EXPECT_FALSE(parse_finite(text)) << text;
}

TEST(ParseFinite, ShortDecimalsAreTheNearestDoubles) {
  Rng rng(8);
  for (int i = 0; i < 200000; ++i) {
    std::string text(rng.below(2), '-');
    for (uint64_t k = 0, count = rng.below(12); k < count; ++k) text += static_cast<char>('0' + rng.below(10));
    if (rng.below(3) > 0) text += '.';
    for (uint64_t k = 0, count = rng.below(8); k < count; ++k) text += static_cast<char>('0' + rng.below(10));
    char* end = nullptr;
    const double expected = std::strtod(text.c_str(), &end);
    const auto found = parse_finite(text);
    ASSERT_EQ(found.has_value(), !text.empty() && *end == 0 && end != text.c_str()) << text;
    if (found) {
      ASSERT_EQ(*found, expected) << text;
      ASSERT_EQ(std::signbit(*found), std::signbit(expected)) << text;
    }
  }
}

TEST(SortNumbers, EqualsStdSort) {
  Rng rng(9);
  for (size_t count : {0, 1, 10, 999, 1000, 50000})
    for (int kind = 0; kind < 4; ++kind) {
      std::vector<double> values;
      for (size_t i = 0; i < count; ++i) {
        if (kind == 0) values.push_back(rng.normal() * std::pow(10.0, static_cast<double>(rng.below(600)) - 300));
        if (kind == 1) values.push_back(static_cast<double>(rng.below(50)) - 25);
        if (kind == 2) values.push_back(7.5);
        if (kind == 3) values.push_back(rng.below(10) == 0 ? (rng.below(2) ? HUGE_VAL : -HUGE_VAL) : rng.uniform());
      }
      std::vector<double> expected = values;
      std::sort(expected.begin(), expected.end());
      sort_numbers(values);
      ASSERT_EQ(values, expected) << count << " " << kind;
    }
}

TEST(Scaling, StandardByHand) {
  const NumberScaling s = fit("standard", {1, 2, 3, 4});  // mean 2.5, variance 1.25
  EXPECT_DOUBLE_EQ(s.apply(2.5), 0);
  EXPECT_DOUBLE_EQ(s.apply(1), -1.5 / std::sqrt(1.25));
  EXPECT_DOUBLE_EQ(s.apply(10), 7.5 / std::sqrt(1.25));
}

TEST(Scaling, LogStandardKeepsTheSign) {
  const double e = std::exp(1.0);
  const NumberScaling s = fit("log_standard", {e - 1, 1 - e});  // logs 1 and -1
  EXPECT_NEAR(s.apply(0), 0, 1e-15);
  EXPECT_NEAR(s.apply(e - 1), 1, 1e-15);
  EXPECT_NEAR(s.apply(1 - e * e), -2, 1e-14);
}

TEST(Scaling, MinMaxAndNone) {
  const NumberScaling s = fit("minmax", {3, -1, 7});
  EXPECT_DOUBLE_EQ(s.apply(-1), 0);
  EXPECT_DOUBLE_EQ(s.apply(7), 1);
  EXPECT_DOUBLE_EQ(s.apply(15), 2);
  EXPECT_DOUBLE_EQ(fit("none", {3, -1, 7}).apply(3.25), 3.25);
}

TEST(Scaling, ConstantAndEmptyColumns) {
  for (const char* normalize : {"standard", "log_standard", "minmax"}) {
    EXPECT_EQ(fit(normalize, std::vector<double>(7, 0.1)).apply(0.1), 0) << normalize;
    EXPECT_TRUE(std::isfinite(fit(normalize, {}).apply(5))) << normalize;
  }
}

TEST(Scaling, LargeOffsetsDoNotCancel) {
  const NumberScaling s = fit("standard", {1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 4});
  EXPECT_NEAR(s.apply(1e9 + 1), -1.5 / std::sqrt(1.25), 1e-9);
}

TEST(Bins, QuantilesByHand) {
  EXPECT_EQ(edges({10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 5), (std::vector<double>{2, 4, 6, 8}));
  EXPECT_EQ(edges({1, 2, 3}, 2), std::vector<double>{2});
  EXPECT_EQ(edges({1, 2}, 10), std::vector<double>{1});
}

TEST(Bins, ManyEqualValuesShareOneEdge) {
  std::vector<double> values(90, 0.0);
  for (int i = 1; i <= 10; ++i) values.push_back(i);
  EXPECT_EQ(edges(values, 10), std::vector<double>{0});
  EXPECT_EQ(edges(values, 20), (std::vector<double>{0, 5}));  // 95 of 100 values are at most 5
  EXPECT_TRUE(edges(std::vector<double>(50, 3.0), 10).empty());
  EXPECT_TRUE(edges({}, 10).empty());
}

TEST(Bins, UpperEdgesBelongToTheirBin) {
  const std::vector<double> e = {2, 4};
  EXPECT_EQ(bin_of(e, -1e300), 0);
  EXPECT_EQ(bin_of(e, 2), 0);
  EXPECT_EQ(bin_of(e, 2.000001), 1);
  EXPECT_EQ(bin_of(e, 4), 1);
  EXPECT_EQ(bin_of(e, 1e300), 2);
}

TEST(Bins, NoBinIsEmptyOnTheFittedValues) {
  Rng rng(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<double> values;
    for (int i = 0; i < 200; ++i) values.push_back(static_cast<double>(rng.below(1 + rng.below(300))));
    const auto e = edges(values, 1 + static_cast<int64_t>(rng.below(40)));
    std::vector<int> counts(e.size() + 1);
    for (double x : values) ++counts[bin_of(e, x)];
    for (int count : counts) EXPECT_GT(count, 0);
  }
}

TEST(Bins, ASampleOfMoreValuesThanItHoldsIsUniform) {
  QuantileSample sample(1);
  const int n = 3 * static_cast<int>(QuantileSample::kCapacity);
  for (int i = 0; i < n; ++i) sample.add(i);
  const auto e = sample.edges(4);
  ASSERT_EQ(e.size(), 3u);
  for (int k = 0; k < 3; ++k) EXPECT_NEAR(e[k] / n, (k + 1) / 4.0, 0.005);  // ten standard errors
}

}  // namespace
}  // namespace ektm
