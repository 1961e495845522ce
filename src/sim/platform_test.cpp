#include "sim/platform.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/error.h"
#include "base/random.h"

namespace ektm {
namespace {

SimulationConfig small_config() {
  SimulationConfig config;
  config.rows = 60'000;
  config.users = 3'000;
  config.items = 600;
  config.days = 6;
  return config;
}

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) mx += x[i] / x.size(), my += y[i] / y.size();
  for (size_t i = 0; i < x.size(); ++i)
    xx += (x[i] - mx) * (x[i] - mx), yy += (y[i] - my) * (y[i] - my), xy += (x[i] - mx) * (y[i] - my);
  return xy / std::sqrt(xx * yy);
}

std::vector<std::vector<double>> logit_columns(const Platform& platform) {
  std::vector<std::vector<double>> columns(platform.tasks().size());
  for (int64_t row = 0; row < platform.config().rows; ++row) {
    auto logits = platform.logits(platform.impression(row));
    for (size_t t = 0; t < columns.size(); ++t) columns[t].push_back(logits[t]);
  }
  return columns;
}

std::string config_error(const SimulationConfig& config) {
  try {
    Platform platform(config);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Config);
    return error.what();
  }
  ADD_FAILURE() << "expected an error";
  return "";
}

TEST(PowerLaw, HeadIsAsHeavyAsTheIntegralSays) {
  // exponent 1/2 on [1, 101): F(x) = (sqrt(x) - 1) / (sqrt(101) - 1).
  PowerLaw law(100, 0.5);
  Rng rng(3);
  int first = 0, upper_half = 0;
  const int draws = 200'000;
  for (int i = 0; i < draws; ++i) {
    int64_t rank = law.rank(rng.uniform());
    ASSERT_GE(rank, 0);
    ASSERT_LT(rank, 100);
    first += rank == 0;
    upper_half += rank >= 50;
  }
  EXPECT_NEAR(first / double(draws), (std::sqrt(2.0) - 1) / (std::sqrt(101.0) - 1), 0.002);
  EXPECT_NEAR(upper_half / double(draws), 1 - (std::sqrt(51.0) - 1) / (std::sqrt(101.0) - 1), 0.004);
  EXPECT_EQ(law.rank(0), 0);
  EXPECT_EQ(law.rank(0x1.fffffffffffffp-1), 99);
  EXPECT_EQ(PowerLaw(1, 0.7).rank(0.999), 0);
}

TEST(Platform, CorrelationsOfLogitsAreThoseOfTheRelatedness) {
  SimulationConfig config = small_config();
  config.relatedness = {{"register", 1}, {"download", 0.8}, {"pay", 0.5}, {"share", 0}};
  Platform platform(config);
  auto logits = logit_columns(platform);
  // logit_i = signal (rho_i S + sqrt(1 - rho_i^2) own_i): corr(i, j) = rho_i rho_j; the click has 0.8.
  EXPECT_NEAR(correlation(logits[0], logits[1]), 0.8, 0.02);
  EXPECT_NEAR(correlation(logits[0], logits[3]), 0.8 * 0.5, 0.02);
  EXPECT_NEAR(correlation(logits[0], logits[4]), 0, 0.02);
  EXPECT_NEAR(correlation(logits[1], logits[2]), 0.8, 0.02);
  EXPECT_NEAR(correlation(logits[2], logits[3]), 0.4, 0.02);
  EXPECT_NEAR(correlation(logits[2], logits[4]), 0, 0.02);
  for (const auto& column : logits) {
    double mean = 0, square = 0;
    for (double x : column) mean += x / column.size();
    for (double x : column) square += (x - mean) * (x - mean) / column.size();
    EXPECT_NEAR(std::sqrt(square), config.signal, 0.02);
  }
}

TEST(Platform, ExpectedRatesAreExact) {
  for (const char* pattern : {"parallel", "sequential"}) {
    SimulationConfig config = small_config();
    config.pattern = pattern;
    config.rates = {{"pay", 0.25}};
    Platform platform(config);
    const auto& tasks = platform.tasks();
    std::vector<double> positives(tasks.size()), parents(tasks.size());
    for (int64_t row = 0; row < config.rows; ++row) {
      Probabilities p = platform.probabilities(platform.impression(row));
      std::array<double, kMaxTasks> happened{};
      for (size_t t = 0; t < tasks.size(); ++t) {
        double parent = tasks[t].parent < 0 ? 1 : happened[tasks[t].parent];
        happened[t] = parent * p[t];
        parents[t] += parent;
        positives[t] += happened[t];
      }
    }
    for (size_t t = 0; t < tasks.size(); ++t)
      EXPECT_NEAR(positives[t] / parents[t], tasks[t].rate, 1e-4 * tasks[t].rate) << pattern << " " << tasks[t].name;
    EXPECT_EQ(tasks[0].rate, 0.05);
    for (const auto& task : tasks)
      if (task.name == "pay") EXPECT_EQ(task.rate, 0.25);
  }
}

TEST(Platform, LabelsFollowTheProbabilitiesAndTheirParents) {
  SimulationConfig config = small_config();
  config.pattern = "sequential";
  config.ctr = 0.5;
  Platform platform(config);
  std::array<double, kMaxTasks> expected{}, variance{}, seen{};
  for (int64_t row = 0; row < config.rows; ++row) {
    Impression impression = platform.impression(row);
    Probabilities p = platform.probabilities(impression);
    auto labels = platform.labels(impression, p);
    for (size_t t = 0; t < 4; ++t) {
      if (t > 0 && !labels[t - 1]) {
        ASSERT_EQ(labels[t], 0);
        continue;
      }
      seen[t] += labels[t];
      expected[t] += p[t];
      variance[t] += p[t] * (1 - p[t]);
    }
  }
  for (size_t t = 0; t < 4; ++t) {
    EXPECT_GT(seen[t], 50);
    EXPECT_NEAR(seen[t], expected[t], 4.5 * std::sqrt(variance[t]));
  }
}

TEST(Platform, TimeGrowsWithTheRowAndDaysAreEqual) {
  SimulationConfig config = small_config();
  Platform platform(config);
  int64_t last = 0;
  std::vector<int64_t> rows_of_day(config.days);
  int64_t first_ts = platform.impression(0).ts;
  EXPECT_LT(first_ts % 86'400, 60);  // 10,000 rows a day: the first in the first minute
  for (int64_t row = 0; row < config.rows; ++row) {
    Impression impression = platform.impression(row);
    ASSERT_GE(impression.ts, last);
    last = impression.ts;
    ASSERT_EQ(impression.ts / 86'400 - first_ts / 86'400, impression.day);
    ASSERT_EQ(impression.ts % 86'400 / 3'600, impression.hour);
    ++rows_of_day[impression.day];
  }
  for (int64_t day = 0; day < config.days; ++day)
    EXPECT_EQ(rows_of_day[day], platform.first_row(day + 1) - platform.first_row(day));
}

TEST(Platform, ScenariosMixUsersAndItemsDifferently) {
  SimulationConfig config = small_config();
  Platform platform(config);
  double rows[2] = {}, asked_for[2] = {};
  for (int64_t row = 0; row < config.rows; ++row) {
    Impression impression = platform.impression(row);
    const SimulatedUser& user = platform.user(impression.user);
    uint8_t category = platform.item(impression.item).category;
    ++rows[impression.scenario];
    asked_for[impression.scenario] += category == user.interest || category == user.taste;
    ASSERT_LT(impression.position, impression.scenario == kSearch ? 5 : 10);
  }
  EXPECT_NEAR(rows[kSearch] / config.rows, config.search_share, 0.01);
  EXPECT_GT(asked_for[kSearch] / rows[kSearch], 0.75);
  EXPECT_LT(asked_for[kFeed] / rows[kFeed], 0.5);
}

TEST(Platform, DriftMovesInterests) {
  // The mean click logit of a category on the first day against the last.
  auto largest_move = [](double drift) {
    SimulationConfig config = small_config();
    config.drift = drift;
    config.rows = 120'000;
    Platform platform(config);
    std::vector<std::array<double, 4>> sums(kCategories);
    double largest = 0;
    for (int64_t row = 0; row < config.rows; ++row) {
      Impression impression = platform.impression(row);
      if (impression.day != 0 && impression.day != config.days - 1) continue;
      auto& sum = sums[platform.item(impression.item).category];
      int at = impression.day == 0 ? 0 : 2;
      sum[at] += platform.logits(impression)[0];
      sum[at + 1] += 1;
    }
    for (auto& sum : sums)
      if (sum[1] > 500 && sum[3] > 500) largest = std::max(largest, std::abs(sum[0] / sum[1] - sum[2] / sum[3]));
    return largest;
  };
  EXPECT_LT(largest_move(0), 0.35);
  EXPECT_GT(largest_move(2), 0.8);
}

TEST(Platform, IdsAreDistinctAndBeyondFloats) {
  std::set<int64_t> ids;
  std::set<double> as_double;
  for (uint32_t i = 0; i < 1000; ++i) {
    ids.insert(Platform::user_id(i));
    ids.insert(Platform::item_id(i));
    as_double.insert(static_cast<double>(Platform::user_id(i)));
  }
  EXPECT_EQ(ids.size(), 2000u);
  EXPECT_LT(as_double.size(), 600u);  // the ids above 2^53 collapse
}

TEST(Platform, ReportsTheAskedShare) {
  SimulationConfig config = small_config();
  config.unreported = 0.4;
  Platform platform(config);
  int reported = 0;
  for (uint32_t advertiser = 0; advertiser < 2'000; ++advertiser) {
    EXPECT_TRUE(platform.reported(advertiser, 0));  // clicks are the platform's own
    for (size_t t = 1; t < 5; ++t) reported += platform.reported(advertiser, t);
  }
  EXPECT_NEAR(reported / 8'000.0, 0.6, 0.03);
}

TEST(Platform, OneRowADayIsEnough) {
  SimulationConfig config = small_config();
  config.rows = config.days;
  config.users = config.items = 1;
  Platform platform(config);
  for (int64_t row = 0; row < config.rows; ++row) {
    Impression impression = platform.impression(row);
    EXPECT_EQ(impression.day, row);
    for (float p : platform.probabilities(impression)) EXPECT_TRUE(p >= 0 && p <= 1);
  }
}

TEST(SimulationConfig, ErrorsNameThePlaceAndTheRemedy) {
  SimulationConfig config = small_config();
  config.relatedness = {{"cart", 0.5}};  // of the other pattern
  EXPECT_NE(config_error(config).find(
                "found the task 'cart'; expected conversions of the parallel pattern: register, download, pay, share"),
            std::string::npos);
  config = small_config();
  config.rates = {{"click", 0.5}};  // that is what ctr is for
  EXPECT_NE(config_error(config).find("rates"), std::string::npos);
  config = small_config();
  config.test_days = 5;
  EXPECT_NE(config_error(config).find("at least one day left for training"), std::string::npos);
  config = small_config();
  config.rows = config.days - 1;
  EXPECT_NE(config_error(config).find("at least one row a day"), std::string::npos);
}

}  // namespace
}  // namespace ektm
