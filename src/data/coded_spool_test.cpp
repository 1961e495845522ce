#include "data/coded_spool.h"

#include "base/random.h"
#include "data/prepare_testing.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;
using testing::Folder;

// Codes up to `highest`, which decides how many bytes they take.
CodedChunk random_chunk(int64_t rows, uint64_t highest, Rng& rng) {
  CodedChunk chunk;
  chunk.begin(rows, 3);
  chunk.features[1].offsets = {0};
  for (int64_t row = 0; row < rows; ++row) {
    chunk.features[0].codes.push_back(static_cast<int32_t>(row == 0 ? highest : rng.below(highest + 1)));
    for (uint64_t i = 0, count = 1 + rng.below(4); i < count; ++i)
      chunk.features[1].codes.push_back(static_cast<int32_t>(rng.below(highest + 1)));
    chunk.features[1].offsets.push_back(static_cast<int32_t>(chunk.features[1].codes.size()));
    chunk.features[2].numbers.push_back(rng.normal());
    chunk.labels.push_back(static_cast<uint8_t>(rng.below(8)));
    chunk.groups.push_back(rng.next());
    chunk.scenarios.push_back(static_cast<int32_t>(rng.below(3)) - 1);
  }
  return chunk;
}

TEST(CodedSpool, GivesBackEveryChunkInOrder) {
  Folder folder;
  Rng rng(3);
  CodedSpool spool(folder / "spool");
  std::vector<CodedChunk> chunks;
  for (uint64_t highest : {0, 253, 254, 255, 65533, 65534, 65535, 2'000'000'000})
    for (int64_t rows : {1, 100}) chunks.push_back(random_chunk(rows, highest, rng));
  for (const auto& chunk : chunks) spool.write(chunk);
  CodedChunk read;
  for (const auto& chunk : chunks) {
    ASSERT_TRUE(spool.read(read));
    EXPECT_EQ(read.rows, chunk.rows);
    ASSERT_EQ(read.features.size(), chunk.features.size());
    for (size_t f = 0; f < chunk.features.size(); ++f) {
      EXPECT_EQ(read.features[f].codes, chunk.features[f].codes);
      EXPECT_EQ(read.features[f].offsets, chunk.features[f].offsets);
      EXPECT_EQ(read.features[f].numbers, chunk.features[f].numbers);
    }
    EXPECT_EQ(read.labels, chunk.labels);
    EXPECT_EQ(read.weights, chunk.weights);
    EXPECT_EQ(read.groups, chunk.groups);
    EXPECT_EQ(read.scenarios, chunk.scenarios);
  }
  EXPECT_FALSE(spool.read(read));
  EXPECT_EQ(spool.bytes_read(), spool.bytes());
}

TEST(CodedSpool, HasNoNameSoThatNothingIsLeftBehind) {
  Folder folder;
  CodedSpool spool(folder / "spool");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace ektm
