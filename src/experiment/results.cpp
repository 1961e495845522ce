#include "experiment/results.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/interrupt.h"
#include "experiment/predictions.h"
#include "models/evaluation.h"

namespace ektm {
namespace {

constexpr double kLevel = 0.05;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n == 0 ? 0 : n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

const BinaryMetrics* find_metrics(const ReportRun& run, const MeasuredTask& task, const std::string& head) {
  for (const auto& result : run.evaluation.results)
    if (result.task == task.task && result.quantity == task.quantity && result.head == head && result.scenario.empty()) return &result.metrics;
  return nullptr;
}

std::vector<MeasuredTask> measured_tasks(const ReportRun& run, int64_t min_positives) {
  std::vector<MeasuredTask> tasks;
  for (const auto& result : run.evaluation.results) {
    if (result.head != "served" || !result.scenario.empty()) continue;
    const auto& m = result.metrics;
    tasks.push_back({result.task, result.quantity, result.rows_covered, m.rows, m.positives,
                     result.quantity != "ctcvr" && m.positives >= min_positives && m.auc.has_value(), false});
  }
  const bool conversions = std::any_of(tasks.begin(), tasks.end(), [](const MeasuredTask& t) { return t.counted && t.quantity == "cvr"; });
  for (auto& task : tasks) task.in_mean = task.counted && (!conversions || task.quantity == "cvr");
  return tasks;
}

SeedValues mean_of_tasks(const std::vector<MeasuredTask>& tasks, const std::vector<SeedValues>& values, size_t seeds) {
  SeedValues mean(seeds);
  for (size_t s = 0; s < seeds; ++s) {
    double sum = 0;
    int64_t used = 0;
    bool whole = true;
    for (size_t t = 0; t < tasks.size(); ++t) {
      if (!tasks[t].in_mean) continue;
      whole &= values[t][s].has_value();
      sum += values[t][s].value_or(0);
      ++used;
    }
    if (whole && used > 0) mean[s] = sum / static_cast<double>(used);
  }
  return mean;
}

std::optional<std::vector<double>> head_gains(const std::vector<ReportRun>& runs, const std::vector<MeasuredTask>& tasks) {
  std::vector<double> gains;
  for (const auto& run : runs) {
    double sum = 0;
    int64_t used = 0;
    for (const auto& task : tasks) {
      if (!task.in_mean) continue;
      const BinaryMetrics *served = find_metrics(run, task, "served"), *base = find_metrics(run, task, "base");
      if (!served || !base || !served->auc || !base->auc) return std::nullopt;
      sum += *served->auc - *base->auc;
      ++used;
    }
    if (used == 0) return std::nullopt;
    gains.push_back(sum / static_cast<double>(used));
  }
  return gains;
}

ModelCost cost_of(const std::vector<ReportRun>& runs) {
  ModelCost cost;
  std::vector<double> speeds, seconds, steps;
  for (const auto& run : runs) {
    const auto& training = run.extra.at("training");
    speeds.push_back(training.at("samples_per_s").get<double>());
    seconds.push_back(training.at("seconds").get<double>());
    steps.push_back(training.at("steps").get<double>());
  }
  for (const auto& part : runs.front().extra.at("parameters")) {
    const int64_t count = part.at("count").get<int64_t>();
    cost.parameters += count;
    if (part.at("part") == "embedding") cost.embedding_parameters += count;
  }
  cost.samples_per_s = median(speeds);
  cost.seconds = median(seconds);
  cost.steps = median(steps);
  return cost;
}

ModelResults read_model(const Plan& plan, const Places& places, const PlanDataset& dataset, const PlanModel& model, DatasetResults& results) {
  ModelResults read;
  read.name = model.name;
  read.baseline = model.baseline;
  for (int64_t seed : plan.seeds) {
    read.runs.push_back(load_report_run(places.run(dataset.name, model.name, seed)));
    read.runs.back().name = model.name;
    read.runs.back().evaluation.model = model.name;
  }
  if (results.tasks.empty()) results.tasks = measured_tasks(read.runs.front(), plan.min_positives);
  for (const auto& kind : metric_kinds()) {
    auto& by_task = read.metrics[kind.key];
    for (const auto& task : results.tasks) {
      by_task.emplace_back();
      for (const auto& run : read.runs) {
        const BinaryMetrics* metrics = find_metrics(run, task, "served");
        by_task.back().push_back(metrics ? metrics->*kind.member : std::nullopt);
      }
    }
  }
  for (const char* key : {"auc", "gauc"}) read.mean[key] = mean_of_tasks(results.tasks, read.metrics[key], plan.seeds.size());
  read.head_gains = head_gains(read.runs, results.tasks);
  read.cost = cost_of(read.runs);
  if (plan.tune) {
    read.trials = read_trials(places.trials(dataset.name, model.name));
    std::erase_if(read.trials, [&](const TrialRecord& record) { return record.trial >= plan.tune->trials; });
    const std::string metric = run_config(plan, model.config, dataset, "data", 0).train.early_stopping.metric;
    if (const TrialRecord* best = best_trial(read.trials, metric_is_better_when_larger(metric))) read.best_trial = best->trial;
  }
  return read;
}

// [task of the results] -> the mean over the seeds of the influence of each cluster; empty for tasks that do not count. The last entry is
// that of the mean over the tasks.
using Influences = std::vector<std::optional<std::vector<double>>>;

Influences influences_of(const Plan& plan, const Places& places, const PlanDataset& dataset, const std::string& model, const DatasetResults& results,
                         const TestRows& rows) {
  Influences sums(results.tasks.size() + 1);
  const size_t count = rows.tasks.size();
  const double share = 1.0 / static_cast<double>(plan.seeds.size());
  for (int64_t seed : plan.seeds) {
    stop_if_interrupted();
    const auto run = places.run(dataset.name, model, seed);
    const at::Tensor scores = read_predictions(run);
    if (scores.size(0) != static_cast<int64_t>(count) || scores.size(1) != rows.rows)
      fail(ErrorKind::Data, (run / "predictions.safetensors").string(),
           "holds [{}, {}] scores, the test split of {} needs [{}, {}]. Remove the file.", scores.size(0), scores.size(1), places.data(dataset),
           count, rows.rows);
    for (size_t r = 0; r < results.tasks.size(); ++r) {
      if (!results.tasks[r].counted) continue;
      const auto task = std::find_if(rows.tasks.begin(), rows.tasks.end(), [&](const TaskInfo& info) { return info.name == results.tasks[r].task; });
      const size_t t = static_cast<size_t>(task - rows.tasks.begin());
      const float* score = scores.const_data_ptr<float>() + static_cast<int64_t>(t) * rows.rows;
      std::vector<float> observed_scores;
      std::vector<uint8_t> labels;
      std::vector<int64_t> cluster;
      for (int64_t b = 0; b < rows.rows; ++b) {
        const size_t at = static_cast<size_t>(b) * count + t;
        if (!rows.observed[at]) continue;
        observed_scores.push_back(score[b]);
        labels.push_back(rows.labels[at]);
        cluster.push_back(rows.cluster[static_cast<size_t>(b)]);
      }
      const auto influence = auc_influence(observed_scores, labels, cluster, rows.clusters);
      if (!influence) continue;
      if (!sums[r]) sums[r].emplace(static_cast<size_t>(rows.clusters), 0.0);
      for (size_t c = 0; c < influence->by_cluster.size(); ++c) (*sums[r])[c] += share * influence->by_cluster[c];
    }
  }
  std::vector<double> mean(static_cast<size_t>(rows.clusters), 0.0);
  const double tasks =
      static_cast<double>(std::count_if(results.tasks.begin(), results.tasks.end(), [](const MeasuredTask& t) { return t.in_mean; }));
  for (size_t r = 0; r < results.tasks.size(); ++r) {
    if (!results.tasks[r].in_mean) continue;
    if (!sums[r]) return sums;  // no interval of the mean without one of each task
    for (size_t c = 0; c < mean.size(); ++c) mean[c] += (*sums[r])[c] / tasks;
  }
  sums.back() = std::move(mean);
  return sums;
}

std::optional<double> variance_of_difference(const std::optional<std::vector<double>>& a, const std::optional<std::vector<double>>& b) {
  if (!a || !b) return std::nullopt;
  double sum = 0;
  for (size_t c = 0; c < a->size(); ++c) sum += ((*a)[c] - (*b)[c]) * ((*a)[c] - (*b)[c]);
  return sum;
}

void compare(const Plan& plan, const Places& places, const PlanDataset& dataset, DatasetResults& results) {
  const std::string& best = results.best_baseline;
  const TestRows rows = read_test_rows(places.data(dataset));
  results.test_rows = rows.rows;
  results.clusters = rows.clusters;
  results.grouped = rows.grouped;
  if (best.empty()) return;
  std::map<std::string, Influences> influences;
  for (const auto& model : results.models) influences[model.name] = influences_of(plan, places, dataset, model.name, results, rows);
  // `at`: a task, or behind the last one their mean.
  auto add = [&](const ModelResults& model, const std::string& reference, size_t at) {
    const ModelResults& other = results.model(reference);
    const bool mean = at == results.tasks.size();
    const SeedValues &a = mean ? model.mean.at("auc") : model.metrics.at("auc")[at], &b = mean ? other.mean.at("auc") : other.metrics.at("auc")[at];
    Comparison comparison;
    comparison.model = model.name;
    comparison.reference = reference;
    comparison.task = mean ? "" : results.tasks[at].task;
    comparison.stated = reference == model.baseline;
    comparison.best = reference == best;
    for (size_t s = 0; s < a.size(); ++s) comparison.by_seed.push_back(a[s].value() - b[s].value());
    comparison.difference = mean_std(comparison.by_seed).mean;
    comparison.seeds = over_seeds(comparison.by_seed);
    if (const auto variance = variance_of_difference(influences[model.name][at], influences[reference][at]))
      comparison.rows = over_rows(comparison.difference, *variance);
    results.comparisons.push_back(std::move(comparison));
  };
  for (const auto& model : results.models) {
    if (!model.baseline.empty()) add(model, model.baseline, results.tasks.size());
    if (model.name != best && model.baseline != best) add(model, best, results.tasks.size());
  }
  for (size_t t = 0; t < results.tasks.size(); ++t)
    for (const auto& model : results.models)
      if (results.tasks[t].counted && !model.baseline.empty()) add(model, model.baseline, t);
  std::vector<Comparison*> of_mean, of_tasks;
  for (auto& comparison : results.comparisons) (comparison.task.empty() ? of_mean : of_tasks).push_back(&comparison);
  judge(of_mean);
  judge(of_tasks);
}

}  // namespace

const std::vector<MetricKind>& metric_kinds() {
  static const std::vector<MetricKind> kinds = {
      {"auc", "AUC", "The share of pairs of a positive and a negative row in the right order; higher is better.", &BinaryMetrics::auc,
       [](double v) { return v; }},
      {"gauc", "GAUC", "AUC within a group, averaged with the groups' rows as weights; higher is better.", &BinaryMetrics::gauc,
       [](double v) { return v; }},
      {"logloss", "LogLoss", "Mean negative log-likelihood; lower is better.", &BinaryMetrics::logloss, [](double v) { return -v; }},
      {"pcoc", "PCOC", "Sum of predictions over number of positives; 1 is calibrated on average.", &BinaryMetrics::pcoc,
       [](double v) { return v > 0 ? -std::abs(std::log(v)) : -1e300; }},
      {"ece", "ECE", "Expected calibration error over 20 bins of equal size; lower is better.", &BinaryMetrics::ece, [](double v) { return -v; }},
  };
  return kinds;
}

std::optional<MeanStd> over(const SeedValues& values) {
  std::vector<double> present;
  for (const auto& value : values)
    if (value) present.push_back(*value);
  if (present.empty()) return std::nullopt;
  return mean_std(present);
}

const char* to_string(Comparison::Verdict verdict) {
  switch (verdict) {
    case Comparison::Verdict::Better:
      return "better";
    case Comparison::Verdict::Worse:
      return "worse";
    case Comparison::Verdict::Tie:
      return "tie";
    case Comparison::Verdict::Undecided:
      return "undecided";
  }
  return "";
}

std::string DatasetResults::mean_title() const {
  std::vector<std::string> names;
  for (const auto& task : tasks)
    if (task.in_mean) names.push_back(task.task);
  return fmt::format("mean of {}", fmt::join(names, ", "));
}

const ModelResults& DatasetResults::model(const std::string& wanted) const {
  const auto found = std::find_if(models.begin(), models.end(), [&](const ModelResults& m) { return m.name == wanted; });
  EKTM_CHECK(found != models.end());
  return *found;
}

void judge(std::vector<Comparison*> family) {
  std::vector<Comparison*> judged;
  std::vector<double> p;
  for (Comparison* c : family) {
    if (!c->seeds || !c->rows) continue;
    c->both = over_both(*c->seeds, *c->rows);
    judged.push_back(c), p.push_back(c->both->p);
  }
  const auto adjusted = holm(p);
  for (Comparison* c : family) c->family = static_cast<int64_t>(judged.size());
  for (size_t i = 0; i < judged.size(); ++i) {
    Comparison& c = *judged[i];
    c.holm = adjusted[i];
    c.verdict = adjusted[i] >= kLevel ? Comparison::Verdict::Tie : c.difference > 0 ? Comparison::Verdict::Better : Comparison::Verdict::Worse;
  }
}

std::vector<RollingResults> rolling_results(const std::vector<DatasetResults>& all) {
  std::vector<RollingResults> rolling;
  for (const auto& results : all) {
    if (results.cut_of.empty()) continue;
    if (rolling.empty() || rolling.back().name != results.cut_of) rolling.push_back({results.cut_of, {}, {}, {}, {}});
    rolling.back().cuts.push_back(&results);
  }
  for (auto& set : rolling) {
    if (std::any_of(set.cuts.begin(), set.cuts.end(), [](const DatasetResults* cut) { return cut->best_baseline.empty(); })) continue;
    const double count = static_cast<double>(set.cuts.size());
    double highest = 0;
    for (const auto& model : set.cuts.front()->models) {
      if (!model.baseline.empty()) continue;
      double mean = 0;
      for (const auto* cut : set.cuts) mean += over(cut->model(model.name).mean.at("auc"))->mean / count;
      if (set.best_baseline.empty() || mean > highest) highest = mean, set.best_baseline = model.name;
    }
    auto add = [&](const ModelResults& model, const std::string& reference) {
      Comparison comparison;
      comparison.model = model.name;
      comparison.reference = reference;
      comparison.stated = reference == model.baseline;
      comparison.best = reference == set.best_baseline;
      comparison.by_seed.assign(set.cuts.front()->seeds.size(), 0);
      std::vector<double> by_cut;
      for (const auto* cut : set.cuts) {
        const SeedValues &a = cut->model(model.name).mean.at("auc"), &b = cut->model(reference).mean.at("auc");
        std::vector<double> differences;
        for (size_t s = 0; s < a.size(); ++s) differences.push_back(a[s].value() - b[s].value());
        for (size_t s = 0; s < a.size(); ++s) comparison.by_seed[s] += differences[s] / count;
        by_cut.push_back(mean_std(differences).mean);
      }
      comparison.difference = mean_std(by_cut).mean;
      comparison.seeds = over_seeds(comparison.by_seed);
      comparison.rows = over_seeds(by_cut);
      set.comparisons.push_back(std::move(comparison));
      set.by_cut.push_back(std::move(by_cut));
    };
    for (const auto& model : set.cuts.front()->models) {
      if (!model.baseline.empty()) add(model, model.baseline);
      if (model.name != set.best_baseline && model.baseline != set.best_baseline) add(model, set.best_baseline);
    }
    std::vector<Comparison*> family;
    for (auto& comparison : set.comparisons) family.push_back(&comparison);
    judge(family);
  }
  return rolling;
}

std::vector<DatasetResults> collect_results(const Plan& plan, const Places& places) {
  std::vector<DatasetResults> all;
  for (const auto& dataset : plan.datasets) {
    DatasetResults results;
    results.name = dataset.name;
    results.cut_of = dataset.cut_of;
    results.seeds = plan.seeds;
    results.min_positives = plan.min_positives;
    if (plan.tune)
      results.search = plan.tune->method == "tpe" ? fmt::format("TPE, after {} random trials,", plan.tune->startup) : std::string("Random search");
    for (const auto& model : plan.models) results.models.push_back(read_model(plan, places, dataset, model, results));
    std::optional<double> highest;
    for (const auto& model : results.models)
      if (const auto mean = over(model.mean.at("auc")); mean && model.baseline.empty() && (!highest || mean->mean > *highest)) {
        highest = mean->mean;
        results.best_baseline = model.name;
      }
    compare(plan, places, dataset, results);
    all.push_back(std::move(results));
  }
  return all;
}

}  // namespace ektm
