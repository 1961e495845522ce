#pragma once
// What tests of prepared data share: a folder of its own, small raw files, whole splits.
#include <arrow/io/file.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>
#include <stdlib.h>

#include <filesystem>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "data/dataset.h"
#include "data/prepare.h"

namespace ektm::testing {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "ektm-test-XXXXXX").string();
    path_ = mkdtemp(name.data());
    set_quiet(true);
  }
  ~Folder() { fs::remove_all(path_); }
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }
  std::string write(const std::string& name, const std::string& content) const {
    write_file_atomic(path_ / name, content);
    return (path_ / name).string();
  }
  std::string write_parquet(const std::string& name, const std::shared_ptr<arrow::Table>& table,
                            int64_t group_rows = parquet::DEFAULT_MAX_ROW_GROUP_LENGTH) const {
    auto sink = arrow::io::FileOutputStream::Open((path_ / name).string()).ValueOrDie();
    EXPECT_TRUE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), sink, group_rows).ok());
    EXPECT_TRUE(sink->Close().ok());
    return (path_ / name).string();
  }

 private:
  fs::path path_;
};

// Prepares CSV texts in `folder` into folder/out; "" = no such split.
inline PrepareSummary prepare_csv(const Folder& folder, const std::string& schema, const std::string& train,
                                  const std::string& valid = "", const std::string& test = "", const std::string& out = "out") {
  PrepareConfig config;
  config.schema = folder.write("schema.yaml", schema);
  config.train.files = {folder.write("train.csv", train)};
  if (!valid.empty()) config.valid.files = {folder.write("valid.csv", valid)};
  if (!test.empty()) config.test.files = {folder.write("test.csv", test)};
  config.output = folder / out;
  return prepare(config);
}

inline Batch whole_split(const fs::path& dir, const std::string& split) {
  auto dataset = open_dataset(dir, split);
  std::vector<int64_t> rows(dataset->rows());
  std::iota(rows.begin(), rows.end(), 0);
  Batch batch;
  dataset->gather(rows.data(), static_cast<int64_t>(rows.size()), batch);
  return batch;
}

inline void expect_equal(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.numbers, b.numbers);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.observed, b.observed);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.groups, b.groups);
  EXPECT_EQ(a.scenarios, b.scenarios);
  ASSERT_EQ(a.bags.size(), b.bags.size());
  for (size_t k = 0; k < a.bags.size(); ++k) {
    EXPECT_EQ(a.bags[k].offsets, b.bags[k].offsets);
    EXPECT_EQ(a.bags[k].values, b.bags[k].values);
  }
}

// Every file below `dir` by its relative path.
inline std::map<std::string, std::string> contents(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(dir))
    if (entry.is_regular_file()) files[fs::relative(entry.path(), dir).string()] = read_file(entry.path());
  return files;
}

// The Error of `work`, which must throw one of that kind whose text holds every one of `parts`.
template <class Work>
void expect_error(ErrorKind kind, const std::vector<std::string>& parts, const Work& work) {
  try {
    work();
    ADD_FAILURE() << "no error; expected one with: " << parts.front();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    for (const auto& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << "'" << part << "' is not in: " << error.what();
  }
}

}  // namespace ektm::testing
