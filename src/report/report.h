#pragma once
// Runs side by side: a table for the terminal, and one self-contained HTML file (inline SVG, no script, no network).
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "metrics/metrics.h"

namespace ektm {

// A line of history.jsonl; what the line lacks is absent.
struct HistoryPoint {
  int64_t step = 0;
  std::optional<double> epoch, seconds, samples_per_s;
  std::map<std::string, double> train_loss;                // "total" and one entry a term
  std::map<std::string, double> valid_auc, valid_logloss;  // by task
  std::optional<double> selection;                         // the metric that chooses the saved weights
};

struct ReportRun {
  std::string name;  // of the run folder
  EvaluationResult evaluation;
  nlohmann::json extra;  // inspect.json, null without: parameters, similarity, gates, expert_gates, training
  std::vector<HistoryPoint> history;
};

// Reads metrics.json and, where they exist, history.jsonl and inspect.json. Errors: Config when the folder or its metrics.json is
// missing (with the command that writes it), Data when a file does not have the expected form (with line and field).
ReportRun load_report_run(const std::filesystem::path& run);

struct ReportOptions {
  std::string title = "Model comparison";
  std::string intro;       // a paragraph below the title
  nlohmann::json dataset;  // facts about the data set, shown as a table; null: none
  std::string date;        // shown; "" = now
};

// Well-formed as XML too. 1 to about 8 runs and 2 to about 10 tasks fit well.
std::string render_report(const std::vector<ReportRun>& runs, const ReportOptions& options);

// Of that page the sections that look inside the runs, as HTML: base against served heads, who teaches whom, calibration, learning curves.
std::string render_inside(const std::vector<ReportRun>& runs);

// Task x model for the terminal: AUC with its interval, GAUC, LogLoss, PCOC of the served heads over all scenarios. The best AUC
// of a task is marked with *.
std::string comparison_table(const std::vector<ReportRun>& runs);

}  // namespace ektm
