#pragma once
// Carries a plan out in a folder: prepares raw data, searches, trains every seed. What is finished is kept, so it can be interrupted, killed
// and called again, with the same numbers in the end.
#include <filesystem>
#include <string>

#include "experiment/plan.h"

namespace ektm {

// Where things lie in WORK.
struct Places {
  std::filesystem::path work;
  std::filesystem::path run(const std::string& dataset, const std::string& model, int64_t seed) const;
  std::filesystem::path trials(const std::string& dataset, const std::string& model) const;  // trials.jsonl, and a folder a trial
  std::string data(const PlanDataset& dataset) const;
};

struct RunnerOptions {
  std::filesystem::path work;
  std::filesystem::path program;  // ektm itself, for runs beside each other
  bool verbose = false;           // what each training says too
};

// A run whose losses were not finite; the others of the plan went on.
struct BrokenRun {
  std::string dataset, model, failure;
  int64_t seed = 0;
};

struct RunnerOutcome {
  bool interrupted = false;
  int64_t done = 0, jobs = 0;  // trials and runs
  std::vector<BrokenRun> broken;
};

// Errors: Config when WORK holds results of another plan (names the key), or another process works there; what training throws.
RunnerOutcome carry_out(const Plan& plan, const RunnerOptions& options);

// A line of trials.jsonl.
struct TrialRecord {
  int64_t trial = 0, step = 0;
  std::optional<double> selection;  // the validation metric of its best step; absent for a trial that broke off
  double seconds = 0;
  std::string config, failure;  // config.yaml of the run; why it broke off
};
std::vector<TrialRecord> read_trials(const std::filesystem::path& folder);
// The best of them (the first of equal ones); null when every one broke off. `larger`: whether a larger metric is better.
const TrialRecord* best_trial(const std::vector<TrialRecord>& trials, bool larger);

// Takes the models of broken runs, and those whose baseline they are, out of the plan, for results of what is left; says each in a sentence.
// Error Model when nothing is left.
std::vector<std::string> leave_out(const std::vector<BrokenRun>& broken, Plan& plan);

// Runs below WORK/runs that are not of the plan.
std::vector<std::string> foreign_runs(const Plan& plan, const Places& places);

// A sentence where the plan's trials and runs were made by programs of different sources (program_version.h); else "".
std::string mixed_programs(const Plan& plan, const Places& places);

}  // namespace ektm
