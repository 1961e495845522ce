#include "train/trainer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/threads.h"
#include "checkpoint/safetensors.h"
#include "data/dataset.h"
#include "models/evaluation.h"
#include "models/network.h"
#include "nn/gemm.h"
#include "nn/profiler.h"
#include "nn/threading.h"
#include "report/tensorboard.h"
#include "train/label_statistics.h"
#include "train/program_version.h"
#include "train/stepper.h"

namespace ektm {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::json;

// What a checkpoint holds beside tensors.
struct TrainState {
  int64_t step = 0, epoch = 0, batch_in_epoch = 0;
  int64_t best_step = 0, bad_validations = 0, history_lines = 0;
  double best_value = 0, seconds = 0, validation_seconds = 0;
  bool has_best = false, finished = false;
  std::vector<double> loss_sums;  // since the last validation: total, then each term
  int64_t loss_steps = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TrainState, step, epoch, batch_in_epoch, best_step, bad_validations, history_lines, best_value, seconds,
                                   validation_seconds, has_best, finished, loss_sums, loss_steps)

class Trainer {
 public:
  Trainer(const RunConfig& config, const TrainOptions& options)
      : config_(config), options_(options), train_(open_dataset(config.data, "train")), valid_(open_dataset(config.data, "valid")),
        network_(config, train_->info(), needs_label_statistics(config, train_->info()) ? label_statistics(*train_, loader_config(config, train_->info())) : LabelStatistics()) {
    if (train_->rows() == 0) fail(ErrorKind::Data, config.data + ", split train", "found no rows; nothing can be trained.");
    if (valid_->rows() == 0)
      fail(ErrorKind::Data, config.data + ", split valid", "found no rows; the best model is chosen on the validation split. Prepare with --valid.");
    loader_ = std::make_unique<Loader>(*train_, loader_config(config, train_->info()));
    total_steps_ = config.train.epochs * loader_->batches_per_epoch();
    if (config.train.max_steps > 0) total_steps_ = std::min(total_steps_, config.train.max_steps);
    stepper_ = std::make_unique<Stepper>(network_, config_, total_steps_);
  }

  TrainOutcome run() {
    // A metric that cannot be computed must not surface after an epoch of work.
    validate_network(network_, *valid_, config_.train.evaluate_batch_rows).selection(config_.train.early_stopping, network_.info().tasks);
    if (options_.resume)
      restore();
    else
      create_run_folder();
    board_ = std::make_unique<TensorBoardWriter>(options_.run / "tensorboard");

    start_ = std::chrono::steady_clock::now();
    seconds_before_ = state_.seconds;
    if (options_.profile) profiler_ = std::make_unique<Profiler>();
    bool interrupted = false;
    const bool was_finished = state_.finished;
    if (was_finished) log_info("{} was trained to its end before; its metrics are written again", options_.run.string());
    Progress progress("train", total_steps_ * config_.train.batch_rows, "samples");
    while (!state_.finished && !interrupted) {
      loader_->start_epoch(state_.epoch, state_.batch_in_epoch);
      while (const Batch* batch = next_batch()) {
        train_step(*batch);
        if (profiler_) profiler_->step_ends();
        ++state_.batch_in_epoch;
        const bool epoch_ends = state_.batch_in_epoch == loader_->batches_per_epoch();
        if (epoch_ends) ++state_.epoch, state_.batch_in_epoch = 0;
        const int64_t every = config_.train.validate_every_steps;
        const bool last = state_.step >= total_steps_;
        progress.update(state_.step * config_.train.batch_rows, progress_note());
        bool validated = false;
        if (last || (every > 0 ? state_.step % every == 0 : epoch_ends)) {
          validate();
          validated = true;
          const int64_t patience = config_.train.early_stopping.patience;
          if (last || (patience > 0 && state_.bad_validations >= patience)) state_.finished = true;
        }
        interrupted = interrupt_flag();
        const int64_t save_every = config_.train.checkpoint_every_steps;
        if (validated || interrupted || (save_every > 0 && state_.step % save_every == 0)) save_checkpoint();
        if (state_.finished || interrupted || epoch_ends) break;
      }
    }
    if (!interrupted && !was_finished) progress.finish(progress_note());
    TrainOutcome outcome;
    if (profiler_) {
      profiler_->stop();
      outcome.profile = profiler_->table(config_.train.batch_rows);
      profiler_->write_trace(options_.run / "trace.json");
    }
    outcome.end = interrupted && !state_.finished ? TrainEnd::Interrupted : TrainEnd::Finished;
    outcome.steps = state_.step;
    outcome.best_step = state_.best_step;
    outcome.best_value = state_.best_value;
    outcome.seconds = elapsed();
    outcome.samples_per_s = static_cast<double>(state_.step * config_.train.batch_rows) / std::max(1e-9, elapsed() - state_.validation_seconds);
    if (outcome.end == TrainEnd::Finished) finish(outcome);
    return outcome;
  }

 private:
  double elapsed() const { return seconds_before_ + std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  const Batch* next_batch() {
    EKTM_PROFILE("input");
    return loader_->next();
  }

  void train_step(const Batch& batch) {
    LossTerms loss;
    try {
      loss = stepper_->step(batch, /*first_pass=*/state_.epoch == 0);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Model) throw;
      const fs::path checkpoint = options_.run / "checkpoint.safetensors";
      throw Error(ErrorKind::Model, error.where(), error.message() + (fs::exists(checkpoint) ? " The last good checkpoint: " + checkpoint.string()
                                                                                               : " No checkpoint was written yet."));
    }
    ++state_.step;
    loss_names_ = loss.names;
    last_loss_ = loss.total.item<double>();
    state_.loss_sums.resize(1 + loss.names.size());
    state_.loss_sums[0] += last_loss_;
    const float* values = loss.values.const_data_ptr<float>();
    for (size_t i = 0; i < loss.names.size(); ++i) state_.loss_sums[i + 1] += values[i];
    ++state_.loss_steps;
  }

  std::string progress_note() const {
    return fmt::format("loss {:.4f}{}", last_loss_,
                       state_.has_best ? fmt::format(" | best {} {:.5f}", config_.train.early_stopping.metric, state_.best_value) : "");
  }

  void validate() {
    EKTM_PROFILE("validation");
    const auto begin = std::chrono::steady_clock::now();
    ValidationResult result = validate_network(network_, *valid_, config_.train.evaluate_batch_rows);
    const double value = result.selection(config_.train.early_stopping, network_.info().tasks);
    const bool larger = metric_is_better_when_larger(config_.train.early_stopping.metric);
    if (!state_.has_best || (larger ? value > state_.best_value : value < state_.best_value)) {
      state_.has_best = true;
      state_.best_value = value;
      state_.best_step = state_.step;
      state_.bad_validations = 0;
      save_model();
    } else {
      ++state_.bad_validations;
    }
    state_.validation_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

    Json line = {{"step", state_.step}, {"epoch", static_cast<double>(state_.step) / static_cast<double>(loader_->batches_per_epoch())},
                 {"seconds", elapsed()}};
    line["samples_per_s"] = static_cast<double>(state_.step * config_.train.batch_rows) / std::max(1e-9, elapsed());
    auto scalar = [&](const std::string& tag, double number) { board_->scalar(tag, state_.step, number); };
    const double steps = static_cast<double>(std::max<int64_t>(1, state_.loss_steps));
    line["train_loss"]["total"] = state_.loss_sums[0] / steps;
    scalar("train_loss/total", state_.loss_sums[0] / steps);
    for (size_t i = 0; i < loss_names_.size(); ++i) {
      line["train_loss"][loss_names_[i]] = state_.loss_sums[i + 1] / steps;
      scalar("train_loss/" + loss_names_[i], state_.loss_sums[i + 1] / steps);
    }
    if (const Balancer* balancer = stepper_->balancer()) {
      const auto& tasks = network_.info().tasks;
      for (size_t t = 0; t < tasks.size(); ++t) {
        line["balance"][tasks[t].name] = balancer->weights()[t];
        scalar("balance/" + tasks[t].name, balancer->weights()[t]);
      }
    }
    std::string shown;
    for (const auto& task : result.tasks) {
      if (task.auc) line["valid"]["auc"][task.task] = *task.auc, scalar("valid_auc/" + task.task, *task.auc);
      if (task.logloss) line["valid"]["logloss"][task.task] = *task.logloss, scalar("valid_logloss/" + task.task, *task.logloss);
      if (task.auc) shown += fmt::format(" {} {:.4f}", task.task, *task.auc);
    }
    line["valid"]["selection"] = value;
    scalar("valid/" + config_.train.early_stopping.metric, value);
    scalar("learning_rate", stepper_->learning_rate());
    board_->flush();
    append_history(line);
    state_.loss_sums.assign(state_.loss_sums.size(), 0);
    state_.loss_steps = 0;
    log_info("step {:>6}  loss {:.4f}  {} {:.5f}{}  auc:{}", state_.step, line["train_loss"]["total"].get<double>(),
             config_.train.early_stopping.metric, value, state_.best_step == state_.step ? " *" : "  ", shown);
  }

  void save_model() {
    TensorFile file;
    file.tensors = network_.state(false);
    file.metadata["step"] = std::to_string(state_.best_step);
    file.metadata["schema_hash"] = network_.info().schema_hash;
    save_tensors(options_.run / "model.safetensors", file);
  }

  void append_history(const Json& line) {
    history_ += line.dump() + "\n";
    ++state_.history_lines;
    write_file_atomic(options_.run / "history.jsonl", history_);
  }

  void save_checkpoint() {
    EKTM_PROFILE("checkpoint");
    state_.seconds = elapsed();
    TensorFile file;
    file.tensors = stepper_->state();
    file.metadata["state"] = Json(state_).dump();
    file.metadata["schema_hash"] = network_.info().schema_hash;
    save_tensors(options_.run / "checkpoint.safetensors", file);
  }

  void create_run_folder() {
    const fs::path& run = options_.run;
    if (fs::exists(run) && !fs::is_empty(run)) {
      if (!options_.overwrite)
        fail(ErrorKind::Config, "--output " + run.string(), "the folder exists and is not empty. Use --resume to go on with it, --overwrite to "
             "replace it, or name another folder.");
      if (!fs::exists(run / "config.yaml"))
        fail(ErrorKind::Config, "--output " + run.string(), "the folder holds no run (no config.yaml), so --overwrite does not replace it. Name "
             "another folder.");
    }
    StagedDirectory staged(run);
    write_file_atomic(staged.path() / "config.yaml", run_config_text(config_));
    const fs::path data(config_.data);
    std::error_code code;
    fs::copy_file(data / "schema.yaml", staged.path() / "schema.yaml", code);
    if (!code) fs::copy(data / "encoders", staged.path() / "encoders", fs::copy_options::recursive, code);
    if (code) fail(ErrorKind::Io, run.string(), "cannot copy the schema and encoders of {}: {}. Check both folders.", config_.data, code.message());
    staged.commit();
  }

  // Another config would give a run that neither config describes. The data set may have moved, and another machine may have fewer cores.
  void check_same_config(const fs::path& file) const {
    const auto differences = config_differences(load_run_config(file, {}), config_, {"data", "threads"});
    if (!differences.empty())
      fail(ErrorKind::Config, "--resume " + options_.run.string(), "this is another config than the run was started with: {}. Resume with {}, or train "
           "into another folder.", fmt::join(differences, "; "), file.string());
  }

  void restore() {
    const fs::path& run = options_.run;
    const fs::path file = run / "checkpoint.safetensors";
    if (!fs::exists(file))
      fail(ErrorKind::Config, "--resume " + run.string(), "found no checkpoint.safetensors there. Train without --resume (add --overwrite to "
           "replace the folder).");
    check_same_config(run / "config.yaml");
    // What a killed run was writing; its process is gone.
    for (const auto& entry : fs::directory_iterator(run))
      if (entry.path().filename().string().find(".partial-") != std::string::npos) fs::remove(entry.path());
    TensorFile content = load_tensors(file);
    if (content.metadata["schema_hash"] != network_.info().schema_hash)
      fail(ErrorKind::Config, file.string(), "the run was trained on data with schema hash {}, but {} has {}. Resume with the data set that the run "
           "was started with.", content.metadata["schema_hash"], config_.data, network_.info().schema_hash);
    try {
      state_ = Json::parse(content.metadata["state"]).get<TrainState>();
    } catch (const Json::exception& error) {
      fail(ErrorKind::Data, file.string(), "the file is damaged: its state cannot be read ({}). Take another checkpoint, or train again.", error.what());
    }
    load_into(content, stepper_->state(), file);
    stepper_->set_steps(state_.step);
    // Lines that an interrupted run wrote after its last checkpoint are written again by this one.
    std::ifstream in(run / "history.jsonl");
    std::string line;
    for (int64_t i = 0; i < state_.history_lines && std::getline(in, line); ++i) history_ += line + "\n";
    log_info("resumed {} at step {} (epoch {})", run.string(), state_.step, state_.epoch + 1);
  }

  void finish(const TrainOutcome& outcome) {
    const fs::path& run = options_.run;
    TensorFile best = load_tensors(run / "model.safetensors");
    load_into(best, network_.state(false), run / "model.safetensors");
    Json inspected = inspect_network(network_, *valid_, 100000);
    inspected["training"] = {{"seconds", outcome.seconds}, {"samples_per_s", outcome.samples_per_s}, {"steps", outcome.steps},
                             {"best_step", outcome.best_step}, {"threads", threads()},
                             {"precision", config_.precision}, {"program", program_version()}};
    write_file_atomic(run / "inspect.json", inspected.dump(2) + "\n");
    EvaluationOptions options;
    options.batch_rows = config_.train.evaluate_batch_rows;
    write_metrics(*valid_, "valid", run / "metrics-valid.json", options);
    if (config_.train.evaluate_test && fs::exists(fs::path(config_.data) / "test")) {
      auto test = open_dataset(config_.data, "test");
      if (test->rows() > 0) write_metrics(*test, "test", run / "metrics.json", options);
    }
  }

  void write_metrics(const Dataset& dataset, const std::string& split, const fs::path& file, const EvaluationOptions& options) {
    write_file_atomic(file, evaluate_network(network_, dataset, config_.model_name(), split, options).to_json().dump(2) + "\n");
  }

  RunConfig config_;
  TrainOptions options_;
  std::unique_ptr<Dataset> train_, valid_;
  Network network_;
  std::unique_ptr<Stepper> stepper_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<TensorBoardWriter> board_;
  std::unique_ptr<Profiler> profiler_;  // with options.profile
  int64_t total_steps_ = 0;

  TrainState state_;
  std::string history_;
  std::vector<std::string> loss_names_;
  double last_loss_ = 0, seconds_before_ = 0;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

LoaderConfig loader_config(const RunConfig& config, const DatasetInfo& info) {
  LoaderConfig loader;
  loader.batch_rows = config.train.batch_rows;
  loader.shuffle = true;
  loader.seed = static_cast<uint64_t>(config.seed);
  loader.prefetch = config.train.prefetch;
  if (!config.train.label_shares.empty()) loader.label_shares.assign(info.tasks.size(), 1.0);
  for (const auto& [name, share] : config.train.label_shares) {
    std::vector<std::string> names;
    for (const auto& task : info.tasks) names.push_back(task.name);
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
      fail(ErrorKind::Config, "train.label_shares." + name, "no task has this name; the data set's tasks are: {}.{}", fmt::join(names, ", "), did_you_mean(name, names));
    loader.label_shares[found - names.begin()] = share;
  }
  return loader;
}

TrainOutcome train(const RunConfig& config, const TrainOptions& options) {
  if (config.data.empty()) fail(ErrorKind::Config, "data", "is not given; expected a folder that `ektm prepare` wrote. Name it in the config, or by --set data=DIR.");
  use_threads(config.threads);
  RunConfig resolved = config;
  const fs::path before = options.run / "config.yaml";
  // What a run began with is kept, whatever the machine that goes on with it would take.
  if (config.precision == "auto" && options.resume && fs::exists(before)) resolved.precision = load_run_config(before, {}).precision;
  if (resolved.precision == "auto") resolved.precision = bf16_pays() ? "bf16" : "f32";
  return Trainer(resolved, options).run();
}

}  // namespace ektm
