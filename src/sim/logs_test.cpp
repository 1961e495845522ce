#include "sim/logs.h"

#include <arrow/api.h>
#include <arrow/csv/api.h>
#include <arrow/io/file.h>
#include <gtest/gtest.h>
#include <parquet/arrow/reader.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "data/schema.h"
#include "sim/platform.h"

namespace ektm {
namespace {
namespace fs = std::filesystem;

class Logs : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() /
              fmt::format("ektm_logs_test_{}_{}", getpid(), testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    make_directories(folder_);
    set_quiet(true);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
};

SimulationConfig small_config() {
  SimulationConfig config;
  config.rows = 12'000;
  config.users = 300;
  config.items = 200;
  config.days = 6;
  config.ctr = 0.3;
  return config;
}

constexpr const char* kSplits[] = {"train", "valid", "test"};

std::shared_ptr<arrow::Table> read_parquet(const fs::path& path) {
  auto file = arrow::io::ReadableFile::Open(path.string()).ValueOrDie();
  auto reader = parquet::arrow::OpenFile(file, arrow::default_memory_pool()).ValueOrDie();
  return reader->ReadTable().ValueOrDie()->CombineChunks().ValueOrDie();
}

std::shared_ptr<arrow::Table> read_csv(const fs::path& path) {
  auto file = arrow::io::ReadableFile::Open(path.string()).ValueOrDie();
  auto convert = arrow::csv::ConvertOptions::Defaults();
  convert.strings_can_be_null = false;
  for (const char* column : {"hour", "position"}) convert.column_types[column] = arrow::int32();
  for (const char* column : {"user_activity", "price", "bid"}) convert.column_types[column] = arrow::float32();
  for (const char* column : {"click", "register", "download", "pay", "share"}) convert.column_types[column] = arrow::int8();
  for (const char* column : {"tags", "clicked_categories", "gender", "city_tier", "brand"})
    convert.column_types[column] = arrow::utf8();
  auto reader = arrow::csv::TableReader::Make(arrow::io::default_io_context(), file, arrow::csv::ReadOptions::Defaults(),
                                              arrow::csv::ParseOptions::Defaults(), convert)
                    .ValueOrDie();
  return reader->Read().ValueOrDie()->CombineChunks().ValueOrDie();
}

template <class Array>
const Array& column(const std::shared_ptr<arrow::Table>& table, const std::string& name) {
  return dynamic_cast<const Array&>(*table->GetColumnByName(name)->chunk(0));
}

// Elements joined by "|", as the CSV form writes them.
std::string list_text(const arrow::ListArray& lists, int64_t row) {
  const auto& values = dynamic_cast<const arrow::StringArray&>(*lists.values());
  std::string text;
  for (int64_t i = lists.value_offset(row); i < lists.value_offset(row + 1); ++i)
    text += (text.empty() ? "" : "|") + values.GetString(i);
  return text;
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder)] = read_file(entry.path());
  return files;
}

TEST_F(Logs, SameSeedSameBytesOtherSeedOtherBytes) {
  SimulationConfig config = small_config();
  write_logs(config, folder_ / "a");
  write_logs(config, folder_ / "b");
  auto a = contents(folder_ / "a");
  EXPECT_EQ(a.size(), 8u);
  EXPECT_EQ(a, contents(folder_ / "b"));
  config.seed = 2;
  write_logs(config, folder_ / "c");
  auto c = contents(folder_ / "c");
  for (const char* split : kSplits)
    for (std::string file : {fmt::format("{}.parquet", split), fmt::format("truth/{}.parquet", split)})
      EXPECT_NE(a.at(file), c.at(file)) << file;
}

TEST_F(Logs, SplitsAreDaysInOrder) {
  SimulationConfig config = small_config();
  write_logs(config, folder_ / "out");
  int64_t last = 0, rows = 0, begins[3];
  for (int s = 0; s < 3; ++s) {
    auto table = read_parquet(folder_ / "out" / fmt::format("{}.parquet", kSplits[s]));
    const auto& ts = column<arrow::Int64Array>(table, "ts");
    begins[s] = ts.Value(0) / 86'400;
    if (s > 0) EXPECT_GT(begins[s], last / 86'400);
    last = ts.Value(ts.length() - 1);
    rows += ts.length();
  }
  EXPECT_EQ(rows, config.rows);
  EXPECT_EQ(begins[1] - begins[0], 3);
  EXPECT_EQ(begins[2] - begins[1], 1);
  EXPECT_EQ(last / 86'400 - begins[2], 1);
}

TEST_F(Logs, CsvHoldsWhatParquetHolds) {
  SimulationConfig config = small_config();
  config.unreported = 0.3;
  config.missing = 0.2;
  write_logs(config, folder_ / "parquet");
  config.format = "csv";
  write_logs(config, folder_ / "csv");
  for (const char* split : kSplits) {
    auto parquet = read_parquet(folder_ / "parquet" / fmt::format("{}.parquet", split));
    auto csv = read_csv(folder_ / "csv" / fmt::format("{}.csv", split));
    ASSERT_EQ(parquet->ColumnNames(), csv->ColumnNames());
    ASSERT_EQ(parquet->num_rows(), csv->num_rows());
    for (const std::string& name : parquet->ColumnNames()) {
      auto expected = parquet->GetColumnByName(name)->chunk(0);
      auto found = csv->GetColumnByName(name)->chunk(0);
      for (int64_t row = 0; row < parquet->num_rows(); ++row) {
        if (expected->type_id() == arrow::Type::LIST) {
          ASSERT_EQ(list_text(dynamic_cast<const arrow::ListArray&>(*expected), row),
                    column<arrow::StringArray>(csv, name).GetString(row));
        } else if (expected->type_id() == arrow::Type::STRING && expected->IsNull(row)) {
          ASSERT_EQ(column<arrow::StringArray>(csv, name).GetString(row), "") << name;  // CSV has no other null
        } else {
          ASSERT_TRUE(expected->RangeEquals(*found, row, row + 1, row))
              << name << " row " << row << ": " << expected->type()->ToString() << " and " << found->type()->ToString();
        }
      }
    }
    EXPECT_EQ(read_file(folder_ / "parquet/truth" / fmt::format("{}.parquet", split)),
              read_file(folder_ / "csv/truth" / fmt::format("{}.parquet", split)));
  }
}

TEST_F(Logs, TruthStandsApartInTheSameOrder) {
  SimulationConfig config = small_config();
  write_logs(config, folder_ / "out");
  Platform platform(config);
  int64_t row = 0;
  for (const char* split : kSplits) {
    auto log = read_parquet(folder_ / "out" / fmt::format("{}.parquet", split));
    auto truth = read_parquet(folder_ / "out/truth" / fmt::format("{}.parquet", split));
    EXPECT_EQ(truth->ColumnNames(),
              (std::vector<std::string>{"impression_id", "p_click", "p_register", "p_download", "p_pay", "p_share"}));
    for (const std::string& name : log->ColumnNames()) EXPECT_NE(name.substr(0, 2), "p_") << "the log gives the truth away";
    EXPECT_TRUE(log->GetColumnByName("impression_id")->Equals(*truth->GetColumnByName("impression_id")));
    const auto& pay = column<arrow::FloatArray>(truth, "p_pay");
    const auto& user = column<arrow::Int64Array>(log, "user_id");
    for (int64_t i = 0; i < log->num_rows(); ++i, ++row) {
      Impression impression = platform.impression(row);
      ASSERT_EQ(pay.Value(i), platform.probabilities(impression)[3]);
      ASSERT_EQ(user.Value(i), Platform::user_id(impression.user));
    }
  }
}

TEST_F(Logs, SequencesHoldThePastOnly) {
  SimulationConfig config = small_config();
  config.history_length = 4;
  config.unreported = 0.5;  // must not matter: clicks are always known
  write_logs(config, folder_ / "out");
  std::map<int64_t, std::deque<std::string>> clicked;  // by user; carried over the splits
  int64_t full = 0;
  for (const char* split : kSplits) {
    auto log = read_parquet(folder_ / "out" / fmt::format("{}.parquet", split));
    const auto& user = column<arrow::Int64Array>(log, "user_id");
    const auto& click = column<arrow::Int8Array>(log, "click");
    const auto& category = column<arrow::StringArray>(log, "category");
    const auto& sequence = column<arrow::ListArray>(log, "clicked_categories");
    for (int64_t row = 0; row < log->num_rows(); ++row) {
      auto& past = clicked[user.Value(row)];
      ASSERT_EQ(list_text(sequence, row), fmt::format("{}", fmt::join(past, "|"))) << split << " row " << row;
      full += past.size() == 4;
      if (click.Value(row)) past.push_back(category.GetString(row));
      if (past.size() > 4) past.pop_front();
    }
  }
  EXPECT_GT(full, config.rows / 4);
}

TEST_F(Logs, SummaryCountsWhatTheFilesHold) {
  SimulationConfig config = small_config();
  config.pattern = "sequential";
  config.unreported = 0.3;
  auto summary = write_logs(config, folder_ / "out");
  EXPECT_EQ(nlohmann::ordered_json::parse(read_file(folder_ / "out/summary.json")), summary);
  EXPECT_EQ(summary["config"]["rows"], 12000);
  EXPECT_EQ(summary["config"]["pattern"], "sequential");
  EXPECT_EQ(summary["tasks"][2]["after"], "cart");
  for (const char* split : kSplits) {
    auto log = read_parquet(folder_ / "out" / fmt::format("{}.parquet", split));
    auto truth = read_parquet(folder_ / "out/truth" / fmt::format("{}.parquet", split));
    const auto& cart = column<arrow::Int8Array>(log, "cart");
    const auto& pay = column<arrow::Int8Array>(log, "pay");
    const auto& p_pay = column<arrow::FloatArray>(truth, "p_pay");
    int64_t positives = 0, observed = 0, observed_positives = 0, not_reported = 0;
    std::vector<float> predictions[2];
    for (int64_t row = 0; row < log->num_rows(); ++row) {
      if (pay.IsNull(row)) {
        ++not_reported;
        continue;
      }
      positives += pay.Value(row);
      if (cart.IsNull(row) || !cart.Value(row)) continue;
      ++observed;
      observed_positives += pay.Value(row);
      predictions[pay.Value(row)].push_back(p_pay.Value(row));
    }
    const auto& numbers = summary["splits"][split]["tasks"]["pay"];
    EXPECT_EQ(summary["splits"][split]["rows"], log->num_rows());
    EXPECT_EQ(numbers["positives"], positives);
    EXPECT_EQ(numbers["observed_rows"], observed);
    EXPECT_EQ(numbers["not_reported_rows"], not_reported);
    EXPECT_GT(not_reported, 0);
    ASSERT_FALSE(predictions[0].empty() || predictions[1].empty());
    EXPECT_DOUBLE_EQ(numbers["rate_where_observed"].get<double>(), double(observed_positives) / observed);
    double wins = 0;
    for (float a : predictions[1])
      for (float b : predictions[0]) wins += a > b ? 1 : a == b ? 0.5 : 0;
    EXPECT_NEAR(numbers["attainable_auc"]["cvr"].get<double>(), wins / (double(predictions[0].size()) * predictions[1].size()),
                1e-3);
  }
}

TEST_F(Logs, DefaultsAreLearnableButNotEasy) {
  SimulationConfig config;
  config.rows = 200'000;
  auto summary = write_logs(config, folder_ / "out");
  const auto& tasks = summary["splits"]["train"]["tasks"];
  EXPECT_NEAR(tasks["click"]["rate_where_observed"].get<double>(), 0.05, 0.003);
  for (const auto& [name, task] : tasks.items()) {
    double auc = task["attainable_auc"].front();
    EXPECT_GT(auc, 0.70) << name;
    EXPECT_LT(auc, 0.87) << name;
  }
}

TEST_F(Logs, SchemaFilesOfConfigsAreThoseThatLogsBring) {
  for (const char* pattern : {"parallel", "sequential"}) {
    SimulationConfig config;
    config.pattern = pattern;
    fs::path file = fs::path(EKTM_SOURCE_DIR) / "configs/simulated" / fmt::format("schema_{}.yaml", pattern);
    EXPECT_EQ(read_file(file), logs_schema(config)) << file;
  }
}

TEST_F(Logs, SchemaNamesOnlyColumnsOfTheLogs) {
  SimulationConfig config = small_config();
  write_logs(config, folder_ / "out");
  auto names = read_parquet(folder_ / "out/test.parquet")->ColumnNames();
  Schema schema = load_schema(folder_ / "out/schema.yaml");
  for (const auto& feature : schema.features)
    EXPECT_EQ(std::count(names.begin(), names.end(), feature.column), 1) << feature.column;
  for (const auto& task : schema.tasks) EXPECT_EQ(std::count(names.begin(), names.end(), task.label), 1) << task.label;
  EXPECT_EQ(schema.parents(), (std::vector<int>{-1, 0, 0, 0, 0}));
  std::set<FeatureKind> kinds;
  for (const auto& feature : schema.features) kinds.insert(feature.kind);
  EXPECT_EQ(kinds.size(), 4u);  // the simulated logs exercise every kind
}

TEST_F(Logs, NothingIsReplacedUnasked) {
  SimulationConfig config = small_config();
  write_logs(config, folder_ / "out");
  auto before = contents(folder_ / "out");
  config.seed = 9;
  EXPECT_THROW(write_logs(config, folder_ / "out"), Error);
  EXPECT_EQ(contents(folder_ / "out"), before);
  write_logs(config, folder_ / "out", true);
  EXPECT_NE(contents(folder_ / "out"), before);

  // A folder that holds something else stays, even with overwrite.
  make_directories(folder_ / "mine");
  write_file_atomic(folder_ / "mine/thesis.txt", "x");
  try {
    write_logs(config, folder_ / "mine", true);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Io);
    EXPECT_NE(std::string(error.what()).find("holds no simulated logs"), std::string::npos);
  }
  EXPECT_TRUE(fs::exists(folder_ / "mine/thesis.txt"));
}

TEST_F(Logs, UnwritableOutputLeavesNothing) {
  write_file_atomic(folder_ / "file", "x");
  try {
    write_logs(small_config(), folder_ / "file/out");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Io);
    EXPECT_NE(std::string(error.what()).find((folder_ / "file").string()), std::string::npos);
  }
  EXPECT_EQ(contents(folder_).size(), 1u);
}

}  // namespace
}  // namespace ektm
