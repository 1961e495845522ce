#pragma once
// The charts of the report, each one SVG panel with its own title and axes.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "metrics/metrics.h"
#include "report/svg.h"

namespace ektm {

struct ChartTitle {
  std::string title, note;  // note: small, below the title
};

// AUC with its interval, one line a run; the run's name stands in the line.
struct AucEntry {
  std::string label;
  RunStyle style;
  std::optional<double> auc;
  std::optional<Interval> interval;
  bool best = false;
};
std::string auc_chart(const ChartTitle& title, const std::vector<AucEntry>& entries);

// The same of any quantity, here a mean over runs: its interval as whiskers, each run's own value as a tick on the line.
struct MeanEntry {
  std::string label;
  RunStyle style;
  std::optional<double> mean;
  std::optional<Interval> interval;
  std::vector<double> values;
  bool best = false;
};
std::string mean_chart(const ChartTitle& title, const std::string& axis, const std::vector<MeanEntry>& entries);

// Differences against the line at 0, each with two intervals: the upper with a filled marker, the lower hollow and dashed; behind them a grey
// band over both.
struct DifferenceEntry {
  std::string label, verdict;
  RunStyle style;
  double difference = 0;
  std::optional<Interval> upper, lower, both;
};
std::string difference_chart(const ChartTitle& title, const std::string& axis, const std::vector<DifferenceEntry>& entries);

// Points with their names, x logarithmic where it spans more than a factor of 3; `interval`: of y.
struct ScatterPoint {
  std::string label;
  RunStyle style;
  double x = 0, y = 0;
  std::optional<Interval> interval;
};
std::string scatter_chart(const ChartTitle& title, const std::string& x_axis, const std::string& y_axis, const std::vector<ScatterPoint>& points);

// Curves over training steps, on axes that hold `of_axes` too. The point at `chosen_step` (the saved weights) is ringed.
struct Curve {
  RunStyle style;
  std::vector<std::pair<double, double>> points;  // (step, value)
  std::optional<int64_t> chosen_step;
};
std::string curve_chart(const ChartTitle& title, const std::vector<Curve>& curves, const std::vector<Curve>& of_axes);

// Mean prediction against observed rate with the diagonal, neighbouring bins joined in pairs, on axes that hold `of_axes` too; logarithmic where predictions span
// more than a factor of 20. Bins without a positive lie hollow on the lower edge then.
struct ReliabilityCurve {
  RunStyle style;
  std::vector<ReliabilityBin> bins;
};
std::string reliability_chart(const ChartTitle& title, const std::vector<ReliabilityCurve>& curves, const std::vector<ReliabilityCurve>& of_axes);

// Values in cells, shaded by size. matrix: [rows][columns].
struct LabelledMatrix {
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> values;
};
std::string heat_map(const ChartTitle& title, const LabelledMatrix& matrix, const std::string& row_axis,
                     const std::string& column_axis);

// Shares in [0, 1] as bars.
std::string share_chart(const ChartTitle& title, const std::vector<std::pair<std::string, double>>& shares,
                        const std::string& axis);

// A run's line and marker for a legend.
std::string legend_key(const RunStyle& style);

}  // namespace ektm
