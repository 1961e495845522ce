#include <algorithm>
#include <set>

#include "data/dataset.h"
#include "data/prepare_testing.h"

namespace ektm {
namespace {

// Row r has the id r; gathering the row `bad_row` fails.
class CountingDataset : public Dataset {
 public:
  explicit CountingDataset(int64_t rows, int64_t bad_row = -1) : rows_(rows), bad_row_(bad_row) { info_.tasks = {{"click", -1}, {"pay", 0}}; }
  int64_t rows() const override { return rows_; }
  const DatasetInfo& info() const override { return info_; }
  void gather(const int64_t* row_numbers, int64_t count, Batch& batch) const override {
    batch.rows = count;
    batch.labels.assign(count * info_.tasks.size(), 1);
    batch.observed.assign(count * info_.tasks.size(), 1);
    batch.ids.assign(row_numbers, row_numbers + count);
    if (std::count(batch.ids.begin(), batch.ids.end(), bad_row_)) fail(ErrorKind::Io, "row", "cannot be read.");
  }

 private:
  int64_t rows_, bad_row_;
  DatasetInfo info_;
};

using Batches = std::vector<std::vector<int32_t>>;

Batches epoch(Loader& loader, int64_t number, int64_t first_batch = 0) {
  loader.start_epoch(number, first_batch);
  Batches batches;
  while (const Batch* batch = loader.next()) batches.push_back(batch->ids);
  return batches;
}

std::vector<int32_t> joined(const Batches& batches) {
  std::vector<int32_t> all;
  for (const auto& batch : batches) all.insert(all.end(), batch.begin(), batch.end());
  return all;
}

LoaderConfig config(bool shuffle, bool prefetch, uint64_t seed = 1, int64_t batch_rows = 10, bool drop_last = false) {
  return {batch_rows, shuffle, seed, prefetch, drop_last};
}

TEST(Loader, InOrderWithoutShuffling) {
  CountingDataset dataset(23);
  for (bool prefetch : {false, true}) {
    Loader loader(dataset, config(false, prefetch));
    EXPECT_EQ(loader.batches_per_epoch(), 3);
    const Batches batches = epoch(loader, 0);
    ASSERT_EQ(batches.size(), 3u);
    EXPECT_EQ(batches[2], (std::vector<int32_t>{20, 21, 22}));
    std::vector<int32_t> expected(23);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(joined(batches), expected);
    EXPECT_EQ(loader.next(), nullptr);
  }
}

TEST(Loader, DropLastLeavesOutTheShortBatch) {
  CountingDataset dataset(23);
  Loader loader(dataset, config(false, true, 1, 10, true));
  EXPECT_EQ(loader.batches_per_epoch(), 2);
  EXPECT_EQ(epoch(loader, 0).size(), 2u);
  CountingDataset small(3);
  Loader none(small, config(true, true, 1, 10, true));
  EXPECT_TRUE(epoch(none, 0).empty());
}

TEST(Loader, EveryEpochIsAnotherPermutationOfTheSeed) {
  CountingDataset dataset(1000);
  Loader loader(dataset, config(true, true, 7)), same(dataset, config(true, true, 7)), other(dataset, config(true, true, 8));
  std::set<std::vector<int32_t>> orders;
  for (int64_t e = 0; e < 3; ++e) {
    std::vector<int32_t> order = joined(epoch(loader, e));
    EXPECT_EQ(order, joined(epoch(same, e)));
    EXPECT_NE(order, joined(epoch(other, e)));
    orders.insert(order);
    std::sort(order.begin(), order.end());
    for (int32_t i = 0; i < 1000; ++i) ASSERT_EQ(order[i], i);
  }
  EXPECT_EQ(orders.size(), 3u);
  EXPECT_EQ(joined(epoch(loader, 1)), joined(epoch(same, 1)));  // an earlier epoch again
}

TEST(Loader, LabelSharesTakeTheSameLabelsInEveryOrder) {
  CountingDataset dataset(20000);
  auto kept = [&](bool shuffle, uint64_t seed) {
    LoaderConfig thinned = config(shuffle, true, seed, 128);
    thinned.label_shares = {1, 0.1};
    Loader loader(dataset, thinned);
    std::set<int32_t> rows;
    for (int64_t number = 0; number < 2; ++number) {  // the second epoch sees no others
      loader.start_epoch(number);
      while (const Batch* batch = loader.next())
        for (int64_t b = 0; b < batch->rows; ++b) {
          EXPECT_EQ(batch->observed[2 * b], 1);
          EXPECT_EQ(batch->labels[2 * b + 1], batch->observed[2 * b + 1]);
          if (batch->observed[2 * b + 1]) rows.insert(batch->ids[b]);
        }
    }
    return rows;
  };
  const auto shuffled = kept(true, 7);
  EXPECT_EQ(shuffled, kept(false, 7));
  EXPECT_NE(shuffled, kept(true, 8));
  EXPECT_NEAR(static_cast<double>(shuffled.size()), 2000, 4 * 42.4);  // four standard deviations
}

TEST(Loader, PrefetchChangesNothing) {
  CountingDataset dataset(257);
  for (bool shuffle : {false, true}) {
    Loader with(dataset, config(shuffle, true)), without(dataset, config(shuffle, false));
    for (int64_t e = 0; e < 4; ++e) EXPECT_EQ(epoch(with, e), epoch(without, e));
  }
}

TEST(Loader, ResumesInsideAnEpoch) {
  CountingDataset dataset(101);
  for (bool prefetch : {false, true}) {
    Loader loader(dataset, config(true, prefetch));
    const Batches whole = epoch(loader, 3);
    loader.start_epoch(5);
    loader.next();  // left in the middle of another epoch, with a batch under way
    EXPECT_EQ(epoch(loader, 3, 4), Batches(whole.begin() + 4, whole.end()));
    EXPECT_TRUE(epoch(loader, 3, static_cast<int64_t>(whole.size())).empty());
  }
}

TEST(Loader, ABatchStaysValidUntilTheNextCall) {
  CountingDataset dataset(1000);
  Loader loader(dataset, config(false, true, 1, 1));
  loader.start_epoch(0);
  for (int32_t i = 0; i < 1000; ++i) ASSERT_EQ(loader.next()->ids, std::vector<int32_t>{i});
}

TEST(Loader, ErrorsOfTheThreadReachTheCaller) {
  CountingDataset dataset(30, 15);
  for (bool prefetch : {false, true}) {
    Loader loader(dataset, config(false, prefetch));
    loader.start_epoch(0);
    ASSERT_NE(loader.next(), nullptr);
    testing::expect_error(ErrorKind::Io, {"cannot be read"}, [&] { loader.next(); });
    loader.start_epoch(0, 2);  // usable again
    EXPECT_EQ(loader.next()->ids.front(), 20);
  }
}

TEST(Loader, RefusesEmptyBatches) {
  CountingDataset dataset(3);
  testing::expect_error(ErrorKind::Config, {"batch_rows"}, [&] { Loader(dataset, config(false, false, 1, 0)); });
}

}  // namespace
}  // namespace ektm
