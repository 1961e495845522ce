#pragma once
// Metrics of binary tasks: exact, mergeable over chunks, checked against brute force.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace ektm {

struct Interval {
  double low = 0, high = 0;
};

struct ReliabilityBin {
  double mean_prediction = 0, positive_rate = 0;
  int64_t rows = 0;
};

struct BinaryMetrics {
  int64_t rows = 0, positives = 0;
  // Absent where the rows do not allow it (no positive or no negative: AUC; fewer than two of either: its interval; no positive:
  // PCOC; no group column, or no group with both classes: GAUC; no rows: all).
  std::optional<double> auc;                // ties count 1/2 (Mann-Whitney)
  std::optional<Interval> auc_95;           // DeLong et al. 1988 (fast version of Sun & Xu 2014), clipped to [0,1]
  std::optional<double> gauc;               // mean of the groups' AUC, weighted by the groups' rows
  int64_t groups = 0, groups_left_out = 0;  // all groups; of these left out: groups without both classes
  std::optional<double> logloss;            // mean, natural logarithm; predictions clipped to [1e-7, 1-1e-7]
  std::optional<double> pcoc;               // sum of predictions / number of positives ("predicted click over click")
  // Expected calibration error, 20 bins of equal rows (to within one row; fewer than 20 rows: a bin a row). Equal predictions
  // share their positives evenly, so that the order of ties has no influence.
  std::optional<double> ece;
  std::vector<ReliabilityBin> reliability;  // the same bins
};

// Collects (prediction, label, group) of the rows where a label is observed; exact results whatever the order or chunking.
class BinaryAccumulator {
 public:
  // group: hash of the group column, ignored when has_group is false. Error Model when the prediction is NaN or outside [0,1].
  void add(float prediction, uint8_t label, uint64_t group = 0);
  void merge(const BinaryAccumulator& other);
  BinaryMetrics compute(bool with_groups) const;
  // AUC and LogLoss alone (cheap, for validation while training), the same bits as compute() gives.
  std::optional<double> auc() const;
  std::optional<double> logloss() const;
  int64_t rows() const { return static_cast<int64_t>(predictions_.size()); }
  const std::vector<float>& predictions() const { return predictions_; }
  const std::vector<uint8_t>& labels() const { return labels_; }

 private:
  std::vector<float> predictions_;
  std::vector<uint8_t> labels_;
  std::vector<uint64_t> groups_;  // empty while every group is 0
};

nlohmann::json to_json(const BinaryMetrics& metrics);                // absent values are null
BinaryMetrics binary_metrics_from_json(const nlohmann::json& json);  // Error Data names the field that is missing or ill-typed

// What `ektm evaluate --json` writes, `metrics.json` holds and report.html draws. Rows of the table:
struct TaskResult {
  std::string task;          // "click", "pay"
  std::string rows_covered;  // "all rows" | "rows where click = 1" | ...
  std::string quantity;      // "ctr" (roots) | "cvr" (where observed) | "ctcvr" (all rows, product along the chain)
  std::string head;          // "served" | "base" (EKTM's base head)
  std::string scenario;      // "" = overall
  BinaryMetrics metrics;
};
struct EvaluationResult {
  std::string model;  // as shown to people, e.g. "ektm(mmoe)"
  std::string split;
  std::vector<TaskResult> results;
  // {"model", "split", "results": [{"task", "rows_covered", "quantity", "head", "scenario", "rows", "auc", ... as of
  // BinaryMetrics}]}
  nlohmann::json to_json() const;
  static EvaluationResult from_json(const nlohmann::json& json);
  // An aligned table for the terminal: task, quantity, head, rows, positives, AUC with interval, GAUC, LogLoss, PCOC, ECE;
  // overall first, then each scenario.
  std::string to_text() const;
};

}  // namespace ektm
