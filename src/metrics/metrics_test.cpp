#include "metrics/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "base/random.h"
#include "metrics/text_table.h"

namespace ektm {
namespace {

struct Row {
  float prediction;
  uint8_t label;
  uint64_t group;
};

BinaryAccumulator accumulate(const std::vector<Row>& rows) {
  BinaryAccumulator result;
  for (const auto& row : rows) result.add(row.prediction, row.label, row.group);
  return result;
}

// The definition: over all pairs of a positive and a negative.
std::optional<double> pairwise_auc(const std::vector<Row>& rows) {
  double wins = 0, pairs = 0;
  for (const auto& a : rows)
    for (const auto& b : rows) {
      if (!a.label || b.label) continue;
      ++pairs;
      wins += a.prediction > b.prediction ? 1 : a.prediction == b.prediction ? 0.5 : 0;
    }
  if (pairs == 0) return std::nullopt;
  return wins / pairs;
}

// `levels`: how many different predictions there can be (few = many ties).
std::vector<Row> random_rows(uint64_t seed, size_t count, uint64_t levels, uint64_t groups) {
  Rng rng(seed);
  std::vector<Row> rows(count);
  for (auto& row : rows) {
    row.prediction = static_cast<float>(rng.below(levels + 1)) / static_cast<float>(levels);
    row.label = rng.uniform() < 0.1 + 0.6 * row.prediction;
    row.group = mix64(rng.below(groups));
  }
  return rows;
}

TEST(Metrics, AucEqualsTheCountOverAllPairs) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const uint64_t levels[] = {1, 2, 5, 40, 1000000};
    const auto rows = random_rows(seed, 1 + seed % 90, levels[seed % 5], 3);
    const auto accumulator = accumulate(rows);
    const auto expected = pairwise_auc(rows), found = accumulator.compute(false).auc;
    ASSERT_EQ(found.has_value(), expected.has_value()) << "seed " << seed;
    ASSERT_EQ(accumulator.auc(), found) << "seed " << seed;
    if (expected) ASSERT_NEAR(*found, *expected, 1e-15) << "seed " << seed;
  }
}

TEST(Metrics, GaucEqualsTheGroupsOneByOne) {
  int compared = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const auto rows = random_rows(seed, 120, seed % 2 ? 4 : 100000, 1 + seed % 40);
    std::map<uint64_t, std::vector<Row>> by_group;
    for (const auto& row : rows) by_group[row.group].push_back(row);
    double sum = 0, weight = 0;
    int64_t left_out = 0;
    for (const auto& [group, members] : by_group) {
      const auto auc = pairwise_auc(members);
      if (!auc) {
        ++left_out;
        continue;
      }
      sum += *auc * static_cast<double>(members.size());
      weight += static_cast<double>(members.size());
    }
    const auto metrics = accumulate(rows).compute(true);
    ASSERT_EQ(metrics.groups, static_cast<int64_t>(by_group.size()));
    ASSERT_EQ(metrics.groups_left_out, left_out);
    ASSERT_EQ(metrics.gauc.has_value(), weight > 0);
    if (weight > 0) ASSERT_NEAR(*metrics.gauc, sum / weight, 1e-14) << "seed " << seed;
    compared += left_out > 0 && weight > 0;
  }
  EXPECT_GT(compared, 20);  // the cases had groups of both sorts
}

TEST(Metrics, AucOfNeighbouringFloats) {
  // The smallest and the largest differences that floats of [0,1] can have.
  const float one = 1.0f, below_one = std::nextafter(1.0f, 0.0f), tiny = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(accumulate({{one, 1, 0}, {below_one, 0, 0}}).auc(), 1.0);
  EXPECT_EQ(accumulate({{tiny, 0, 0}, {0.0f, 1, 0}}).auc(), 0.0);
  EXPECT_EQ(accumulate({{-0.0f, 0, 0}, {0.0f, 1, 0}}).auc(), 0.5);
}

void expect_equal_bits(const BinaryMetrics& a, const BinaryMetrics& b) {
  EXPECT_EQ(to_json(a).dump(), to_json(b).dump());
}

TEST(Metrics, OrderAndChunkingHaveNoInfluenceOnAnyBit) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    auto rows = random_rows(seed, 3000, seed % 2 ? 7 : 1000000, 50);
    const auto whole = accumulate(rows).compute(true);
    Rng rng(seed, 1);
    shuffle(rows, rng);
    BinaryAccumulator merged;
    std::vector<Row> chunk;
    for (const auto& row : rows) {
      chunk.push_back(row);
      if (rng.below(100) == 0) merged.merge(accumulate(chunk)), chunk.clear();
    }
    merged.merge(accumulate(chunk));
    expect_equal_bits(merged.compute(true), whole);
    EXPECT_EQ(merged.auc(), whole.auc);
    EXPECT_EQ(merged.logloss(), whole.logloss);
    EXPECT_EQ(merged.rows(), 3000);
  }
}

TEST(Metrics, MergeKeepsGroupsThatStartLate) {
  // Group 0 is stored lazily: all mixtures of chunks with and without other groups.
  const std::vector<Row> zeros = {{0.25f, 0, 0}, {0.75f, 1, 0}}, others = {{0.5f, 1, 9}, {0.5f, 0, 9}, {0.25f, 0, 0}};
  std::vector<Row> all = zeros;
  all.insert(all.end(), others.begin(), others.end());
  auto a = accumulate(zeros), b = accumulate(others);
  const auto expected = accumulate(all).compute(true);
  EXPECT_EQ(expected.groups, 2);
  EXPECT_DOUBLE_EQ(*expected.gauc, (3 * 1.0 + 2 * 0.5) / 5);
  auto ab = a;
  ab.merge(b);
  b.merge(a);
  expect_equal_bits(ab.compute(true), expected);
  expect_equal_bits(b.compute(true), expected);
}

TEST(Metrics, LoglossAndPcocByHand) {
  const auto m = accumulate({{0.5f, 1, 0}, {0.25f, 0, 0}, {0.75f, 1, 0}, {0.5f, 0, 0}}).compute(false);
  EXPECT_DOUBLE_EQ(*m.logloss, (std::log(2) + std::log(4. / 3) + std::log(4. / 3) + std::log(2)) / 4);
  EXPECT_DOUBLE_EQ(*m.pcoc, 2.0 / 2);
  EXPECT_EQ(m.rows, 4);
  EXPECT_EQ(m.positives, 2);
  // Certain and wrong: clipped to 1e-7.
  const auto wrong = accumulate({{0.0f, 1, 0}, {1.0f, 0, 0}}).compute(false);
  EXPECT_NEAR(*wrong.logloss, -std::log(1e-7), 1e-9);
}

TEST(Metrics, CalibrationByHand) {
  // 40 rows = 20 bins of 2. Pairs of equal predictions (2b+1)/40; the positives of every second pair: one of two.
  std::vector<Row> rows;
  double expected = 0;
  for (int b = 0; b < 20; ++b) {
    const float p = static_cast<float>(2 * b + 1) / 40;
    rows.push_back({p, static_cast<uint8_t>(b % 2), 0});
    rows.push_back({p, 0, 0});
    expected += std::abs(static_cast<double>(p) - (b % 2 ? 0.5 : 0)) / 20;
  }
  const auto m = accumulate(rows).compute(false);
  ASSERT_EQ(m.reliability.size(), 20u);
  EXPECT_EQ(m.reliability[3].rows, 2);
  EXPECT_DOUBLE_EQ(m.reliability[3].positive_rate, 0.5);
  EXPECT_DOUBLE_EQ(m.reliability[3].mean_prediction, static_cast<double>(7.0f / 40));
  EXPECT_NEAR(*m.ece, expected, 1e-15);
}

TEST(Metrics, ATieAcrossBinsSharesItsPositivesEvenly) {
  // One constant prediction that is right on average: perfectly calibrated, whatever the bins.
  std::vector<Row> rows;
  for (int i = 0; i < 100; ++i) rows.push_back({0.25f, static_cast<uint8_t>(i % 4 == 0), 0});
  const auto m = accumulate(rows).compute(false);
  EXPECT_NEAR(*m.ece, 0, 1e-15);
  EXPECT_EQ(m.auc, 0.5);
}

TEST(Metrics, BinsCoverEveryRowOnceInOrder) {
  for (size_t count : {1, 2, 19, 20, 21, 39, 1234}) {
    const auto m = accumulate(random_rows(count, count, 1000, 1)).compute(false);
    ASSERT_EQ(m.reliability.size(), std::min<size_t>(20, count));
    int64_t rows = 0, least = std::numeric_limits<int64_t>::max(), most = 0;
    double positives = 0, last = 0;
    for (const auto& bin : m.reliability) {
      rows += bin.rows;
      least = std::min(least, bin.rows);
      most = std::max(most, bin.rows);
      positives += bin.positive_rate * static_cast<double>(bin.rows);
      EXPECT_GE(bin.mean_prediction, last);
      last = bin.mean_prediction;
    }
    EXPECT_EQ(rows, static_cast<int64_t>(count));
    EXPECT_LE(most - least, 1);
    EXPECT_NEAR(positives, static_cast<double>(m.positives), 1e-9);
  }
}

TEST(Metrics, DeLongIntervalOfAnIndependentComputation) {
  // The constants come from the definition (structural components over all pairs), in Python with numpy and scipy:
  //   i = np.arange(200); k = (i * 37 % 101) // 4; y = (i * i * 7 + i * 13) % 31 < 4 + 2 * k // 3
  //   x, z = (k[y] / 25)[:, None], (k[~y] / 25)[None, :]; psi = (x > z) + .5 * (x == z)
  //   v = psi.mean(1).var(ddof=1) / x.size + psi.mean(0).var(ddof=1) / z.size
  //   psi.mean() + scipy.stats.norm.ppf([.5, .025, .975]) * v ** .5
  std::vector<Row> rows;
  for (int i = 0; i < 200; ++i) {
    const int k = (i * 37 % 101) / 4;
    rows.push_back({static_cast<float>(k) / 25, static_cast<uint8_t>((i * i * 7 + i * 13) % 31 < 4 + 2 * k / 3), 0});
  }
  const auto m = accumulate(rows).compute(false);
  EXPECT_EQ(m.positives, 72);
  EXPECT_NEAR(*m.auc, 0.6096462673611112, 1e-14);
  EXPECT_NEAR(m.auc_95->low, 0.5284356353364805, 1e-14);
  EXPECT_NEAR(m.auc_95->high, 0.6908568993857418, 1e-14);
}

TEST(Metrics, TheIntervalCoversTheTruthAboutNineteenTimesInTwenty) {
  // Positives N(1,1) against negatives N(0,1): AUC = Phi(1 / sqrt(2)).
  const double truth = 0.5 * std::erfc(-0.5);
  int covered = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    Rng rng(seed, 5);
    BinaryAccumulator accumulator;
    for (int i = 0; i < 150; ++i) {
      const uint8_t label = i % 3 == 0;
      accumulator.add(static_cast<float>(1 / (1 + std::exp(-rng.normal() - label))), label);
    }
    const auto interval = *accumulator.compute(false).auc_95;
    covered += interval.low <= truth && truth <= interval.high;
  }
  EXPECT_GT(covered, 925);
  EXPECT_LT(covered, 970);
}

TEST(Metrics, WhatTheRowsDoNotAllowIsAbsent) {
  const auto nothing = BinaryAccumulator().compute(true);
  EXPECT_EQ(nothing.rows, 0);
  EXPECT_FALSE(nothing.auc || nothing.auc_95 || nothing.gauc || nothing.logloss || nothing.pcoc || nothing.ece);
  EXPECT_TRUE(nothing.reliability.empty());

  const auto no_positive = accumulate({{0.5f, 0, 1}, {0.25f, 0, 2}}).compute(true);
  EXPECT_FALSE(no_positive.auc || no_positive.auc_95 || no_positive.gauc || no_positive.pcoc);
  EXPECT_TRUE(no_positive.logloss && no_positive.ece);
  EXPECT_EQ(no_positive.groups, 2);
  EXPECT_EQ(no_positive.groups_left_out, 2);

  const auto no_negative = accumulate({{0.5f, 1, 1}}).compute(false);
  EXPECT_FALSE(no_negative.auc);
  EXPECT_DOUBLE_EQ(*no_negative.pcoc, 0.5);

  const auto one_positive = accumulate({{0.5f, 1, 1}, {0.25f, 0, 2}, {0.2f, 0, 2}}).compute(false);
  EXPECT_EQ(one_positive.auc, 1.0);
  EXPECT_FALSE(one_positive.auc_95);  // one positive has no variance
  EXPECT_FALSE(one_positive.gauc);    // groups were not asked for
  EXPECT_EQ(one_positive.groups, 0);
}

TEST(Metrics, RejectsWhatIsNoProbability) {
  BinaryAccumulator accumulator;
  for (float bad : {std::nanf(""), -0.001f, 1.001f, std::numeric_limits<float>::infinity()}) {
    try {
      accumulator.add(bad, 0);
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Model);
    }
  }
  EXPECT_EQ(accumulator.rows(), 0);
}

EvaluationResult example() {
  EvaluationResult result{"ektm(mmoe)", "test", {}};
  result.results.push_back({"click", "all rows", "ctr", "served", "", accumulate(random_rows(1, 1500, 1000, 30)).compute(true)});
  result.results.push_back({"käufe", "rows where click = 1", "cvr", "base", "", accumulate({{0.5f, 0, 0}}).compute(true)});
  result.results.push_back({"click", "all rows", "ctr", "served", "7", accumulate(random_rows(2, 20, 1000, 3)).compute(true)});
  return result;
}

TEST(EvaluationResult, JsonRoundTripKeepsEveryBit) {
  const auto result = example();
  const auto text = result.to_json().dump();
  const auto again = EvaluationResult::from_json(nlohmann::json::parse(text));
  EXPECT_EQ(again.to_json().dump(), text);
  EXPECT_EQ(again.results[0].metrics.auc, result.results[0].metrics.auc);
  EXPECT_EQ(again.results[0].metrics.auc_95->low, result.results[0].metrics.auc_95->low);
  EXPECT_EQ(again.results[1].task, "käufe");
  EXPECT_FALSE(again.results[1].metrics.auc);
  EXPECT_EQ(again.results[2].scenario, "7");
}

TEST(EvaluationResult, JsonErrorsNameTheField) {
  auto json = example().to_json();
  json["results"][1].erase("logloss");
  try {
    EvaluationResult::from_json(json);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Data);
    EXPECT_NE(error.where().find("logloss"), std::string::npos);
  }
  json = example().to_json();
  json["results"][0]["auc"] = "high";
  EXPECT_THROW(EvaluationResult::from_json(json), Error);
  EXPECT_THROW(EvaluationResult::from_json(nlohmann::json::array()), Error);
}

TEST(EvaluationResult, TextIsAlignedWithOverallFirst) {
  auto result = example();
  std::swap(result.results[0], result.results[2]);  // the scenario comes first in the results
  const std::string text = result.to_text();
  EXPECT_LT(text.find("1,500"), text.find("scenario 7"));
  std::vector<std::string> lines;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  ASSERT_EQ(lines.size(), 8u);  // title, header, 2 rows; empty line, title, header, 1 row
  EXPECT_EQ(lines[0], "ektm(mmoe), split test");
  // Right-aligned numbers end below the end of their header (the umlaut is one column in two bytes).
  const size_t rows_end = lines[1].find("rows") + 4;
  EXPECT_EQ(lines[2].substr(rows_end - 5 + 1, 5), "    1");
  EXPECT_EQ(lines[3].substr(rows_end - 5, 5), "1,500");
  EXPECT_EQ(lines[7].substr(rows_end - 5, 5), "   20");
}

TEST(TextTable, AlignsByCodePoints) {
  TextTable table({TextTable::Align::Left, TextTable::Align::Right});
  table.line("a title wider than the table");
  table.row({"käufe", "1"});
  table.row({"x", "12.5"});
  EXPECT_EQ(table.to_string(), "a title wider than the table\nkäufe     1\nx      12.5\n");
}

}  // namespace
}  // namespace ektm
