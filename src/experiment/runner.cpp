#include "experiment/runner.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "data/dataset.h"
#include "data/prepare.h"
#include "experiment/predictions.h"
#include "models/evaluation.h"
#include "sim/logs.h"
#include "train/trainer.h"

extern char** environ;

namespace ektm {
namespace fs = std::filesystem;
using Json = nlohmann::json;
namespace {

constexpr const char* kTrialsFile = "trials.jsonl";
constexpr const char* kFailureFile = "failure.txt";  // in the folder of a run whose losses were not finite

Json parse_line(const std::string& line, const fs::path& file) {
  Json json = Json::parse(line, nullptr, false);
  if (json.is_discarded()) fail(ErrorKind::Data, file.string(), "the line '{}' is no JSON. Remove the file; its trials are then run again.", line);
  return json;
}

std::string duration(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  if (seconds < 5400) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

// No second `ektm bench`, and no run that one left behind, works in the folder: the lock goes over to the programs that are started.
class Lock {
 public:
  explicit Lock(const fs::path& work) {
    make_directories(work);
    const fs::path file = work / ".lock";
    fd_ = open(file.c_str(), O_RDWR | O_CREAT, 0644);
    if (fd_ < 0) fail(ErrorKind::Io, file.string(), "cannot open the file: {}. Check the folder and its permissions.", std::strerror(errno));
    if (flock(fd_, LOCK_EX | LOCK_NB) != 0)
      fail(ErrorKind::Config, "--output " + work.string(),
           "another ektm bench, or a run that it started, works in this folder. Wait for it, or name another folder.");
  }
  ~Lock() { close(fd_); }
  Lock(const Lock&) = delete;

 private:
  int fd_ = -1;
};

// The value of the kept weights by the history, and its step.
void read_best(const fs::path& run, bool larger, TrialRecord& record) {
  std::istringstream lines(read_file(run / "history.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json point = parse_line(line, run / "history.jsonl");
    const double value = point.at("valid").at("selection").get<double>();
    record.seconds = point.at("seconds").get<double>();
    if (record.selection && (larger ? value <= *record.selection : value >= *record.selection)) continue;
    record.selection = value;
    record.step = point.at("step").get<int64_t>();
  }
}

struct Job {
  RunConfig config;
  fs::path folder;
  std::string label;
  std::function<void()> finish;                           // when it was trained
  std::function<void(const std::string& failure)> broke;  // when its losses were not finite
};

// `ektm evaluate` writes metrics too, of a run that was interrupted as well; only a finished training writes inspect.json.
bool was_trained(const Job& job) {
  return fs::exists(job.folder / "inspect.json") && fs::exists(job.folder / (job.config.train.evaluate_test ? "metrics.json" : "metrics-valid.json"));
}

class Runner {
 public:
  Runner(const Plan& plan, const RunnerOptions& options) : plan_(plan), options_(options), places_{options.work}, lock_(options.work) {}

  RunnerOutcome run() {
    check_data_records();
    for (const auto& dataset : plan_.datasets) {
      if (dataset.data.empty()) prepare_raw(dataset);
      record_data(dataset);
      if (dataset.data.empty()) check_prepared(dataset);
    }
    check_trials();
    if (!plan_.tune) check_runs();
    const int64_t per_phase = static_cast<int64_t>(plan_.datasets.size() * plan_.models.size());
    outcome_.jobs = per_phase * static_cast<int64_t>(plan_.seeds.size()) + (plan_.tune ? per_phase * plan_.tune->trials : 0);
    if (plan_.tune) {
      search();
      if (outcome_.interrupted) return outcome_;
      check_runs();
    }
    train_seeds();
    return outcome_;
  }

 private:
  // --- What stands in WORK already -------------------------------------------------------------------------------------------------

  [[noreturn]] void contradiction(const std::string& key, const std::string& found) const {
    fail(ErrorKind::Config, key, "{} holds results of another plan: {}. Go back to that plan, or name another folder.", options_.work.string(),
         found);
  }

  // What a raw file holds. It is read again only where its time or size differs from the record before.
  Json raw_file(const std::string& file) {
    if (const auto known = raw_files_.find(file); known != raw_files_.end()) return known->second;
    const int64_t size = static_cast<int64_t>(fs::file_size(file)), time = fs::last_write_time(file).time_since_epoch().count();
    Json& record = raw_files_[file];
    for (const auto& [name, source] : records_.items())
      if (const Json files = source.value("files", Json::object()); files.contains(file)) record = files[file];
    if (!record.is_object() || record.value("size", int64_t{-1}) != size || record.value("time", int64_t{0}) != time)
      record = {{"size", size}, {"time", time}, {"checksum", checksum_file(file)}};
    return record;
  }

  Json source_of(const PlanDataset& dataset) {
    Json source;
    if (dataset.data.empty()) {
      if (dataset.simulation) {
        source["simulate"] = to_text(write_config(*dataset.simulation));
      } else {
        source["schema"] = checksum_file(dataset.schema);
        source["train"] = dataset.train, source["valid"] = dataset.valid, source["test"] = dataset.test;
        for (const auto* files : {&dataset.train, &dataset.valid, &dataset.test})
          for (const auto& file : *files) source["files"][file] = raw_file(file);
      }
      if (!dataset.cut_of.empty()) source["rolling"] = {dataset.train_where, dataset.valid_where, dataset.test_where};
    }
    const fs::path manifest = fs::path(places_.data(dataset)) / "manifest.json";
    if (fs::exists(manifest)) source["manifest"] = checksum_file(manifest);  // it holds the checksum of every file
    return source;
  }

  fs::path data_file() const { return options_.work / "data.json"; }

  void check_data_records() {
    if (!fs::exists(data_file())) return;
    const Json before = Json::parse(read_file(data_file()), nullptr, false);
    if (!before.is_object()) fail(ErrorKind::Data, data_file().string(), "is no JSON object. The folder is damaged: name another one.");
    records_ = before;
    for (const auto& dataset : plan_.datasets) {
      if (!before.contains(dataset.name)) continue;
      const Json now = source_of(dataset);
      for (const auto& [key, value] : before[dataset.name].items())
        if (key == "files") {
          for (const auto& [file, record] : value.items())
            if (now.contains(key) && now[key].contains(file) && now[key][file].value("checksum", "") != record.value("checksum", ""))
              contradiction(dataset.place, fmt::format("the raw file {} has changed since the data set {} was made of it", file, dataset.name));
        } else if (!now.contains(key) || (now[key] != value && (!is_split(key) || checksums(now, key) != checksums(before[dataset.name], key)))) {
          const std::string name = key == "manifest" ? "data" : key;
          contradiction(dataset.place + "." + name, fmt::format("the data set {} had another content", dataset.name));
        }
    }
  }

  static bool is_split(const std::string& key) { return key == "train" || key == "valid" || key == "test"; }

  // Of the raw files of a split, in order: the same files may lie in another folder now.
  static std::vector<std::string> checksums(const Json& source, const std::string& split) {
    const Json files = source.value("files", Json::object());
    std::vector<std::string> all;
    for (const auto& file : source.at(split)) all.push_back(files.at(file.get<std::string>()).value("checksum", ""));
    return all;
  }

  void record_data(const PlanDataset& dataset) {
    records_[dataset.name] = source_of(dataset);
    write_file_atomic(data_file(), records_.dump(1) + "\n");
  }

  // A folder without a record was left by a plan that failed or was killed before it could say what it is made of: it is made again.
  void prepare_raw(const PlanDataset& dataset) {
    const std::string folder = places_.data(dataset);
    if (!records_.contains(dataset.name) || !fs::exists(fs::path(folder) / "manifest.json")) {
      log_info("prepare {} ({})", dataset.name, folder);
      make_directories(fs::path(folder).parent_path());
      PrepareConfig config;
      config.schema = dataset.schema;
      config.train.files = dataset.train;
      config.valid.files = dataset.valid;
      config.test.files = dataset.test;
      const fs::path logs = options_.work / "logs" / (dataset.cut_of.empty() ? dataset.name : dataset.cut_of);
      if (dataset.simulation) {
        make_directories(logs.parent_path());
        if (simulated_.insert(logs).second) write_logs(*dataset.simulation, logs, /*overwrite=*/true);
        const std::string extension = dataset.simulation->format == "csv" ? ".csv" : ".parquet";
        config.schema = (logs / "schema.yaml").string();
        config.train.files = {(logs / ("train" + extension)).string()};
        config.valid.files = {(logs / ("valid" + extension)).string()};
        config.test.files = {(logs / ("test" + extension)).string()};
      }
      if (!dataset.cut_of.empty()) {
        auto& files = config.train.files;
        for (const auto* more : {&config.valid.files, &config.test.files}) files.insert(files.end(), more->begin(), more->end());
        config.valid.files = config.test.files = files;
      }
      config.train.where = dataset.train_where;
      config.valid.where = dataset.valid_where;
      config.test.where = dataset.test_where;
      config.output = folder;
      config.force = true;
      prepare(config);
    }
  }

  void check_prepared(const PlanDataset& dataset) const {
    ConfigErrors errors("the plan");
    check_models(plan_, dataset, read_dataset_info(places_.data(dataset)), errors);
    errors.throw_if_any();
  }

  std::string first_difference(const RunConfig& before, RunConfig now) const {
    if (now.precision == "auto") now.precision = before.precision;  // a run keeps what it began with
    const auto differences = config_differences(before, now, {"data"});
    return differences.empty() ? "" : differences.front();
  }

  void check_trials() {
    if (!plan_.tune) return;
    for (const auto& dataset : plan_.datasets)
      for (const auto& model : plan_.models)
        for (const auto& record : read_trials(places_.trials(dataset.name, model.name))) {
          if (record.trial >= plan_.tune->trials) continue;
          if (const std::string missing = missing_before(dataset, model, record.trial); !missing.empty())
            fail(ErrorKind::Config, places_.trials(dataset.name, model.name) / kTrialsFile,
                 "has trial {}, which tune.method tpe chose by {}, which is not there. Remove the file; its trials are then run again.", record.trial, missing);
          const RunConfig before = parse_run_config(parse_yaml(record.config, kTrialsFile), kTrialsFile, {});
          const std::string difference = first_difference(before, trial_run(dataset, model, record.trial));
          if (!difference.empty())
            contradiction("model " + model.name, fmt::format("in its trial {} on {}, {}", record.trial, dataset.name, difference));
        }
  }

  void check_runs() {
    for (const auto& dataset : plan_.datasets)
      for (const auto& model : plan_.models)
        for (int64_t seed : plan_.seeds) {
          const fs::path config = places_.run(dataset.name, model.name, seed) / "config.yaml";
          if (!fs::exists(config)) continue;
          const std::string difference = first_difference(load_run_config(config, {}), seed_run(dataset, model, seed));
          if (!difference.empty())
            contradiction("model " + model.name,
                          plan_.tune ? fmt::format("in {}, {} (the best of its trials). If trials were added or removed and another one is the best now, remove "
                                                   "{}, and it is trained again", config.parent_path().string(), difference,
                                                   config.parent_path().parent_path().string())
                                     : fmt::format("in {}, {}", config.parent_path().string(), difference));
        }
  }

  // --- Jobs ----------------------------------------------------------------------------------------------------------------------

  bool larger_is_better(const PlanDataset& dataset, const PlanModel& model) const {
    return metric_is_better_when_larger(run_config(plan_, model.config, dataset, places_.data(dataset), 0).train.early_stopping.metric);
  }

  // The settings of a trial, by the trials before it where those decide.
  YAML::Node settings(const PlanDataset& dataset, const PlanModel& model, int64_t trial) const {
    std::map<std::string, std::map<int64_t, std::optional<double>>> read;  // model -> trial -> value
    const auto values = [&](const PlanModel& of, int64_t number) -> std::optional<double> {
      if (!read.count(of.name)) {
        const double sign = larger_is_better(dataset, of) ? 1 : -1;
        for (const auto& record : read_trials(places_.trials(dataset.name, of.name)))
          read[of.name][record.trial] = record.selection ? std::optional(sign * *record.selection) : std::nullopt;
      }
      return read.at(of.name).at(number);
    };
    return trial_config(plan_, model, trial, dataset.name, values);
  }

  // A trial whose value the settings of `trial` depend on and that was not run; "" when there is none.
  std::string missing_before(const PlanDataset& dataset, const PlanModel& model, int64_t trial) const {
    if (plan_.tune->method == "random" || trial < plan_.tune->startup) return "";
    for (const auto* of : {&model, plan_.find_model(model.baseline)}) {
      if (!of) continue;
      std::set<int64_t> numbers;
      for (const auto& record : read_trials(places_.trials(dataset.name, of->name))) numbers.insert(record.trial);
      for (int64_t before = 0; before < trial; ++before)
        if (!numbers.count(before)) return fmt::format("trial {} of {}", before, of->name);
    }
    return "";
  }

  RunConfig trial_run(const PlanDataset& dataset, const PlanModel& model, int64_t trial) const {
    RunConfig config = run_config(plan_, settings(dataset, model, trial), dataset, places_.data(dataset), plan_.tune->seed);
    config.train.evaluate_test = false;
    return config;
  }

  RunConfig seed_run(const PlanDataset& dataset, const PlanModel& model, int64_t seed) const {
    YAML::Node config = model.config;
    if (plan_.tune) config = settings(dataset, model, winner(dataset, model).trial);
    RunConfig run = run_config(plan_, config, dataset, places_.data(dataset), seed);
    run.train.evaluate_test = true;
    return run;
  }

  TrialRecord winner(const PlanDataset& dataset, const PlanModel& model) const {
    auto trials = read_trials(places_.trials(dataset.name, model.name));
    std::erase_if(trials, [&](const TrialRecord& record) { return record.trial >= plan_.tune->trials; });
    const TrialRecord* best = best_trial(trials, larger_is_better(dataset, model));
    if (!best)
      fail(ErrorKind::Model, fmt::format("model {} on {}", model.name, dataset.name),
           "every trial broke off, the first with: {} Search lower learning rates.", trials.empty() ? "" : trials.front().failure);
    return *best;
  }

  void search() {
    // Random trials need nothing of each other. One of TPE needs all before it, of its model and of the baseline: a round each.
    const int64_t trials = plan_.tune->trials;
    int64_t first = 0, end = plan_.tune->method == "tpe" ? plan_.tune->startup : trials;
    begin_phase();
    for (; first < trials && !outcome_.interrupted; first = end++) execute(trial_jobs(first, end));
    if (outcome_.interrupted) return;
    for (const auto& dataset : plan_.datasets)
      for (const auto& model : plan_.models) {
        const TrialRecord best = winner(dataset, model);
        write_file_atomic(places_.trials(dataset.name, model.name) / "best.yaml",
                          fmt::format("# Trial {} of {}: {:.5f} on the validation split.\n{}\n", best.trial, plan_.tune->trials, *best.selection,
                                      to_text(settings(dataset, model, best.trial))));
      }
  }

  // Of the trials first .. end - 1 that are not recorded; of those before, every one must be.
  std::vector<Job> trial_jobs(int64_t first, int64_t end) {
    std::vector<Job> jobs;
    for (const auto& dataset : plan_.datasets)
      for (int64_t trial = first; trial < end; ++trial)
        for (const auto& model : plan_.models) {
          const fs::path folder = places_.trials(dataset.name, model.name);
          bool recorded = false;
          for (const auto& record : read_trials(folder)) recorded |= record.trial == trial;
          if (recorded) {
            ++outcome_.done;
            continue;
          }
          Job job{trial_run(dataset, model, trial),
                  folder / std::to_string(trial),
                  fmt::format("{} / {} / trial {}", dataset.name, model.name, trial),
                  {},
                  {}};
          TrialRecord record;
          record.trial = trial;
          record.config = run_config_text(job.config);
          const bool larger = metric_is_better_when_larger(job.config.train.early_stopping.metric);
          job.finish = [this, folder, run = job.folder, record, larger]() mutable {
            read_best(run, larger, record);
            add_trial(folder, record);
            drop_weights(run);
          };
          job.broke = [this, folder, run = job.folder, record](const std::string& failure) mutable {
            record.failure = failure;
            add_trial(folder, record);
            drop_weights(run);
          };
          jobs.push_back(std::move(job));
        }
    return jobs;
  }

  static void add_trial(const fs::path& folder, const TrialRecord& record) {
    auto trials = read_trials(folder);
    trials.push_back(record);
    std::sort(trials.begin(), trials.end(), [](const TrialRecord& a, const TrialRecord& b) { return a.trial < b.trial; });
    std::string text;
    for (const auto& trial : trials) {
      Json line = {{"trial", trial.trial}, {"selection", nullptr}, {"step", trial.step}, {"seconds", trial.seconds}, {"config", trial.config}};
      if (trial.selection) line["selection"] = *trial.selection;
      if (!trial.failure.empty()) line["failure"] = trial.failure;
      text += line.dump() + "\n";
    }
    make_directories(folder);
    write_file_atomic(folder / kTrialsFile, text);
  }

  // Of a trial its config, history and validation metrics remain.
  static void drop_weights(const fs::path& run) {
    for (const char* part : {"model.safetensors", "checkpoint.safetensors", "encoders", "tensorboard"}) fs::remove_all(run / part);
  }

  void train_seeds() {
    begin_phase();
    std::vector<Job> jobs;
    for (const auto& dataset : plan_.datasets)
      for (int64_t seed : plan_.seeds)
        for (const auto& model : plan_.models) {
          Job job{seed_run(dataset, model, seed),
                  places_.run(dataset.name, model.name, seed),
                  fmt::format("{} / {} / seed {}", dataset.name, model.name, seed),
                  {},
                  {}};
          job.finish = [run = job.folder, data = job.config.data] { write_predictions(run, data); };
          job.broke = [this, run = job.folder, broken = BrokenRun{dataset.name, model.name, "", seed}](const std::string& failure) mutable {
            write_file_atomic(run / kFailureFile, failure + "\n");
            broken.failure = failure;
            outcome_.broken.push_back(broken);
          };
          if (fs::exists(job.folder / kFailureFile)) {
            std::string failure = read_file(job.folder / kFailureFile);
            failure.erase(failure.find_last_not_of('\n') + 1);
            outcome_.broken.push_back({dataset.name, model.name, failure, seed});
            ++outcome_.done;
          } else if (was_trained(job) && has_predictions(job.folder))
            ++outcome_.done;
          else
            jobs.push_back(std::move(job));
        }
    execute(jobs);
  }

  // The time that is left is told by the jobs of the phase.
  void begin_phase() {
    start_ = std::chrono::steady_clock::now();
    finished_here_ = 0;
  }

  void execute(const std::vector<Job>& jobs) {
    if (plan_.parallel == 1)
      execute_here(jobs);
    else
      execute_beside(jobs);
  }

  void announce(const Job& job, int64_t number) {
    std::string left;
    if (finished_here_ > 0) {
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
      left = fmt::format("; about {} left",
                         duration(seconds / static_cast<double>(finished_here_) * static_cast<double>(outcome_.jobs - outcome_.done)));
    }
    log_info("[{}/{}] {}{}", number, outcome_.jobs, job.label, left);
  }

  void finished(const Job& job) {
    job.finish();
    ++outcome_.done;
    ++finished_here_;
  }

  void broke_off(const Job& job, const Error& error) {
    job.broke(error.what());
    ++outcome_.done;
    ++finished_here_;
  }

  static TrainOptions train_options(const Job& job) {
    TrainOptions options;
    options.run = job.folder;
    options.resume = fs::exists(job.folder / "checkpoint.safetensors");
    options.overwrite = !options.resume;
    return options;
  }

  void execute_here(const std::vector<Job>& jobs) {
    for (const auto& job : jobs) {
      if (interrupt_flag()) outcome_.interrupted = true;
      if (outcome_.interrupted) return;
      announce(job, outcome_.done + 1);
      if (!was_trained(job)) {
        try {
          Hush hush(!options_.verbose);
          if (train(job.config, train_options(job)).end == TrainEnd::Interrupted) {
            outcome_.interrupted = true;
            return;
          }
        } catch (const Error& error) {
          // NaN in a loss is a result; anything else is not.
          if (error.kind() != ErrorKind::Model) throw Error(error.kind(), job.label + ", " + error.where(), error.message());
          broke_off(job, error);
          continue;
        }
      }
      finished(job);
    }
  }

  // A training's own messages would hide the one line that says where the whole stands.
  struct Hush {
    explicit Hush(bool on) : before(quiet()) {
      if (on) set_quiet(true);
    }
    ~Hush() { set_quiet(before); }
    bool before;
  };

  // --- Programs beside each other ---------------------------------------------------------------------------------------------------

  struct Child {
    const Job* job;
    fs::path config, messages;
  };

  pid_t spawn(const Job& job, Child& child) const {
    const fs::path folder = options_.work / "running";
    make_directories(folder);
    const std::string name = checksum(job.folder.string());
    child = {&job, folder / (name + ".yaml"), folder / (name + ".log")};
    write_file_atomic(child.config, run_config_text(job.config));
    const TrainOptions options = train_options(job);
    std::vector<std::string> words = {options_.program.string(),
                                      "train",
                                      child.config.string(),
                                      "--output",
                                      job.folder.string(),
                                      "--quiet",
                                      options.resume ? "--resume" : "--overwrite"};
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, child.messages.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    // A group of its own: Ctrl-C reaches it once, from here. A second signal would end it without a checkpoint.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    pid_t pid = 0;
    const int error = posix_spawn(&pid, options_.program.c_str(), &actions, &attributes, arguments.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) fail(ErrorKind::Io, options_.program.string(), "cannot start the program: {}. Set `parallel: 1`, which needs none.", std::strerror(error));
    return pid;
  }

  void execute_beside(const std::vector<Job>& jobs) {
    // Whatever is thrown, no training goes on alone, with the lock of the folder.
    struct Running : std::map<pid_t, Child> {
      ~Running() {
        for (const auto& [pid, child] : *this) kill(pid, SIGINT);
        for (const auto& [pid, child] : *this) waitpid(pid, nullptr, 0);
      }
    } running;
    size_t next = 0;
    std::optional<Error> failure;
    bool told = false;
    while (true) {
      const bool stopping = interrupt_flag() || failure;
      if (stopping && !told) {
        for (const auto& [pid, child] : running) kill(pid, SIGINT);
        told = true;
      }
      while (!stopping && next < jobs.size() && running.size() < static_cast<size_t>(plan_.parallel)) {
        const Job& job = jobs[next++];
        announce(job, outcome_.done + static_cast<int64_t>(running.size()) + 1);
        if (was_trained(job)) {
          finished(job);
          continue;
        }
        Child child;
        const pid_t pid = spawn(job, child);
        running[pid] = child;
      }
      if (running.empty()) break;
      bool any = false;
      for (auto at = running.begin(); at != running.end();) {
        int status = 0;
        if (waitpid(at->first, &status, WNOHANG) != at->first) {
          ++at;
          continue;
        }
        any = true;
        const Child child = at->second;
        at = running.erase(at);
        try {
          child_ended(child, status);
        } catch (const Error& error) {
          if (!failure) failure = error;
        }
      }
      if (!any) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    std::error_code code;
    fs::remove_all(options_.work / "running", code);
    if (failure) throw *failure;
    outcome_.interrupted = interrupt_flag();
  }

  void child_ended(const Child& child, int status) {
    const Job& job = *child.job;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
      finished(job);
      return;
    }
    // Told to stop: by itself, or by the signal where it had not yet come to catch it.
    const bool by_signal = WIFSIGNALED(status) && (WTERMSIG(status) == SIGINT || WTERMSIG(status) == SIGTERM);
    if (interrupt_flag() && (by_signal || (WIFEXITED(status) && WEXITSTATUS(status) == 130))) return;
    std::string said = read_file(child.messages);
    said.erase(said.find_last_not_of('\n') + 1);
    if (said.rfind("ektm: ", 0) == 0) said.erase(0, 6);
    if (said.rfind("Model error", 0) == 0) {
      job.broke(said);
      ++outcome_.done;
      ++finished_here_;
      return;
    }
    if (WIFSIGNALED(status)) said = fmt::format("the training was ended by signal {} ({}), by lack of memory perhaps. Call the command again, with a lower "
                                                "`parallel`: it goes on from the last checkpoint.{}{}", WTERMSIG(status), strsignal(WTERMSIG(status)),
                                                said.empty() ? "" : " The last it said: ", said);
    throw Error(ErrorKind::Model, job.label, said);
  }

  const Plan& plan_;
  const RunnerOptions& options_;
  Places places_;
  Lock lock_;
  RunnerOutcome outcome_;
  std::set<fs::path> simulated_;  // logs that were written here
  Json records_ = Json::object();  // data.json: by data set, what it was made of
  std::map<std::string, Json> raw_files_;
  std::chrono::steady_clock::time_point start_;
  int64_t finished_here_ = 0;
};

}  // namespace

fs::path Places::run(const std::string& dataset, const std::string& model, int64_t seed) const {
  return work / "runs" / dataset / model / fmt::format("seed-{}", seed);
}

fs::path Places::trials(const std::string& dataset, const std::string& model) const { return work / "trials" / dataset / model; }

std::string Places::data(const PlanDataset& dataset) const { return dataset.data.empty() ? (work / "data" / dataset.name).string() : dataset.data; }

RunnerOutcome carry_out(const Plan& plan, const RunnerOptions& options) { return Runner(plan, options).run(); }

std::vector<TrialRecord> read_trials(const fs::path& folder) {
  std::vector<TrialRecord> trials;
  const fs::path file = folder / kTrialsFile;
  if (!fs::exists(file)) return trials;
  std::istringstream lines(read_file(file));
  for (std::string line; std::getline(lines, line);) {
    const Json json = parse_line(line, file);
    TrialRecord record;
    try {
      json.at("trial").get_to(record.trial);
      json.at("step").get_to(record.step);
      json.at("seconds").get_to(record.seconds);
      json.at("config").get_to(record.config);
      if (!json.at("selection").is_null()) record.selection = json["selection"].get<double>();
      record.failure = json.value("failure", "");
    } catch (const Json::exception& error) {
      fail(ErrorKind::Data, file.string(), "does not have the expected form: {}. Remove the file; its trials are then run again.", error.what());
    }
    trials.push_back(std::move(record));
  }
  return trials;
}

const TrialRecord* best_trial(const std::vector<TrialRecord>& trials, bool larger) {
  const TrialRecord* best = nullptr;
  for (const auto& trial : trials)
    if (trial.selection && (!best || (larger ? *trial.selection > *best->selection : *trial.selection < *best->selection))) best = &trial;
  return best;
}

std::vector<std::string> leave_out(const std::vector<BrokenRun>& broken, Plan& plan) {
  std::vector<std::string> said;
  std::set<std::string> out;
  for (const auto& run : broken) {
    out.insert(run.model);
    said.push_back(fmt::format("{} is left out: its run of seed {} on {} broke off. {}", run.model, run.seed, run.dataset, run.failure));
  }
  for (const auto& model : plan.models)
    if (!model.baseline.empty() && out.count(model.baseline) && !out.count(model.name))
      said.push_back(fmt::format("{} is left out with its baseline {}.", model.name, model.baseline));
  std::erase_if(plan.models, [&](const PlanModel& model) { return out.count(model.name) || out.count(model.baseline); });
  if (plan.models.empty()) fail(ErrorKind::Model, "the plan", "no model is left to compare. {}", said.front());
  return said;
}

std::vector<std::string> foreign_runs(const Plan& plan, const Places& places) {
  std::vector<std::string> known, found;
  for (const auto& dataset : plan.datasets)
    for (const auto& model : plan.models)
      for (int64_t seed : plan.seeds) known.push_back(places.run(dataset.name, model.name, seed).string());
  for (const auto& entry : fs::recursive_directory_iterator(places.work / "runs"))
    if (entry.path().filename() == "metrics.json") {
      const std::string run = entry.path().parent_path().string();
      if (std::find(known.begin(), known.end(), run) == known.end()) found.push_back(fs::relative(run, places.work).string());
    }
  std::sort(found.begin(), found.end());
  return found;
}

std::string mixed_programs(const Plan& plan, const Places& places) {
  std::map<std::string, int64_t> counts;
  const auto count = [&](const fs::path& run) {
    const fs::path file = run / "inspect.json";
    if (!fs::exists(file)) return;  // it broke off
    const Json json = Json::parse(read_file(file), nullptr, false);
    if (!json.is_object()) fail(ErrorKind::Data, file.string(), "is damaged: no JSON object. Remove the file; what a trial came to stands in {}.", kTrialsFile);
    ++counts[json.value("training", Json::object()).value("program", "one that left no version")];
  };
  for (const auto& dataset : plan.datasets)
    for (const auto& model : plan.models) {
      for (int64_t seed : plan.seeds) count(places.run(dataset.name, model.name, seed));
      for (int64_t trial = 0; plan.tune && trial < plan.tune->trials; ++trial) count(places.trials(dataset.name, model.name) / std::to_string(trial));
    }
  if (counts.size() < 2) return "";
  std::vector<std::string> parts;
  for (const auto& [program, number] : counts) parts.push_back(fmt::format("{} by {}", number, program));
  return fmt::format("The trainings in {} were made by {} programs whose sources differ ({}), so that the same config need not come to the same "
                     "numbers. To train older ones again, remove their runs/DATASET/MODEL/seed-N, and their trials/DATASET/MODEL.", places.work.string(), counts.size(), fmt::join(parts, ", "));
}

}  // namespace ektm
