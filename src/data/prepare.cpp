#include "data/prepare.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/random.h"
#include "data/dataset_writer.h"
#include "data/leak_check.h"

namespace ektm {
namespace fs = std::filesystem;
using Json = nlohmann::json;
namespace {

class Preparation {
 public:
  explicit Preparation(const PrepareConfig& config) : config_(config) {
    summary_.schema = load_schema(config.schema);
    check_arguments();
    for (const auto& file : config.train.files) {
      const fs::path path(file);
      join_folders_.push_back((fs::is_directory(path) ? path : path.parent_path()).string());
    }
  }

  PrepareSummary run() {
    StagedDirectory staged(config_.output);
    staging_ = staged.path();
    for (const RawInput* input : {&config_.train, &config_.valid, &config_.test})
      if (!input->files.empty()) check_columns(*input);
    fit();
    summary_.info = encoders_->info();
    for (const auto& slot : encoders_->slots)
      summary_.feature_rows.push_back(slot.kind == FeatureSlot::Kind::Number ? 0 : encoders_->tables[slot.table].rows());
    encode("train", config_.train, "train", schema().valid_from == "train" ? "valid" : "");
    if (!config_.valid.files.empty()) encode("valid", config_.valid, "valid", "");
    if (!config_.test.files.empty()) encode("test", config_.test, "test", schema().valid_from == "test" ? "valid" : "");
    sort_splits();
    write_rest();
    staged.commit();
    return std::move(summary_);
  }

 private:
  const Schema& schema() const { return summary_.schema; }

  void check_arguments() const {
    if (config_.train.files.empty()) fail(ErrorKind::Config, "--train", "no file was given; expected at least one.");
    if (!schema().valid_from.empty() && !config_.valid.files.empty())
      fail(ErrorKind::Config, "--valid",
           "the schema takes the validation rows from --{} (split.valid_from), so --valid cannot be given too. Remove one "
           "of them.",
           schema().valid_from);
    if (schema().valid_from == "test" && config_.test.files.empty())
      fail(ErrorKind::Config, "--test",
           "the schema takes the validation rows from --test (split.valid_from), but no test file was given. Give one.");
    const std::pair<const char*, const RawInput*> inputs[] = {
        {"--train", &config_.train}, {"--valid", &config_.valid}, {"--test", &config_.test}};
    std::vector<std::pair<const char*, fs::path>> seen;
    for (auto [option, input] : inputs)
      for (const auto& file : input->files) {
        std::error_code code;
        for (const auto& [other, path] : seen)
          if (fs::equivalent(file, path, code))
            fail(ErrorKind::Config, option,
                 "the file {} is also given to {}; each file once, so that no split sees the rows of another.", file, other);
        seen.emplace_back(option, file);
      }
    const fs::path& output = config_.output;
    if (output.empty()) fail(ErrorKind::Config, "--output", "no folder was given.");
    std::error_code code;
    if (!fs::exists(output, code) || (fs::is_directory(output, code) && fs::is_empty(output, code))) return;
    if (!fs::is_directory(output, code))
      fail(ErrorKind::Config, "--output " + output.string(),
           "a file of this name exists; expected a new folder. Name another one.");
    if (!fs::exists(output / "manifest.json") || !fs::exists(output / "encoders"))
      fail(ErrorKind::Config, "--output " + output.string(),
           "the folder holds something else than an encoded data set, so it is not replaced. Name another folder.");
    if (!config_.force)
      fail(ErrorKind::Config, "--output " + output.string(),
           "the folder holds an encoded data set. Use --force to replace it, or name another folder.");
  }

  // Chunks of `input` with the numbers of those rows that go to the second split (`valid_from`) and of the others.
  template <class Use>
  void for_each_chunk(const std::string& title, const RawInput& input, const std::string& name,
                      const std::vector<std::string>& columns, const Use& use) {
    RawReader::Options options;
    options.join_folders = join_folders_;
    RawReader reader(input, schema(), columns, options);
    Progress progress(title, reader.total_bytes(), "bytes");
    const bool divides = schema().valid_from == name;
    RawChunk chunk;
    std::vector<int64_t> first, second;
    int64_t row_number = 0;
    while (reader.next(chunk)) {
      first.clear();
      second.clear();
      for (int64_t row = 0; row < chunk.rows(); ++row, ++row_number)
        (divides && goes_to_valid(row_number) ? second : first).push_back(row);
      use(chunk, first, second);
      progress.update(reader.read_bytes());
    }
    progress.finish();
    input_ = {name, row_number, reader.bad_rows(), reader.unmatched_rows()};
  }

  // By the number of the row within all files of the input, so that it does not depend on how they are cut into chunks.
  bool goes_to_valid(int64_t row_number) const {
    return Rng(static_cast<uint64_t>(schema().valid_seed), static_cast<uint64_t>(row_number)).uniform() < schema().valid_fraction;
  }

  void fit() {
    EncoderFitter fitter(schema());
    std::vector<std::string> columns = feature_columns(schema());
    const std::string& scenario = schema().scenario;
    if (!scenario.empty() && std::find(columns.begin(), columns.end(), scenario) == columns.end()) columns.push_back(scenario);
    for_each_chunk("fit encoders ", config_.train, "train", columns, [&](const RawChunk& chunk, const auto& rows, const auto&) {
      fitter.add(chunk, rows);
      train_rows_ += static_cast<int64_t>(rows.size());
    });
    check_rows("train", train_rows_, config_.train);
    encoders_ = fitter.finish();
  }

  std::vector<std::string> all_columns() const {
    std::vector<std::string> columns = feature_columns(schema());
    const std::vector<std::string> others = other_columns(schema());
    columns.insert(columns.end(), others.begin(), others.end());
    return columns;
  }

  // Reads the first rows, so that a missing file or column shows before the long passes.
  void check_columns(const RawInput& input) const {
    RawReader::Options options;
    options.join_folders = join_folders_;
    options.chunk_bytes = 1 << 16;
    RawReader reader(input, schema(), all_columns(), options);
    RawChunk chunk;
    reader.next(chunk);
  }

  void encode(const std::string& name, const RawInput& input, const std::string& first_split, const std::string& second_split) {
    RowEncoder encoder(*encoders_, false);
    DatasetWriter first(staging_ / first_split, encoders_->info());
    std::unique_ptr<DatasetWriter> second;
    if (!second_split.empty()) second = std::make_unique<DatasetWriter>(staging_ / second_split, encoders_->info());
    LeakCheck leaks(encoders_->info(), train_rows_);
    const bool checks_leaks = first_split == "train" && !schema().allow_leak;
    EncodeCounts first_counts, second_counts;
    Batch batch;
    for_each_chunk("encode " + name + std::string(7 - name.size(), ' '), input, name, all_columns(),
                   [&](const RawChunk& chunk, const auto& first_rows, const auto& second_rows) {
                     encoder.encode(chunk, first_rows, batch, first_counts);
                     if (checks_leaks) leaks.add(batch);
                     first.append(batch);
                     if (!second) return;
                     encoder.encode(chunk, second_rows, batch, second_counts);
                     second->append(batch);
                   });
    first.finish();
    check_rows(first_split, first_counts.rows, input);
    if (first_split == "train") check_positives(first_counts);
    if (checks_leaks) check_leaks(leaks);
    summary_.splits.push_back({first_split, first_counts});
    if (second) {
      second->finish();
      check_rows(second_split, second_counts.rows, input);
      summary_.splits.push_back({second_split, second_counts});
    }
    summary_.inputs.push_back(input_);
  }

  void sort_splits() {
    auto rank = [](const std::string& name) { return name == "train" ? 0 : name == "valid" ? 1 : 2; };
    std::sort(summary_.splits.begin(), summary_.splits.end(),
              [&](const auto& a, const auto& b) { return rank(a.name) < rank(b.name); });
  }

  void check_rows(const std::string& split, int64_t rows, const RawInput& input) const {
    if (rows == 0)
      fail(ErrorKind::Data, fmt::format("{}", fmt::join(input.files, ", ")),
           "the {} split has no row; expected at least one. Check the files{}.", split,
           schema().valid_from.empty() ? "" : ", and split.valid_fraction in the schema");
  }

  void check_positives(const EncodeCounts& counts) const {
    for (size_t t = 0; t < counts.tasks.size(); ++t) {
      const EncodeCounts::Task& task = counts.tasks[t];
      const Task& spec = schema().tasks[t];
      if (task.positives > 0) continue;
      std::string remedy = task.orphans > 0
                               ? fmt::format("{} rows have the label, but not the event '{}' before it: is `after` right?",
                                             task.orphans, spec.after)
                               : "Check the label expression and the data, or remove the task.";
      fail(ErrorKind::Data, "task " + spec.name,
           "no positive among its {} observed training rows (label: {}); expected at least one. {}", task.observed, spec.label,
           remedy);
    }
  }

  void check_leaks(const LeakCheck& check) const {
    const std::vector<Leak> leaks = check.find();
    if (leaks.empty()) return;
    std::vector<std::string> lines;
    for (const auto& leak : leaks) {
      const auto feature = std::find_if(schema().features.begin(), schema().features.end(),
                                        [&](const Feature& f) { return f.name == leak.feature; });
      lines.push_back(fmt::format("feature {} (column {}) alone ranks the task {} with AUC {:.4f}", leak.feature, feature->column,
                                  leak.task, leak.auc));
    }
    fail(ErrorKind::Data, config_.schema.string(),
         "{}; expected at most {}: such a column gives the label away, often because it is known only after "
         "the event. Remove it from the features, or set allow_leak: true.",
         fmt::join(lines, "; "), LeakCheck::kMaxAuc);
  }

  // Empty when it is not there: then no needed column comes from it, or the reader would have stopped.
  fs::path side_table(const Join& join) const {
    try {
      return find_side_file(join, schema(), join_folders_);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Io) throw;
      return {};
    }
  }

  void write_rest() {
    std::vector<fs::path> side_tables;
    for (const auto& join : schema().joins) side_tables.push_back(side_table(join));
    encoders_->save(staging_ / "encoders", side_tables);
    write_file_atomic(staging_ / "schema.yaml", schema().text);
    write_file_atomic(staging_ / "summary.json", summary_.to_json().dump(1) + "\n");
    std::vector<std::pair<std::string, int64_t>> split_rows;
    for (const auto& split : summary_.splits) split_rows.emplace_back(split.name, split.counts.rows);
    write_manifest(staging_, summary_.info, split_rows);
  }

  const PrepareConfig& config_;
  PrepareSummary summary_;
  std::vector<std::string> join_folders_;
  fs::path staging_;
  std::unique_ptr<EncoderSet> encoders_;
  int64_t train_rows_ = 0;
  PrepareSummary::Input input_;  // of the last pass
};

}  // namespace

Json PrepareSummary::to_json() const {
  Json json_splits = Json::array(), json_inputs = Json::array(), json_features = Json::array();
  for (const auto& split : splits) {
    Json tasks = Json::array(), fields = Json::array();
    for (size_t t = 0; t < split.counts.tasks.size(); ++t) {
      const auto& task = split.counts.tasks[t];
      tasks.push_back({{"task", schema.tasks[t].name},
                       {"observed", task.observed},
                       {"positives", task.positives},
                       {"positives_without_after_event", task.orphans}});
    }
    for (size_t f = 0; f < split.counts.fields.size(); ++f) {
      const auto& field = split.counts.fields[f];
      fields.push_back({{"feature", schema.features[f].name},
                        {"values", field.values},
                        {"unseen_or_rare", field.unseen},
                        {"missing", field.missing}});
    }
    json_splits.push_back({{"split", split.name}, {"rows", split.counts.rows}, {"tasks", tasks}, {"features", fields}});
  }
  for (const auto& input : inputs) {
    Json unmatched = Json::array();
    for (size_t j = 0; j < input.unmatched.size(); ++j)
      unmatched.push_back(
          {{"file", schema.joins[j].file}, {"key", schema.joins[j].key}, {"rows_without_match", input.unmatched[j]}});
    json_inputs.push_back(
        {{"input", input.name}, {"rows", input.rows}, {"bad_rows_skipped", input.bad_rows}, {"joins", unmatched}});
  }
  for (size_t f = 0; f < schema.features.size(); ++f)
    json_features.push_back(
        {{"feature", schema.features[f].name}, {"kind", to_string(schema.features[f].kind)}, {"table_rows", feature_rows[f]}});
  return {{"splits", json_splits}, {"inputs", json_inputs}, {"features", json_features}};
}

PrepareSummary prepare(const PrepareConfig& config) {
  return Preparation(config).run();
}

}  // namespace ektm
