#include "data/dataset.h"

#include <algorithm>

#include "base/random.h"
#include "data/dataset_writer.h"
#include "data/prepare_testing.h"

namespace ektm {
namespace {

using testing::contents;
using testing::expect_equal;
using testing::expect_error;
using testing::Folder;
using testing::whole_split;
namespace fs = std::filesystem;

DatasetInfo every_column() {
  DatasetInfo info;
  info.tables = {{"t", 100}};
  info.fields = {{"a", 0, false}, {"b", 0, false}, {"c", 0, false}};
  info.bags = {{"l", 0, false}, {"ids", 0, true}};
  info.numbers = {"n"};
  info.tasks = {{"click", -1}, {"pay", 0}};
  info.scenarios = {"feed"};
  info.has_group = info.has_weight = true;
  info.schema_hash = "x";
  return info;
}

Batch random_rows(const DatasetInfo& info, int64_t rows, uint64_t seed) {
  Rng rng(seed);
  Batch batch;
  batch.rows = rows;
  batch.bags.resize(info.bags.size());
  for (auto& bag : batch.bags) bag.offsets = {0};
  for (int64_t r = 0; r < rows; ++r) {
    for (size_t f = 0; f < info.fields.size(); ++f) batch.ids.push_back(static_cast<int32_t>(rng.below(100)));
    for (size_t n = 0; n < info.numbers.size(); ++n) batch.numbers.push_back(static_cast<float>(rng.normal()));
    for (size_t t = 0; t < info.tasks.size(); ++t) {
      batch.labels.push_back(rng.below(2));
      batch.observed.push_back(rng.below(2));
    }
    if (info.has_weight) batch.weights.push_back(static_cast<float>(rng.uniform()));
    if (info.has_group) batch.groups.push_back(rng.next());
    if (!info.scenarios.empty()) batch.scenarios.push_back(static_cast<int32_t>(rng.below(2)) - 1);
    for (auto& bag : batch.bags) {
      for (uint64_t i = 1 + rng.below(3); i > 0; --i) bag.values.push_back(static_cast<int32_t>(rng.below(100)));
      bag.offsets.push_back(static_cast<int32_t>(bag.values.size()));
    }
  }
  return batch;
}

void write(const fs::path& dir, const DatasetInfo& info, const std::vector<Batch>& batches,
           int64_t part_bytes = DatasetWriter::kPartBytes) {
  DatasetWriter writer(dir / "train", info, part_bytes);
  for (const auto& batch : batches) writer.append(batch);
  writer.finish();
  write_manifest(dir, info, {{"train", writer.rows()}});
}

TEST(Dataset, RoundTripOverSeveralBatchesAndParts) {
  Folder folder;
  const DatasetInfo info = every_column();
  const Batch rows = random_rows(info, 200000, 1);
  write(folder / "d", info, {rows}, 1 << 20);
  EXPECT_TRUE(fs::exists(folder / "d/train/part-00001.arrow"));
  expect_equal(whole_split(folder / "d", "train"), rows);
  const DatasetInfo read = read_dataset_info(folder / "d");
  EXPECT_EQ(read.bags[1].name, "ids");
  EXPECT_TRUE(read.bags[1].sum_pooling);
  EXPECT_EQ(read.tasks[1].parent, 0);
  EXPECT_EQ(read.scenarios, info.scenarios);
}

TEST(Dataset, TheCutIntoAppendedBatchesDoesNotMatter) {
  Folder folder;
  const DatasetInfo info = every_column();
  const Batch rows = random_rows(info, 70000, 2);
  write(folder / "a", info, {rows});
  auto whole = open_dataset(folder / "a", "train");
  std::vector<Batch> pieces;
  std::vector<int64_t> numbers(70000);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (int64_t start = 0, step = 1; start < 70000; start += step, step = 3 * step + 1)
    whole->gather(&numbers[start], std::min(step, 70000 - start), pieces.emplace_back());
  write(folder / "b", info, pieces);
  EXPECT_EQ(contents(folder / "a"), contents(folder / "b"));
}

TEST(Dataset, GathersAnyRowsInAnyOrder) {
  Folder folder;
  const DatasetInfo info = every_column();
  const Batch rows = random_rows(info, 150000, 3);
  write(folder / "d", info, {rows}, 1);  // a part each record batch
  auto dataset = open_dataset(folder / "d", "train");
  Rng rng(1);
  Batch batch;
  for (int round = 0; round < 5; ++round) {
    std::vector<int64_t> numbers;
    for (uint64_t i = rng.below(500); i > 0; --i) numbers.push_back(static_cast<int64_t>(rng.below(150000)));
    dataset->gather(numbers.data(), static_cast<int64_t>(numbers.size()), batch);
    ASSERT_EQ(batch.rows, static_cast<int64_t>(numbers.size()));
    ASSERT_EQ(batch.ids.size(), 3 * numbers.size());
    for (size_t i = 0; i < numbers.size(); ++i) {
      const int64_t r = numbers[i];
      for (int f = 0; f < 3; ++f) ASSERT_EQ(batch.ids[3 * i + f], rows.ids[3 * r + f]);
      ASSERT_EQ(batch.numbers[i], rows.numbers[r]);
      ASSERT_EQ(batch.labels[2 * i + 1], rows.labels[2 * r + 1]);
      ASSERT_EQ(batch.observed[2 * i], rows.observed[2 * r]);
      ASSERT_EQ(batch.weights[i], rows.weights[r]);
      ASSERT_EQ(batch.groups[i], rows.groups[r]);
      ASSERT_EQ(batch.scenarios[i], rows.scenarios[r]);
      for (int k = 0; k < 2; ++k) {
        const Bag &got = batch.bags[k], &expected = rows.bags[k];
        ASSERT_TRUE(std::equal(got.values.begin() + got.offsets[i], got.values.begin() + got.offsets[i + 1],
                               expected.values.begin() + expected.offsets[r], expected.values.begin() + expected.offsets[r + 1]));
      }
    }
  }
}

TEST(Dataset, ColumnsThatAreNotThere) {
  Folder folder;
  DatasetInfo info;
  info.tables = {{"t", 100}};
  info.bags = {{"l", 0, false}};
  info.tasks = {{"click", -1}};
  const Batch rows = random_rows(info, 10, 4);
  write(folder / "d", info, {rows});
  const Batch read = whole_split(folder / "d", "train");
  expect_equal(read, rows);
  EXPECT_TRUE(read.ids.empty() && read.numbers.empty() && read.weights.empty() && read.groups.empty() && read.scenarios.empty());
}

TEST(Dataset, AbsentFoldersAndSplits) {
  Folder folder;
  expect_error(ErrorKind::Io, {"manifest.json", "ektm prepare"}, [&] { open_dataset(folder / "nowhere", "train"); });
  write(folder / "d", every_column(), {random_rows(every_column(), 5, 1)});
  expect_error(ErrorKind::Io, {"no split 'test'", "train", "--test"}, [&] { open_dataset(folder / "d", "test"); });
}

TEST(Dataset, DamageIsFound) {
  Folder folder;
  write(folder / "d", every_column(), {random_rows(every_column(), 1000, 1)});
  const fs::path part = folder / "d/train/part-00000.arrow", manifest = folder / "d/manifest.json";
  const std::string good_part = read_file(part), good_manifest = read_file(manifest);
  auto expect_damage = [&](const std::vector<std::string>& parts, bool verify = true) {
    expect_error(ErrorKind::Data, parts, [&] { open_dataset(folder / "d", "train", verify); });
    write_file_atomic(part, good_part);
    write_file_atomic(manifest, good_manifest);
    EXPECT_NO_THROW(open_dataset(folder / "d", "train"));
  };
  auto flipped = [](std::string text, size_t at) {
    text[at] ^= 1;
    return text;
  };
  for (size_t at : {size_t{0}, good_part.size() / 2, good_part.size() - 1}) {
    write_file_atomic(part, flipped(good_part, at));
    expect_damage({"part-00000.arrow", "damaged: checksum", "ektm prepare"});
  }
  for (bool verify : {false, true}) {
    write_file_atomic(part, good_part.substr(0, good_part.size() - 100));
    expect_damage({"part-00000.arrow", "damaged", "bytes"}, verify);
    fs::remove(part);
    expect_damage({"part-00000.arrow", "damaged", "missing"}, verify);
    write_file_atomic(part, std::string(good_part.size(), 'x'));
    expect_damage({"part-00000.arrow", "damaged"}, verify);
  }
  std::string later = good_manifest;
  later.replace(later.find("\"format_version\": 1"), 19, "\"format_version\": 2");
  write_file_atomic(manifest, later);
  expect_damage({"manifest.json", "format version 2", "version 1"});
  std::string counted = good_manifest;
  counted.replace(counted.find("\"rows\": 1000"), 12, "\"rows\": 1001");
  write_file_atomic(manifest, counted);
  expect_damage({"manifest.json", "damaged"});
  write_file_atomic(manifest, good_manifest.substr(0, 50));
  expect_damage({"manifest.json", "damaged"});
}

}  // namespace
}  // namespace ektm
