#pragma once
// What the runs of a plan say, as numbers: metrics over seeds, and paired differences with two kinds of intervals.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "experiment/plan.h"
#include "experiment/runner.h"
#include "experiment/statistics.h"
#include "report/report.h"

namespace ektm {

// One probability that is measured, of the served heads.
struct MeasuredTask {
  std::string task, quantity, rows_covered;  // as in TaskResult
  int64_t rows = 0, positives = 0;
  bool counted = false;  // enough positives for comparisons; never whole paths
  bool in_mean = false;  // counted, and a conversion where there is one
};

struct MetricKind {
  const char *key, *title, *note;
  std::optional<double> BinaryMetrics::* member;
  double (*goodness)(double);  // larger is better
};
const std::vector<MetricKind>& metric_kinds();  // auc, gauc, logloss, pcoc, ece

using SeedValues = std::vector<std::optional<double>>;  // one a seed of the plan
std::optional<MeanStd> over(const SeedValues& values);  // of those present

struct ModelCost {
  int64_t parameters = 0, embedding_parameters = 0;
  double samples_per_s = 0, seconds = 0, steps = 0;  // medians over the seeds
};

struct ModelResults {
  std::string name, baseline;
  std::map<std::string, std::vector<SeedValues>> metrics;  // by MetricKind::key; one entry a measured task
  std::map<std::string, SeedValues> mean;                  // "auc", "gauc" over the tasks that are in the mean
  std::optional<std::vector<double>> head_gains;           // EKTM: mean AUC of the served less the base heads, by seed
  ModelCost cost;
  std::vector<ReportRun> runs;      // by seed
  std::vector<TrialRecord> trials;  // of the plan's search
  std::optional<int64_t> best_trial;
};

// AUC of `model` less AUC of `reference`, mean over the seeds.
struct Comparison {
  enum class Verdict { Better, Worse, Tie, Undecided };
  std::string model, reference;
  std::string task;                   // "" = the mean of the tasks
  bool stated = false, best = false;  // the reference is the plan's baseline of the model; the best baseline of the table
  double difference = 0;
  std::vector<double> by_seed;
  // Absent with one seed; absent where fewer than two groups of rows hold a class; absent without one of these.
  std::optional<Estimate> seeds, rows, both;
  std::optional<double> holm;  // p-value of `both`, adjusted for `family` comparisons
  int64_t family = 0;
  Verdict verdict = Verdict::Undecided;
};
const char* to_string(Comparison::Verdict verdict);

struct DatasetResults {
  std::string name, cut_of;  // cut_of: see PlanDataset
  std::vector<int64_t> seeds;
  std::vector<MeasuredTask> tasks;
  std::vector<ModelResults> models;
  std::vector<Comparison> comparisons;  // of the mean, then task by task
  std::string best_baseline;            // by mean AUC; "" when no task counts
  int64_t test_rows = 0, clusters = 0;
  bool grouped = false;  // the clusters are the values of the schema's `group`
  int64_t min_positives = 0;
  std::string search;  // "Random search"; of the plan's tune section

  std::string mean_title() const;  // "mean of like, pay"
  const ModelResults& model(const std::string& name) const;
};

// The rolling cuts of a data set, put together: means over the cuts, each of which counts alike.
struct RollingResults {
  std::string name;
  std::vector<const DatasetResults*> cuts;
  std::string best_baseline;  // by the mean over the cuts; "" when in some cut no task counts
  // Of the mean AUC. by_seed: of each seed the mean over the cuts; `rows`: over the cuts (Student's), not over rows.
  std::vector<Comparison> comparisons;
  std::vector<std::vector<double>> by_cut;  // of each comparison, mean over the seeds
};
// `all` must outlive them.
std::vector<RollingResults> rolling_results(const std::vector<DatasetResults>& all);

// A plan that was carried out, with what its reader must know.
struct PlanResults {
  const Plan* plan;
  std::vector<DatasetResults> datasets;
  std::vector<std::string> warnings;
};

// Reads every run of the plan, which must be finished.
std::vector<DatasetResults> collect_results(const Plan& plan, const Places& places);

// Fills both, holm, family and verdict of comparisons that belong together: a difference is called real where the p-value for seeds and rows
// together stays below 5 % after Holm's correction for the number of comparisons. Then each of the three intervals excludes 0.
void judge(std::vector<Comparison*> family);

}  // namespace ektm
