#include "train/label_statistics.h"

#include <gtest/gtest.h>

namespace ektm {
namespace {

// click -> cart -> pay, and click -> like that never has its label. Of four rows in ten the user clicked; half of the carts' labels are hidden.
class Shop : public Dataset {
 public:
  Shop() { info_.tasks = {{"click", -1}, {"cart", 0}, {"pay", 1}, {"like", 0}}; }
  int64_t rows() const override { return 20000; }
  const DatasetInfo& info() const override { return info_; }
  void gather(const int64_t* row_numbers, int64_t count, Batch& batch) const override {
    batch.rows = count;
    batch.labels.clear(), batch.observed.clear();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = row_numbers[i];
      const uint8_t click = row % 10 < 4, seen = click && row % 20 < 10, cart = seen && row % 10 < 2;
      batch.labels.insert(batch.labels.end(), {click, cart, 0, 0});
      batch.observed.insert(batch.observed.end(), {1, seen, cart, 0});
    }
  }

 private:
  DatasetInfo info_;
};

TEST(LabelStatistics, KnownIsTheShareOfTheRowsThatCameAsFar) {
  const LabelStatistics found = label_statistics(Shop());
  EXPECT_EQ(found.known, (std::vector<double>{1, 0.5, 1, 0}));  // roots 1; of 4 clicks 2 have the cart's label; every known cart has its payment's
  EXPECT_EQ(found.rows[0][1].item<double>(), 4000);
}

TEST(LabelStatistics, KnownCountsWhatTrainingSees) {
  LoaderConfig loader;
  loader.label_shares = {1, 0.3, 0.5, 1};
  const LabelStatistics found = label_statistics(Shop(), loader);
  EXPECT_NEAR(found.known[1], 0.15, 0.02);  // half, of which three in ten
  EXPECT_NEAR(found.known[2], 0.5, 0.06);   // of the carts that are still known
}

TEST(LabelStatistics, OfAnEventThatNeverHappenedNothingIsMissing) {
  class NoClick : public Shop {
    void gather(const int64_t* row_numbers, int64_t count, Batch& batch) const override {
      Shop::gather(row_numbers, count, batch);
      std::fill(batch.labels.begin(), batch.labels.end(), 0);
    }
  };
  EXPECT_EQ(label_statistics(NoClick()).known, (std::vector<double>{1, 1, 1, 1}));
}

TEST(LabelStatistics, PathModelsNeedThemWhereATaskFollowsAnother) {
  auto needed = [](const std::string& model, const std::vector<TaskInfo>& tasks) {
    DatasetInfo info;
    info.tasks = tasks;
    return needs_label_statistics(parse_run_config(parse_yaml("model: " + model, "test"), "test", {}), info);
  };
  const std::vector<TaskInfo> chain = {{"click", -1}, {"pay", 0}}, parallel = {{"a", -1}, {"b", -1}};
  for (const char* model : {"{name: esmm}", "{name: escm2_ipw}", "{name: escm2_dr}", "{name: dcmt}", "{name: aitm}"}) {
    EXPECT_TRUE(needed(model, chain)) << model;
    EXPECT_FALSE(needed(model, parallel)) << model;
  }
  EXPECT_FALSE(needed("{name: mmoe}", chain));
  EXPECT_TRUE(needed("{name: ektm, mix_start: labels}", parallel));
}

}  // namespace
}  // namespace ektm
