#include "base/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/did_you_mean.h"
#include "base/error.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  Files() : dir_(fs::path(testing::TempDir()) / ("ektm_files_" + std::to_string(getpid()))) { fs::create_directories(dir_); }
  ~Files() override { fs::remove_all(dir_); }
  size_t entries() const { return static_cast<size_t>(std::distance(fs::directory_iterator(dir_), fs::directory_iterator{})); }
  fs::path dir_;
};

TEST_F(Files, AtomicWriteReplacesAndLeavesNothingElse) {
  write_file_atomic(dir_ / "a", "one");
  write_file_atomic(dir_ / "a", "two");
  EXPECT_EQ(read_file(dir_ / "a"), "two");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, WithoutCommitTheOldFileStays) {
  write_file_atomic(dir_ / "a", "old");
  {
    AtomicFile file(dir_ / "a");
    file.write("new", 3);
  }
  EXPECT_EQ(read_file(dir_ / "a"), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, AFullDiskLeavesTheOldFile) {
  write_file_atomic(dir_ / "a", "old");
  struct rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  struct rlimit limit = before;
  limit.rlim_cur = 1000;
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_THROW(write_file_atomic(dir_ / "a", std::string(5000, 'x')), Error);
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_file(dir_ / "a"), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, ErrorsNameThePathAndARemedy) {
  try {
    read_file(dir_ / "absent");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Io);
    EXPECT_EQ(error.exit_code(), 1);
    EXPECT_NE(std::string(error.what()).find((dir_ / "absent").string()), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("Check the path"), std::string::npos);
  }
  EXPECT_THROW(read_file(dir_), Error);
  write_file_atomic(dir_ / "file", "x");
  EXPECT_THROW(write_file_atomic(dir_ / "file" / "below", "x"), Error);
  EXPECT_THROW(make_directories(dir_ / "file" / "below"), Error);
}

TEST_F(Files, AStagedFolderAppearsWhole) {
  {
    StagedDirectory staged(dir_ / "out");
    write_file_atomic(staged.path() / "a", "1");
    EXPECT_FALSE(fs::exists(dir_ / "out"));
  }
  EXPECT_EQ(entries(), 0u);
  {
    StagedDirectory staged(dir_ / "out/");
    write_file_atomic(staged.path() / "a", "1");
    staged.commit();
  }
  {
    StagedDirectory staged(dir_ / "out");
    write_file_atomic(staged.path() / "b", "2");
    staged.commit();
  }
  EXPECT_FALSE(fs::exists(dir_ / "out" / "a"));
  EXPECT_EQ(read_file(dir_ / "out" / "b"), "2");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, ChecksumOfAFileIsThatOfItsBytes) {
  const std::string bytes(3000000, 'z');
  write_file_atomic(dir_ / "a", bytes);
  EXPECT_EQ(checksum_file(dir_ / "a"), checksum(bytes));
  EXPECT_NE(checksum("a"), checksum("b"));
  EXPECT_EQ(checksum("").size(), 16u);
}

TEST(Error, NearestName) {
  EXPECT_EQ(nearest_name("cilck", {"like", "click", "pay"}), "click");
  EXPECT_EQ(nearest_name("zzzzzz", {"like", "click", "pay"}), "");
  EXPECT_EQ(did_you_mean("cilck", {"like", "click", "pay"}), " Did you mean 'click'?");
  EXPECT_EQ(did_you_mean("zzzzzz", {"like", "click", "pay"}), "");
}

}  // namespace
}  // namespace ektm
