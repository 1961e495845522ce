#pragma once
// Scores a split and measures it: click on all rows, each conversion where its label is observed, whole paths on all rows.
#include <functional>
#include <string>

#include "data/dataset.h"
#include "metrics/metrics.h"
#include "models/network.h"

namespace ektm {

struct EvaluationOptions {
  int64_t batch_rows = 4096;
  bool by_scenario = true;
  bool show_progress = true;
};

EvaluationResult evaluate_network(const Network& network, const Dataset& dataset, const std::string& model_name, const std::string& split,
                                  const EvaluationOptions& options);

// What model selection needs: AUC and LogLoss of the served heads where labels are observed.
struct ValidationResult {
  struct TaskValue {
    std::string task;
    int64_t rows = 0, positives = 0;
    std::optional<double> auc, logloss;
  };
  std::vector<TaskValue> tasks;
  // The named metric (EarlyStoppingConfig::metric). Error Config for an unknown name, Error Data when no task can be measured.
  double selection(const EarlyStoppingConfig& config, const std::vector<TaskInfo>& infos) const;
};
bool metric_is_better_when_larger(const std::string& metric);
// Fills Model::head_choice(), if the model has one: a task serves its base head where that has the higher AUC on `dataset`. What is measured is what is
// then served.
ValidationResult validate_network(Network& network, const Dataset& dataset, int64_t batch_rows);

// inspect.json: {"parameters": [{"part", "count"}], "tables": [...], "similarity": {"tasks", "matrix"}, "gates": {task: value}, "heads": {task: head},
// "expert_gates": {"tasks", "matrix"}}; the averages run over `dataset` (at most `max_rows` rows).
nlohmann::json inspect_network(const Network& network, const Dataset& dataset, int64_t max_rows);

}  // namespace ektm
