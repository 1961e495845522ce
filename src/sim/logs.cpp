#include "sim/logs.h"

#include <future>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "config/yaml.h"
#include "sim/histogram_auc.h"
#include "sim/log_table.h"
#include "sim/platform.h"

namespace ektm {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kChunkRows = 65'536;

// Counts of one split, and its attainable AUC: of the true probabilities against the labels that the log shows.
class SplitStatistics {
 public:
  explicit SplitStatistics(const std::vector<SimulatedTask>& tasks)
      : tasks_(tasks), counts_(tasks.size()), cvr_(tasks.size()), all_(tasks.size()) {}

  // labels: as logged, kNotReported included.
  void add(const Probabilities& probabilities, const std::array<uint8_t, kMaxTasks>& labels) {
    std::array<float, kMaxTasks> joint{};
    for (size_t t = 0; t < tasks_.size(); ++t) {
      int parent = tasks_[t].parent;
      joint[t] = probabilities[t] * (parent < 0 ? 1 : joint[parent]);
      if (labels[t] == LogBatchBuilder::kNotReported) {
        ++counts_[t].not_reported;
        continue;
      }
      all_[t].add(joint[t], labels[t]);
      counts_[t].positives += labels[t];
      if (parent >= 0 && labels[parent] != 1) continue;
      ++counts_[t].observed;
      counts_[t].observed_positives += labels[t];
      if (parent >= 0) cvr_[t].add(probabilities[t], labels[t]);
    }
    ++rows_;
  }

  nlohmann::ordered_json to_json() const {
    nlohmann::ordered_json json = {{"rows", rows_}, {"tasks", nlohmann::ordered_json::object()}};
    for (size_t t = 0; t < tasks_.size(); ++t) {
      auto number = [](std::optional<double> value) {
        return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
      };
      const Counts& c = counts_[t];
      nlohmann::ordered_json task = {
          {"positives", c.positives}, {"not_reported_rows", c.not_reported}, {"observed_rows", c.observed}};
      task["rate_where_observed"] = number(c.observed ? std::optional(double(c.observed_positives) / c.observed) : std::nullopt);
      if (tasks_[t].parent < 0) {
        task["attainable_auc"] = {{"ctr", number(all_[t].auc())}};
      } else {
        task["attainable_auc"] = {{"cvr", number(cvr_[t].auc())}, {"ctcvr", number(all_[t].auc())}};
      }
      json["tasks"][tasks_[t].name] = task;
    }
    return json;
  }

 private:
  struct Counts {
    int64_t positives = 0, not_reported = 0, observed = 0, observed_positives = 0;
  };
  const std::vector<SimulatedTask>& tasks_;
  int64_t rows_ = 0;
  std::vector<Counts> counts_;
  std::vector<HistogramAuc> cvr_, all_;
};

struct Split {
  const char* name;
  int64_t first_row, end_row;
};

struct SplitBatches {
  std::shared_ptr<arrow::RecordBatch> log, truth;
};

// Rows are made on this thread while the chunk before them is written on another one: the order of bytes is that of the rows.
nlohmann::ordered_json write_split(const Platform& platform, const Split& split, const fs::path& folder,
                                   ClickHistories& histories, Progress& progress) {
  const bool csv = platform.config().format == "csv";
  const auto& tasks = platform.tasks();
  LogBatchBuilder log(platform, csv);
  TruthBatchBuilder truth(platform);
  TableWriter log_file(folder / (std::string(split.name) + (csv ? ".csv" : ".parquet")), log.schema(), csv);
  TableWriter truth_file(folder / "truth" / (std::string(split.name) + ".parquet"), truth.schema(), false);
  SplitStatistics statistics(tasks);
  std::future<void> writing;  // its destructor waits, so the files outlive it
  for (int64_t row = split.first_row; row < split.end_row;) {
    for (int64_t end = std::min(row + kChunkRows, split.end_row); row < end; ++row) {
      Impression impression = platform.impression(row);
      Probabilities probabilities = platform.probabilities(impression);
      std::array<uint8_t, kMaxTasks> labels = platform.labels(impression, probabilities);
      const SimulatedItem& item = platform.item(impression.item);
      bool clicked = labels[0];
      for (size_t t = 0; t < tasks.size(); ++t)
        if (!platform.reported(item.advertiser, t)) labels[t] = LogBatchBuilder::kNotReported;
      log.add(impression, histories, labels);
      truth.add(impression, probabilities);
      statistics.add(probabilities, labels);
      if (clicked) histories.add(impression.user, item.category);  // after the row: a row shows only its past
    }
    if (writing.valid()) writing.get();
    writing = std::async(std::launch::async, [&, batches = SplitBatches{log.finish(), truth.finish()}] {
      log_file.write(batches.log);
      truth_file.write(batches.truth);
    });
    stop_if_interrupted();
    progress.update(row);
  }
  if (writing.valid()) writing.get();
  log_file.close();
  truth_file.close();
  return statistics.to_json();
}

void refuse_existing(const fs::path& output, bool overwrite) {
  std::error_code code;
  if (!fs::exists(output, code) || (fs::is_directory(output, code) && fs::is_empty(output, code))) return;
  if (!overwrite) fail(ErrorKind::Io, output.string(), "exists already. Choose another folder, or replace it with --overwrite.");
  if (!fs::exists(output / "truth", code) || !fs::exists(output / "summary.json", code))
    fail(ErrorKind::Io, output.string(),
         "exists and holds no simulated logs, so --overwrite does not replace it. Choose another folder.");
}

}  // namespace

nlohmann::ordered_json write_logs(const SimulationConfig& config, const fs::path& output, bool overwrite) {
  config.check();
  refuse_existing(output, overwrite);
  StagedDirectory folder(output);
  make_directories(folder.path() / "truth");
  Platform platform(config);

  const int64_t valid = platform.first_row(config.days - config.test_days - config.valid_days);
  const int64_t test = platform.first_row(config.days - config.test_days);
  nlohmann::ordered_json summary = {{"format_version", 1}, {"config", nlohmann::ordered_json::object()}};
  for (const auto& field : describe(config)) {  // numbers as numbers, all else as text
    const std::string& value = field.default_value;
    summary["config"][field.key] =
        nlohmann::ordered_json::accept(value) ? nlohmann::ordered_json::parse(value) : nlohmann::ordered_json(value);
  }
  for (const auto& task : platform.tasks())
    summary["tasks"].push_back({{"name", task.name},
                                {"after", task.parent < 0 ? "" : platform.tasks()[task.parent].name},
                                {"rate", task.rate},
                                {"relatedness", task.relatedness}});
  ClickHistories histories(config.users, config.history_length);
  Progress progress("simulate", config.rows, "rows");
  for (const Split& split : {Split{"train", 0, valid}, Split{"valid", valid, test}, Split{"test", test, config.rows}})
    summary["splits"][split.name] = write_split(platform, split, folder.path(), histories, progress);
  progress.finish();
  write_file_atomic(folder.path() / "schema.yaml", logs_schema(config));
  write_file_atomic(folder.path() / "summary.json", summary.dump(2) + "\n");
  folder.commit();
  return summary;
}

std::string logs_schema(const SimulationConfig& config) {
  std::string text = fmt::format(
      "# Logs of the simulated platform, {} pattern (ektm simulate logs).\n"
      "# Not features: impression_id, ts, bid.\n"
      "features:\n"
      "  - {{name: user_id, min_count: 5}}\n"
      "  - {{name: age_group}}\n"
      "  - {{name: gender}}\n"
      "  - {{name: city_tier}}\n"
      "  - {{name: device}}\n"
      "  - {{name: interest, table: category}}\n"
      "  - {{name: user_activity, kind: number, normalize: log_standard}}\n"
      "  - {{name: item_id, min_count: 5}}\n"
      "  - {{name: category}}\n"
      "  - {{name: brand, min_count: 5}}\n"
      "  - {{name: advertiser_id, min_count: 5}}\n"
      "  - {{name: creative_type}}\n"
      "  - {{name: price, kind: number, bins: 20}}\n"
      "  - {{name: tags, kind: ids, separator: \"|\"}}\n"
      "  - {{name: clicked_categories, kind: sequence, table: category, separator: \"|\", max_length: {}}}\n"
      "  - {{name: scenario}}\n"
      "  - {{name: hour}}\n"
      "  - {{name: position}}\n"
      "tasks:\n",
      config.pattern, config.history_length);
  std::vector<SimulatedTask> tasks = config.tasks();
  for (const auto& task : tasks)
    text += task.parent < 0 ? fmt::format("  - {{name: {0}, label: {0}}}\n", task.name)
                            : fmt::format("  - {{name: {0}, label: {0}, after: {1}}}\n", task.name, tasks[task.parent].name);
  return text + "group: user_id\nscenario: scenario\n";
}

}  // namespace ektm
