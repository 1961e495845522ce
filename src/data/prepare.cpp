#include "data/prepare.h"

#include <fmt/ranges.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <exception>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/random.h"
#include "base/threads.h"
#include "data/arrow_check.h"
#include "data/batch_assembler.h"
#include "data/coded_spool.h"
#include "data/dataset_writer.h"
#include "data/encoder_fit.h"
#include "data/leak_check.h"
#include "data/row_filter.h"

namespace ektm {
namespace fs = std::filesystem;
using Json = nlohmann::json;
namespace {

double thread_cpu_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Adds the CPU time of its life to `sum`.
class CpuTimer {
 public:
  explicit CpuTimer(double& sum) : sum_(sum), start_(thread_cpu_seconds()) {}
  ~CpuTimer() { sum_ += thread_cpu_seconds() - start_; }
  CpuTimer(const CpuTimer&) = delete;
  CpuTimer& operator=(const CpuTimer&) = delete;

 private:
  double& sum_;
  double start_;
};

// A chunk on its way.
struct Step {
  RawChunk chunk;
  std::vector<int64_t> first, second;  // rows of the chunk by split
  CodedChunk coded;
  Batch first_batch, second_batch;
};

int thread_count(int64_t asked) {
  constexpr int64_t kMaxThreads = 1024;
  if (asked < 0 || asked > kMaxThreads)
    fail(ErrorKind::Config, "--threads", "found {}; expected 1 to {}, or 0 for one a core.", asked, kMaxThreads);
  return asked > 0 ? static_cast<int>(asked) : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

class Preparation {
 public:
  explicit Preparation(const PrepareConfig& config) : config_(config), workers_(thread_count(config.threads)) {
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
    for (const PrepareInput* input : inputs())
      if (!input->files.empty()) check_columns(*input);
    read_train();
    summary_.info = encoders_->info();
    for (const auto& slot : encoders_->slots)
      summary_.feature_rows.push_back(slot.kind == FeatureSlot::Kind::Number ? 0 : encoders_->tables[slot.table].rows());
    encode_train();
    if (!config_.valid.files.empty()) encode("valid", config_.valid, "");
    if (!config_.test.files.empty()) encode("test", config_.test, schema().valid_from == "test" ? "valid" : "");
    sort_splits();
    {
      CpuTimer timer(summary_.cpu_seconds.write);
      write_rest();
      staged.commit();
    }
    return std::move(summary_);
  }

 private:
  // The batches of one input, or of the two splits that it is divided into.
  class SplitWriter {
   public:
    // second_split: "" = none. `maps`: of provisional rows.
    SplitWriter(Preparation& owner, std::string first_split, std::string second_split, const RowMaps* maps)
        : owner_(owner),
          names_{std::move(first_split), std::move(second_split)},
          assembler_(*owner.encoders_, maps),
          first_(owner.staging_ / names_[0], owner.encoders_->info()) {
      if (!names_[1].empty()) second_ = std::make_unique<DatasetWriter>(owner.staging_ / names_[1], owner.encoders_->info());
    }
    void assemble(Step& step) {
      CpuTimer timer(assemble_seconds_);
      assembler_.assemble(step.coded, step.chunk, step.first, step.first_batch, counts_[0]);
      if (second_) assembler_.assemble(step.coded, step.chunk, step.second, step.second_batch, counts_[1]);
    }
    void write(const Step& step) {
      CpuTimer timer(write_seconds_);
      first_.append(step.first_batch);
      if (second_) second_->append(step.second_batch);
    }
    void finish(const PrepareInput& input) {
      PrepareSummary& summary = owner_.summary_;
      {
        CpuTimer timer(write_seconds_);
        first_.finish();
        if (second_) second_->finish();
      }
      summary.cpu_seconds.encode += assemble_seconds_;
      summary.cpu_seconds.write += write_seconds_;
      for (size_t i = 0; i < (second_ ? 2 : 1); ++i) {
        owner_.check_rows(names_[i], counts_[i].rows, input);
        summary.splits.push_back({names_[i], counts_[i]});
      }
    }

   private:
    Preparation& owner_;
    std::string names_[2];
    BatchAssembler assembler_;
    DatasetWriter first_;
    std::unique_ptr<DatasetWriter> second_;
    EncodeCounts counts_[2];
    double assemble_seconds_ = 0, write_seconds_ = 0;
  };

  const Schema& schema() const { return summary_.schema; }
  std::array<const PrepareInput*, 3> inputs() const { return {&config_.train, &config_.valid, &config_.test}; }
  std::string option_of(const PrepareInput& input) const { return &input == &config_.train ? "--train" : &input == &config_.valid ? "--valid" : "--test"; }

  static bool has_file(const PrepareInput& input, const std::string& file) {
    std::error_code code;
    return std::any_of(input.files.begin(), input.files.end(), [&](const std::string& own) { return fs::equivalent(own, file, code); });
  }

  // The input's own filter, where it has one, and those of the inputs that share a file with it: no row may pass two.
  struct Filters {
    std::optional<RowFilter> own;
    std::vector<std::pair<std::string, RowFilter>> others;  // with their options
    std::vector<std::string> columns;                       // of the schema and of all filters, each once
  };

  Filters filters_of(const PrepareInput& input) const {
    Filters filters;
    filters.columns = needed_columns(schema());
    auto need = [&](const RowFilter& filter) {
      for (const auto& column : filter.columns())
        if (std::find(filters.columns.begin(), filters.columns.end(), column) == filters.columns.end()) filters.columns.push_back(column);
    };
    if (!input.where.empty()) need(filters.own.emplace(input.where, option_of(input) + "-where"));
    for (const PrepareInput* other : inputs())
      if (other != &input && std::any_of(other->files.begin(), other->files.end(), [&](const std::string& file) { return has_file(input, file); }))
        need(filters.others.emplace_back(option_of(*other), RowFilter(other->where, option_of(*other) + "-where")).second);
    return filters;
  }

  // Appends to kept_; Error Data for a row that passes two filters.
  void select_rows(const Filters& filters, const PrepareInput& input, const RawChunk& chunk) {
    const size_t first = kept_.size();
    filters.own->select(chunk, schema(), kept_);
    for (const auto& [option, filter] : filters.others) {
      std::vector<bool> other;
      filter.select(chunk, schema(), other);
      for (int64_t row = 0; row < chunk.rows(); ++row)
        if (kept_[first + static_cast<size_t>(row)] && other[static_cast<size_t>(row)])
          fail(ErrorKind::Data, chunk.where(row, filter.columns().front()),
               "the row is chosen by {}-where ({}) and by {}-where ({}); expected at most one, so that no split sees the rows of another.", option_of(input),
               filters.own->text(), option, filter.text());
    }
  }

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
    for (const PrepareInput* input : inputs()) {
      if (!input->where.empty()) RowFilter(input->where, option_of(*input) + "-where");
      for (const auto& file : input->files) {
        std::error_code code;
        if (std::count_if(input->files.begin(), input->files.end(), [&](const std::string& own) { return fs::equivalent(own, file, code); }) > 1)
          fail(ErrorKind::Config, option_of(*input), "the file {} is given twice; each file once.", file);
        for (const PrepareInput* other : inputs())
          if (other < input && has_file(*other, file) && (input->where.empty() || other->where.empty()))
            fail(ErrorKind::Config, option_of(*input),
                 "the file {} is also given to {}; each file once, so that no split sees the rows of another, or with {}-where and {}-where.", file,
                 option_of(*other), option_of(*other), option_of(*input));
      }
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

  // Chunks through three stages: read(step) (false: no more), work(part, step) for each of `parts`, finish(part, step) for each
  // of `finishes`. While a chunk is worked on, the one before is finished and the next one read, as far as there are threads. Of
  // several errors, that of the earliest chunk counts.
  template <class Read, class Work, class Finish>
  void run_steps(const Read& read, size_t parts, const Work& work, size_t finishes, const Finish& finish) {
    std::array<Step, 3> steps;
    std::exception_ptr read_error;
    bool has_before = false, has_now = read(steps[0]);
    for (size_t k = 0; has_now || has_before; ++k) {
      Step &before = steps[(k + 2) % 3], &now = steps[k % 3], &next = steps[(k + 1) % 3];
      bool has_next = false;
      workers_.run(static_cast<int64_t>(finishes + 1 + parts), [&](int64_t number) {
        const size_t task = static_cast<size_t>(number);
        if (task < finishes) {
          if (has_before) finish(task, before);
        } else if (!has_now) {
          return;
        } else if (task > finishes) {
          work(task - finishes - 1, now);
        } else {
          try {
            has_next = read(next);
          } catch (...) {
            read_error = std::current_exception();
          }
        }
      });
      has_before = has_now;
      has_now = has_next;
    }
    if (read_error) std::rethrow_exception(read_error);
  }

  // run_steps() over the raw chunks of `input`, with the rows that go to the second split (`valid_from`) and the others.
  template <class Work, class Finish>
  void run_over(const std::string& title, const PrepareInput& input, const std::string& name, size_t parts, const Work& work,
                const Finish& finish) {
    RawReader::Options options;
    options.join_folders = join_folders_;
    options.chunk_bytes = config_.chunk_bytes;
    const Filters filters = filters_of(input);
    RawReader reader(input, schema(), filters.columns, options);
    Progress progress(title, reader.total_bytes(), "bytes");
    kept_.clear();
    int64_t row_number = 0, used = 0;
    auto read = [&](Step& step) {
      CpuTimer timer(summary_.cpu_seconds.read);
      if (!reader.next(step.chunk)) return false;
      step.coded.begin(step.chunk.rows(), schema().features.size());
      if (filters.own) select_rows(filters, input, step.chunk);
      divide_rows(name, row_number, step);
      used += static_cast<int64_t>(step.first.size() + step.second.size());
      stop_if_interrupted();
      progress.update(reader.read_bytes());
      return true;
    };
    run_steps(read, parts, work, 1, [&](size_t, Step& step) { finish(step); });
    progress.finish();
    summary_.inputs.push_back({name, row_number, reader.bad_rows(), row_number - used, reader.unmatched_rows()});
  }

  // The rows of the step by split; `row_number`: of its first row within the input, moved behind its last.
  void divide_rows(const std::string& name, int64_t& row_number, Step& step) const {
    const bool divides = schema().valid_from == name;
    step.first.clear();
    step.second.clear();
    for (int64_t row = 0; row < step.coded.rows; ++row, ++row_number)
      if (kept_.empty() || kept_[static_cast<size_t>(row_number)]) (divides && goes_to_valid(row_number) ? step.second : step.first).push_back(row);
  }

  // By the number of the row within all files of the input, so that it does not depend on how they are cut into chunks.
  bool goes_to_valid(int64_t row_number) const {
    return Rng(static_cast<uint64_t>(schema().valid_seed), static_cast<uint64_t>(row_number)).uniform() < schema().valid_fraction;
  }

  // Fits the encoders; the coded rows go to the spool.
  void read_train() {
    EncoderFitter fitter(schema());
    spool_ = std::make_unique<CodedSpool>(staging_ / "train.spool");
    std::vector<double> seconds(fitter.parts(), 0);  // parts run at once
    double spool_seconds = 0;
    run_over(
        "read train   ", config_.train, "train", fitter.parts(),
        [&](size_t part, Step& step) {
          CpuTimer timer(seconds[part]);
          fitter.add(part, step.chunk, step.first, step.coded);
        },
        [&](Step& step) {
          CpuTimer timer(spool_seconds);
          spool_->write(step.coded);
          train_rows_ += static_cast<int64_t>(step.first.size());
          keep_place(step.chunk);
        });
    CpuTimer timer(summary_.cpu_seconds.fit);
    summary_.cpu_seconds.fit += spool_seconds + std::accumulate(seconds.begin(), seconds.end(), 0.0);
    check_rows("train", train_rows_, config_.train);
    FittedEncoders fitted = fitter.finish();
    encoders_ = std::move(fitted.encoders);
    maps_ = std::move(fitted.maps);
  }

  // Reads the first rows, so that a missing file or column shows before the long passes.
  void check_columns(const PrepareInput& input) const {
    RawReader::Options options;
    options.join_folders = join_folders_;
    options.chunk_bytes = 1 << 16;
    RawReader reader(input, schema(), filters_of(input).columns, options);
    RawChunk chunk;
    reader.next(chunk);
  }

  // The chunk without its cells, for messages: of its columns the names and where they come from.
  void keep_place(const RawChunk& chunk) {
    arrow::FieldVector fields;
    for (const auto& field : chunk.columns->schema()->fields()) fields.push_back(field->WithType(arrow::null()));
    const auto columns = arrow::schema(fields);
    RawChunk place = chunk;
    const bool same = !places_.empty() && places_.back().columns->schema()->Equals(*columns, true);
    place.columns = same ? places_.back().columns
                         : checked_data(arrow::RecordBatch::MakeEmpty(columns), chunk.file, "cannot be held in memory");
    places_.push_back(std::move(place));
  }

  // The training split from the spool.
  void encode_train() {
    SplitWriter writer(*this, "train", schema().valid_from == "train" ? "valid" : "", &maps_);
    LeakCheck leaks(encoders_->info(), train_rows_);
    Progress progress("encode train ", spool_->bytes(), "bytes");
    size_t next_chunk = 0;
    int64_t row_number = 0;
    double read_seconds = 0;
    run_steps(
        [&](Step& step) {
          CpuTimer timer(read_seconds);
          if (!spool_->read(step.coded)) return false;
          step.chunk = places_[next_chunk++];
          divide_rows("train", row_number, step);
          stop_if_interrupted();
          progress.update(spool_->bytes_read());
          return true;
        },
        1, [&](size_t, Step& step) { writer.assemble(step); },
        schema().allow_leak ? 1 : 2,
        [&](size_t part, Step& step) {
          if (part == 0) return writer.write(step);
          CpuTimer timer(summary_.cpu_seconds.leak_check);
          leaks.add(step.first_batch);
        });
    progress.finish();
    spool_.reset();
    places_.clear();
    maps_ = {};
    summary_.cpu_seconds.encode += read_seconds;
    writer.finish(config_.train);
    check_positives(summary_.splits.front().counts);
    CpuTimer timer(summary_.cpu_seconds.leak_check);
    if (!schema().allow_leak) check_leaks(leaks);
  }

  void encode(const std::string& name, const PrepareInput& input, const std::string& second_split) {
    SplitWriter writer(*this, name, second_split, nullptr);
    CellCoder coder(*encoders_, CellCoder::Mode::Encode);
    std::vector<double> seconds(coder.parts(), 0);
    run_over(
        "encode " + name + std::string(6 - name.size(), ' '), input, name, coder.parts(),
        [&](size_t part, Step& step) {
          CpuTimer timer(seconds[part]);
          coder.code(part, step.chunk, step.coded);
        },
        [&](Step& step) {
          writer.assemble(step);
          writer.write(step);
        });
    summary_.cpu_seconds.encode += std::accumulate(seconds.begin(), seconds.end(), 0.0);
    writer.finish(input);
  }

  void sort_splits() {
    auto rank = [](const std::string& name) { return name == "train" ? 0 : name == "valid" ? 1 : 2; };
    std::sort(summary_.splits.begin(), summary_.splits.end(),
              [&](const auto& a, const auto& b) { return rank(a.name) < rank(b.name); });
  }

  void check_rows(const std::string& split, int64_t rows, const PrepareInput& input) const {
    if (rows == 0)
      fail(ErrorKind::Data, fmt::format("{}", fmt::join(input.files, ", ")),
           "the {} split has no row; expected at least one. Check the files{}{}.", split,
           input.where.empty() ? "" : fmt::format(", and {}-where ({})", option_of(input), input.where),
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
  RowMaps maps_;
  std::unique_ptr<CodedSpool> spool_;
  std::vector<RawChunk> places_;  // of the spool's chunks, without their cells
  int64_t train_rows_ = 0;
  std::vector<bool> kept_;  // of each row of the input that was read last, where it has a filter
  ThreadPool workers_;
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
        {{"input", input.name}, {"rows", input.rows}, {"bad_rows_skipped", input.bad_rows}, {"rows_left_out", input.left_out}, {"joins", unmatched}});
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
