#include "report/tensorboard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/files.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;

class TensorBoardTest : public ::testing::Test {
 protected:
  TensorBoardTest() : folder_(fs::path(::testing::TempDir()) / ("ektm-tensorboard-" + std::to_string(getpid()))) {
    fs::remove_all(folder_);
  }
  ~TensorBoardTest() override { fs::remove_all(folder_); }
  fs::path folder_;
};

uint32_t u32(const std::string& bytes, size_t at) {
  uint32_t value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

uint32_t unmask(uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8u;
  return (rotated >> 17) | (rotated << 15);
}

// The payloads of a TFRecord file; every checksum is verified.
std::vector<std::string> records(const std::string& bytes) {
  std::vector<std::string> result;
  for (size_t at = 0; at < bytes.size();) {
    uint64_t length;
    std::memcpy(&length, bytes.data() + at, sizeof length);
    EXPECT_EQ(unmask(u32(bytes, at + 8)), crc32c(bytes.substr(at, 8)));
    result.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(unmask(u32(bytes, at + 12 + length)), crc32c(result.back()));
    at += 12 + length + 4;
  }
  return result;
}

TEST(Crc32c, KnownVectors) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
}

TEST_F(TensorBoardTest, RecordsAreTheProtobufsByHand) {
  TensorBoardWriter writer(folder_ / "deeper");
  writer.scalar("loss", 300, 0.5, 2.0);
  writer.scalar("loss", 301, -1.0, 3.0);
  writer.flush();
  const auto found = records(read_file(writer.file()));
  ASSERT_EQ(found.size(), 4u);
  // file_version = 3 at the end of the first event.
  EXPECT_EQ(found[0].substr(found[0].size() - 15), std::string("\x1a\x0d", 2) + "brain.Event:2");
  const std::string two("\x09\x00\x00\x00\x00\x00\x00\x00\x40", 9), three("\x09\x00\x00\x00\x00\x00\x00\x08\x40", 9);
  EXPECT_EQ(found[1], two + std::string("\x10\xac\x02"
                                        "\x3a\x02\x08\x01",
                                        7));  // step 300, session_log {status: START}
  EXPECT_EQ(found[2], two + std::string("\x10\xac\x02"
                                        "\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f",
                                        18));
  EXPECT_EQ(found[3], three + std::string("\x10\xad\x02"
                                          "\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x80\xbf",
                                          18));
}

TEST_F(TensorBoardTest, EverySessionHasAFileOfItsOwnInOrder) {
  std::vector<std::string> names;
  for (int i = 0; i < 20; ++i) names.push_back(TensorBoardWriter(folder_).file().filename());
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 20);
  EXPECT_EQ(names[0].rfind("events.out.tfevents.", 0), 0u);
}

TEST_F(TensorBoardTest, AFileInTheWayIsAnError) {
  write_file_atomic(folder_, "not a folder");
  EXPECT_THROW(TensorBoardWriter writer(folder_), Error);
}

}  // namespace
}  // namespace ektm
