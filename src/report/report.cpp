#include "report/report.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "metrics/text_table.h"
#include "report/charts.h"
#include "report/page.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// --- Reading a run folder ---------------------------------------------------------------------------------------------------

Json parse_json(const std::string& text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    fail(ErrorKind::Data, where, "is no JSON: {}. Write the file again.", error.what());
  }
}

std::optional<double> optional_number(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return std::nullopt;
  return found->get<double>();
}

std::map<std::string, double> numbers(const Json& json, const char* key) {
  std::map<std::string, double> result;
  const auto found = json.find(key);
  if (found == json.end()) return result;
  for (const auto& [name, value] : found->get<Json::object_t>())
    if (!value.is_null()) result[name] = value.get<double>();
  return result;
}

HistoryPoint history_point(const Json& json) {
  HistoryPoint point;
  point.step = json.at("step").get<int64_t>();
  point.epoch = optional_number(json, "epoch");
  point.seconds = optional_number(json, "seconds");
  point.samples_per_s = optional_number(json, "samples_per_s");
  point.train_loss = numbers(json, "train_loss");
  const Json valid = json.value("valid", Json::object());
  point.valid_auc = numbers(valid, "auc");
  point.valid_logloss = numbers(valid, "logloss");
  point.selection = optional_number(valid, "selection");
  return point;
}

// What inspect.json says, typed.
struct Inspection {
  std::optional<int64_t> embedding_parameters, network_parameters;
  std::optional<LabelledMatrix> similarity, mix, expert_gates;
  std::vector<std::pair<std::string, double>> gates;
  std::optional<double> seconds, samples_per_s, steps, best_step, threads;
};

std::optional<LabelledMatrix> labelled_matrix(const Json& json, const char* key) {
  if (!json.contains(key)) return std::nullopt;
  LabelledMatrix matrix;
  json.at(key).at("tasks").get_to(matrix.rows);
  json.at(key).at("matrix").get_to(matrix.values);
  const size_t width = matrix.values.empty() ? 0 : matrix.values[0].size();
  const bool whole =
      matrix.values.size() == matrix.rows.size() &&
      std::all_of(matrix.values.begin(), matrix.values.end(), [&](const auto& row) { return row.size() == width; });
  if (!whole) fail(ErrorKind::Data, key, "the matrix does not have a row of equal length for each task");
  if (width == 0) return std::nullopt;
  return matrix;
}

Inspection inspection_of(const Json& json) {
  Inspection result;
  if (json.is_null()) return result;
  if (json.contains("parameters")) {
    result.embedding_parameters = result.network_parameters = 0;
    for (const auto& part : json.at("parameters"))
      *(part.at("part") == "embedding" ? result.embedding_parameters : result.network_parameters) +=
          part.at("count").get<int64_t>();
  }
  result.similarity = labelled_matrix(json, "similarity");
  if (result.similarity) {
    result.similarity->columns = result.similarity->rows;
    if (result.similarity->values[0].size() != result.similarity->rows.size())
      fail(ErrorKind::Data, "similarity", "the matrix is not square");
  }
  result.mix = labelled_matrix(json, "mix");
  if (result.mix) {
    json.at("mix").at("columns").get_to(result.mix->columns);
    if (result.mix->columns.size() != result.mix->values[0].size()) fail(ErrorKind::Data, "mix", "the matrix does not have a column for each task");
  }
  result.expert_gates = labelled_matrix(json, "expert_gates");
  if (result.expert_gates)
    for (size_t e = 0; e < result.expert_gates->values[0].size(); ++e)
      result.expert_gates->columns.push_back(fmt::format("e{}", e));
  auto gates = numbers(json, "gates");
  if (result.similarity)  // the order of the tasks, which JSON objects lose
    for (const auto& task : result.similarity->rows)
      if (const auto gate = gates.extract(task)) result.gates.emplace_back(task, gate.mapped());
  result.gates.insert(result.gates.end(), gates.begin(), gates.end());
  if (json.contains("training")) {
    const Json& training = json.at("training");
    result.seconds = optional_number(training, "seconds");
    result.samples_per_s = optional_number(training, "samples_per_s");
    result.steps = optional_number(training, "steps");
    result.best_step = optional_number(training, "best_step");
    result.threads = optional_number(training, "threads");
  }
  return result;
}

// Runs `read` and turns what it finds wrong into an error that names the file.
template <class Read>
void reading(const std::string& where, const char* remedy, Read read) {
  try {
    read();
  } catch (const Json::exception& error) {
    fail(ErrorKind::Data, where, "does not have the expected form: {}. {}", error.what(), remedy);
  } catch (const Error& error) {
    fail(error.kind(), where, "{}: {}. {}", error.where(), error.message(), remedy);
  }
}

// --- What all tables and charts share ---------------------------------------------------------------------------------------

// One thing that is measured: a task's probability on the rows that it covers.
struct Measure {
  std::string task, quantity, rows_covered;
  std::string title() const { return quantity == "ctcvr" ? task + " (whole path)" : task; }
};

// A run, ready to be shown.
struct Shown {
  const ReportRun* run;
  std::string label;  // unique among the runs
  RunStyle style;
  Inspection inspection;

  const BinaryMetrics* find(const Measure& measure, const std::string& head = "served", const std::string& scenario = "") const {
    for (const auto& result : run->evaluation.results)
      if (result.task == measure.task && result.quantity == measure.quantity && result.head == head &&
          result.scenario == scenario)
        return &result.metrics;
    return nullptr;
  }
};

// The model where it tells the runs apart, else the run's name.
std::vector<std::string> run_labels(const std::vector<ReportRun>& runs) {
  std::vector<std::string> labels;
  std::set<std::string> models;
  for (const auto& run : runs) models.insert(run.evaluation.model);
  std::map<std::string, int> uses;
  for (const auto& run : runs) {
    std::string label = models.size() == runs.size() ? run.evaluation.model : run.name;
    const int use = ++uses[label];
    labels.push_back(use == 1 ? label : fmt::format("{} #{}", label, use));
  }
  return labels;
}

std::vector<Shown> shown_runs(const std::vector<ReportRun>& runs) {
  const auto labels = run_labels(runs);
  std::vector<Shown> result;
  for (size_t r = 0; r < runs.size(); ++r) result.push_back({&runs[r], labels[r], RunStyle(r), inspection_of(runs[r].extra)});
  return result;
}

// Of the served heads, in the order in which the runs name them.
std::vector<Measure> measures_of(const std::vector<Shown>& runs) {
  std::vector<Measure> measures;
  for (const auto& shown : runs)
    for (const auto& result : shown.run->evaluation.results) {
      if (result.head != "served") continue;
      const bool known = std::any_of(measures.begin(), measures.end(),
                                     [&](const Measure& m) { return m.task == result.task && m.quantity == result.quantity; });
      if (!known) measures.push_back({result.task, result.quantity, result.rows_covered});
    }
  return measures;
}

using Values = std::vector<std::optional<double>>;

// True for the values (all equal ones) with the highest score; all false where fewer than two runs have a value.
std::vector<bool> best_of(const Values& values, const std::function<double(double)>& score) {
  std::vector<bool> best(values.size(), false);
  std::optional<double> highest;
  size_t present = 0;
  for (const auto& value : values)
    if (value) ++present, highest = std::max(highest.value_or(score(*value)), score(*value));
  if (present < 2) return best;
  for (size_t i = 0; i < values.size(); ++i) best[i] = values[i] && score(*values[i]) == *highest;
  return best;
}

double higher(double value) {
  return value;
}
double lower(double value) {
  return -value;
}
double nearer_to_one(double value) {
  return value > 0 ? -std::abs(std::log(value)) : -1e300;
}

// One number of each run for a measure; absent where the run lacks it.
Values values_of(const std::vector<Shown>& runs, const Measure& measure, std::optional<double> BinaryMetrics::*member,
                 const std::string& scenario = "") {
  Values values;
  for (const auto& shown : runs) {
    const BinaryMetrics* metrics = shown.find(measure, "served", scenario);
    values.push_back(metrics ? metrics->*member : std::nullopt);
  }
  return values;
}

// Reasons why the numbers of the runs may not be comparable.
std::vector<std::string> comparability_warnings(const std::vector<Shown>& runs, const std::vector<Measure>& measures) {
  std::vector<std::string> warnings;
  std::set<std::string> splits;
  for (const auto& shown : runs) splits.insert(shown.run->evaluation.split);
  if (splits.size() > 1)
    warnings.push_back(fmt::format("The runs were measured on different splits: {}.", fmt::join(splits, ", ")));
  for (const auto& measure : measures) {
    std::set<std::pair<int64_t, int64_t>> counts;
    size_t present = 0;
    for (const auto& shown : runs)
      if (const auto* metrics = shown.find(measure)) counts.insert({metrics->rows, metrics->positives}), ++present;
    if (counts.size() > 1)
      warnings.push_back(fmt::format("{} ({}): the runs were measured on different rows; their numbers cannot be compared.",
                                     measure.task, measure.quantity));
    if (present < runs.size())
      warnings.push_back(
          fmt::format("{} ({}): only {} of {} runs have it.", measure.task, measure.quantity, present, runs.size()));
  }
  return warnings;
}

// --- HTML ---------------------------------------------------------------------------------------------------------------------

std::string escaped(const std::string& text) {
  return escape_html(text);
}

std::string cell(const std::string& text, bool best = false) {
  return best ? fmt::format("<td class=\"best\"><span class=\"value\">{}</span></td>", escape_html(text))
              : fmt::format("<td>{}</td>", escape_html(text));
}

std::string left_cell(const std::string& text) {
  return "<td class=\"left\">" + escape_html(text) + "</td>";
}

std::string run_cell(const Shown& shown) {
  return fmt::format("<td class=\"left\"><span class=\"run\">{}<span>{}</span></span></td>", legend_key(shown.style),
                     escape_html(shown.label));
}

std::string legend(const std::vector<Shown>& runs) {
  std::string html = "<ul class=\"legend\">";
  for (const auto& shown : runs) html += "<li>" + legend_key(shown.style) + "<span>" + escape_html(shown.label) + "</span></li>";
  return html + "</ul>\n";
}

std::string header_row(const std::vector<std::pair<std::string, bool>>& columns) {  // (title, left-aligned)
  std::string html = "<thead><tr>";
  for (const auto& [title, left] : columns) {
    std::string shown;
    for (char c : escape_html(title)) shown += c == '_' ? "_<wbr/>" : std::string(1, c);  // long names may break there
    html += fmt::format("<th{}>{}</th>", left ? " class=\"left\"" : "", shown);
  }
  return html + "</tr></thead>\n";
}

std::string panels(const std::vector<std::string>& charts) {
  std::string html = "<div class=\"panels\">\n";
  for (const auto& chart : charts) html += "<div>" + chart + "</div>\n";
  return html + "</div>\n";
}

std::string rows_note(const std::vector<Shown>& runs, const Measure& measure) {
  for (const auto& shown : runs)
    if (const auto* metrics = shown.find(measure))
      return fmt::format("{}: {}, {} positive", measure.rows_covered, with_commas(metrics->rows),
                         with_commas(metrics->positives));
  return measure.rows_covered;
}

// Models x tasks, AUC of each task where its label is observed, and the mean over the conversions.
std::string overview_section(const std::vector<Shown>& runs, const std::vector<Measure>& all) {
  std::vector<Measure> measures;
  for (const auto& measure : all)
    if (measure.quantity != "ctcvr") measures.push_back(measure);
  const bool conversions = std::any_of(measures.begin(), measures.end(), [](const Measure& m) { return m.quantity == "cvr"; });
  std::vector<Values> columns;
  std::vector<std::pair<std::string, bool>> header = {{"Model", true}};
  Values mean(runs.size(), 0.0);
  double averaged = 0;
  for (const auto& measure : measures) {
    columns.push_back(values_of(runs, measure, &BinaryMetrics::auc));
    header.push_back({measure.task, false});
    if (conversions && measure.quantity != "cvr") continue;
    ++averaged;
    for (size_t r = 0; r < runs.size(); ++r)
      mean[r] = mean[r] && columns.back()[r] ? std::optional(*mean[r] + *columns.back()[r]) : std::nullopt;
  }
  if (averaged > 1) {
    for (auto& value : mean)
      if (value) *value /= averaged;
    columns.push_back(mean);
    header.push_back({conversions ? "mean of conversions" : "mean", false});
  }
  std::string html =
      "<h2>AUC at a glance</h2>\n<p class=\"soft\">Served predictions; every task on the rows where its label is observed. " +
      std::string(runs.size() > 1 ? "Bold on tint: the best of a column." : "") + "</p>\n<div class=\"scroll\"><table>" +
      header_row(header) + "<tbody class=\"plain\">\n";
  std::vector<std::vector<bool>> best;
  for (const auto& column : columns) best.push_back(best_of(column, higher));
  for (size_t r = 0; r < runs.size(); ++r) {
    html += "<tr>" + run_cell(runs[r]);
    for (size_t c = 0; c < columns.size(); ++c) html += cell(number_or_dash(columns[c][r], 4), best[c][r]);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

// The task beside the lines of its models.
std::string task_cell(const std::vector<Shown>& runs, const Measure& measure) {
  std::string html =
      fmt::format("<td class=\"left\" rowspan=\"{}\"><strong>{}</strong><br/><span class=\"aside\">{}: {}</span>", runs.size(),
                  escape_html(measure.task), escape_html(measure.quantity), escape_html(measure.rows_covered));
  for (const auto& shown : runs)
    if (const auto* metrics = shown.find(measure); metrics && metrics->groups > 0)
      return html + fmt::format("<br/><span class=\"aside\">GAUC: {} of {} groups</span></td>",
                                with_commas(metrics->groups - metrics->groups_left_out), with_commas(metrics->groups));
  return html + "</td>";
}

std::string detail_section(const std::vector<Shown>& runs, const std::vector<Measure>& measures) {
  std::string html = "<h2>Task by task</h2>\n<div class=\"scroll\"><table>" + header_row({{"Task", true},
                                                                                          {"Model", true},
                                                                                          {"Rows", false},
                                                                                          {"Positives", false},
                                                                                          {"AUC (95 % interval)", false},
                                                                                          {"GAUC", false},
                                                                                          {"LogLoss", false},
                                                                                          {"PCOC", false},
                                                                                          {"ECE", false}});
  for (const auto& measure : measures) {
    const auto auc = values_of(runs, measure, &BinaryMetrics::auc), gauc = values_of(runs, measure, &BinaryMetrics::gauc),
               logloss = values_of(runs, measure, &BinaryMetrics::logloss), pcoc = values_of(runs, measure, &BinaryMetrics::pcoc),
               ece = values_of(runs, measure, &BinaryMetrics::ece);
    const auto best_auc = best_of(auc, higher), best_gauc = best_of(gauc, higher), best_logloss = best_of(logloss, lower),
               best_pcoc = best_of(pcoc, nearer_to_one), best_ece = best_of(ece, lower);
    html += "<tbody class=\"group\">\n";
    for (size_t r = 0; r < runs.size(); ++r) {
      const BinaryMetrics* metrics = runs[r].find(measure);
      html += "<tr>";
      if (r == 0) html += task_cell(runs, measure);
      html += run_cell(runs[r]);
      if (!metrics) {
        html += "<td colspan=\"7\">not measured</td></tr>\n";
        continue;
      }
      const std::string interval = metrics->auc_95 ? fmt::format(" <span class=\"aside\">{:.4f} to {:.4f}</span>",
                                                                 metrics->auc_95->low, metrics->auc_95->high)
                                                   : "";
      html += cell(with_commas(metrics->rows)) + cell(with_commas(metrics->positives));
      html += fmt::format("<td{}><span class=\"value\">{}</span>{}</td>", best_auc[r] ? " class=\"best\"" : "",
                          number_or_dash(auc[r], 4), interval);
      html += cell(number_or_dash(gauc[r], 4), best_gauc[r]) + cell(number_or_dash(logloss[r], 4), best_logloss[r]) +
              cell(number_or_dash(pcoc[r], 3), best_pcoc[r]) + cell(number_or_dash(ece[r], 4), best_ece[r]) + "</tr>\n";
    }
    html += "</tbody>\n";
  }
  return html + "</table></div>\n";
}

std::string interval_section(const std::vector<Shown>& runs, const std::vector<Measure>& measures) {
  std::vector<std::string> charts;
  for (const auto& measure : measures) {
    const auto best = best_of(values_of(runs, measure, &BinaryMetrics::auc), higher);
    std::vector<AucEntry> entries;
    for (size_t r = 0; r < runs.size(); ++r)
      if (const auto* metrics = runs[r].find(measure))
        entries.push_back({runs[r].label, runs[r].style, metrics->auc, metrics->auc_95, best[r]});
    charts.push_back(auc_chart({measure.title(), rows_note(runs, measure)}, entries));
  }
  return "<h2>AUC with 95 % intervals</h2>\n<p class=\"soft\">The bars show how much the AUC would vary with other test rows "
         "(DeLong); they do not show how it varies with the seed. " +
         std::string(runs.size() > 1 ? "Where models are measured on the same rows, their difference is often better known than "
                                       "overlapping bars suggest. "
                                     : "") +
         "Every panel has a scale of its own.</p>\n" + panels(charts);
}

// As many lines as can be told apart in one panel: legend and panels of each part of the runs, one part below the other. `chart` draws a
// part of the runs on axes that hold all of them.
using GroupCharts = std::function<std::vector<std::string>(const std::vector<Shown>& part)>;
std::string in_groups(const std::vector<Shown>& runs, const GroupCharts& charts) {
  const size_t groups = (runs.size() + kRunStyles - 1) / kRunStyles;
  std::string html;
  for (size_t g = 0; g < groups; ++g) {
    const auto at = [&](size_t number) { return runs.begin() + static_cast<std::ptrdiff_t>(number * runs.size() / groups); };
    const std::vector<Shown> part(at(g), at(g + 1));
    html += legend(part) + panels(charts(part));
  }
  return html;
}

std::string reliability_section(const std::vector<Shown>& runs, const std::vector<Measure>& measures) {
  const auto curves_of = [](const std::vector<Shown>& part, const Measure& measure) {
    std::vector<ReliabilityCurve> curves;
    for (const auto& shown : part)
      if (const auto* metrics = shown.find(measure)) curves.push_back({shown.style, metrics->reliability});
    return curves;
  };
  const auto charts_of = [&](const std::vector<Shown>& part) {
    std::vector<std::string> charts;
    for (const auto& measure : measures)
      charts.push_back(reliability_chart({measure.title(), rows_note(runs, measure)}, curves_of(part, measure), curves_of(runs, measure)));
    return charts;
  };
  return "<h2>Calibration</h2>\n<p class=\"soft\">The rows, sorted by prediction, in bins of equal size: mean prediction against "
         "observed rate. On the "
         "dashed line predictions are right on average; below it they are too high. Hollow marks on the lower edge: bins without "
         "a "
         "positive.</p>\n" +
         in_groups(runs, charts_of);
}

std::string difference(const std::optional<double>& a, const std::optional<double>& b) {
  if (!a || !b) return "-";
  const std::string text = fmt::format("{:+.4f}", *a - *b);
  return text == "-0.0000" || text == "+0.0000" ? "0.0000" : text;
}

// Base and enhanced head of one run saw the same training and rows: their difference is free of seed noise.
std::string head_section(const std::vector<Shown>& runs, const std::vector<Measure>& measures) {
  std::string html;
  for (const auto& shown : runs) {
    std::string rows;
    for (const auto& measure : measures) {
      const BinaryMetrics *served = shown.find(measure), *base = shown.find(measure, "base");
      if (!served || !base) continue;
      rows += "<tr>" + left_cell(measure.task) + left_cell(measure.quantity) + cell(number_or_dash(base->auc, 4)) +
              cell(number_or_dash(served->auc, 4)) + "<td><strong>" + difference(served->auc, base->auc) + "</strong></td>" +
              cell(number_or_dash(base->logloss, 4)) + cell(number_or_dash(served->logloss, 4)) +
              cell(difference(served->logloss, base->logloss)) + "</tr>\n";
    }
    if (rows.empty()) continue;
    html += "<h3>" + escape_html(shown.label) + "</h3>\n<div class=\"scroll\"><table>" +
            header_row({{"Task", true},
                        {"Quantity", true},
                        {"AUC base", false},
                        {"AUC served", false},
                        {"difference", false},
                        {"LogLoss base", false},
                        {"LogLoss served", false},
                        {"difference", false}}) +
            "<tbody class=\"plain\">\n" + rows + "</tbody></table></div>\n";
  }
  if (html.empty()) return html;
  return "<h2>What the transfer adds</h2>\n<p class=\"soft\">The base head predicts from the task's own features, the served "
         "head also from what other tasks "
         "taught it. Both belong to one training run, so the difference does not contain the noise between seeds.</p>\n" +
         html;
}

std::string transfer_section(const std::vector<Shown>& runs) {
  std::vector<std::string> transfers, experts;
  for (const auto& shown : runs) {
    const auto& i = shown.inspection;
    if (i.similarity)
      transfers.push_back(heat_map({shown.label, "mean similarity weight of the router"}, *i.similarity, "learns", "teaches"));
    if (i.mix) transfers.push_back(heat_map({shown.label, "weights of the logits in the served head"}, *i.mix, "learns", "teaches"));
    if (!i.gates.empty())
      transfers.push_back(share_chart({shown.label, "mean opening of the transmitters' gates"}, i.gates, "0 = closed, 1 = open"));
    if (i.expert_gates)
      experts.push_back(heat_map({shown.label, "mean weight of each expert"}, *i.expert_gates, "task", "expert"));
  }
  std::string html;
  if (!transfers.empty())
    html +=
        "<h2>Who teaches whom</h2>\n<p class=\"soft\">A row is a task that learns, a column a task that teaches: the mean weight "
        "that the router gives to "
        "the teacher's features, over the validation split; and the weight that the learner's served head gives to the teacher's logit. The gates "
        "say how much of the features the learner lets in.</p>\n" +
        panels(transfers);
  if (!experts.empty()) html += "<h2>Which experts a task uses</h2>\n" + panels(experts);
  return html;
}

std::string curve_section(const std::vector<Shown>& runs, const std::vector<Measure>& measures) {
  using Value = std::function<std::optional<double>(const HistoryPoint&)>;
  auto curves_of = [](const std::vector<Shown>& part, const Value& value) {
    std::vector<Curve> curves;
    for (const auto& shown : part) {
      Curve curve{shown.style, {}, std::nullopt};
      if (shown.inspection.best_step) curve.chosen_step = static_cast<int64_t>(*shown.inspection.best_step);
      for (const auto& point : shown.run->history)
        if (const auto y = value(point)) curve.points.emplace_back(static_cast<double>(point.step), *y);
      curves.push_back(std::move(curve));
    }
    return curves;
  };
  auto entry = [](const std::map<std::string, double>& values, const std::string& name) -> std::optional<double> {
    const auto found = values.find(name);
    return found == values.end() ? std::nullopt : std::optional(found->second);
  };
  if (std::all_of(runs.begin(), runs.end(), [](const Shown& shown) { return shown.run->history.empty(); })) return "";
  std::vector<std::pair<ChartTitle, Value>> drawings = {{{"Training loss", "all terms of the model, mean since the point before"},
                                                         [&](const HistoryPoint& p) { return entry(p.train_loss, "total"); }},
                                                        {{"Selection metric", "validation split; chooses the saved weights"},
                                                         [](const HistoryPoint& p) { return p.selection; }}};
  for (const auto& measure : measures) {
    const bool drawn = measure.quantity != "ctcvr" && std::any_of(runs.begin(), runs.end(), [&](const Shown& shown) {
                         return std::any_of(shown.run->history.begin(), shown.run->history.end(),
                                            [&](const HistoryPoint& p) { return p.valid_auc.count(measure.task) > 0; });
                       });
    if (drawn) drawings.push_back({{measure.task, "AUC on the validation split"}, [&](const HistoryPoint& p) { return entry(p.valid_auc, measure.task); }});
  }
  const auto charts_of = [&](const std::vector<Shown>& part) {
    std::vector<std::string> charts;
    for (const auto& [title, value] : drawings) charts.push_back(curve_chart(title, curves_of(part, value), curves_of(runs, value)));
    return charts;
  };
  return "<h2>Learning curves</h2>\n<p class=\"soft\">Ringed: the step whose weights were saved. Training losses have different "
         "terms from model to model; "
         "compare their course, not their height.</p>\n" +
         in_groups(runs, charts_of);
}

std::string scenario_section(const std::vector<Shown>& runs, const std::vector<Measure>& measures) {
  std::vector<std::string> scenarios;
  for (const auto& shown : runs)
    for (const auto& result : shown.run->evaluation.results)
      if (!result.scenario.empty() && std::find(scenarios.begin(), scenarios.end(), result.scenario) == scenarios.end())
        scenarios.push_back(result.scenario);
  if (scenarios.empty()) return "";
  std::vector<std::pair<std::string, bool>> header = {
      {"Scenario", true}, {"Task", true}, {"Quantity", true}, {"Rows", false}, {"Positives", false}};
  for (const auto& shown : runs) header.push_back({shown.label, false});
  std::string html = "<h2>AUC by scenario</h2>\n<div class=\"scroll\"><table>" + header_row(header);
  for (const auto& scenario : scenarios) {
    std::string rows;
    size_t count = 0;
    for (const auto& measure : measures) {
      const BinaryMetrics* any = nullptr;
      for (const auto& shown : runs)
        if (!any) any = shown.find(measure, "served", scenario);
      if (!any) continue;
      const auto auc = values_of(runs, measure, &BinaryMetrics::auc, scenario);
      const auto best = best_of(auc, higher);
      rows += std::string(count++ == 0 ? "" : "<tr>") + left_cell(measure.task) + left_cell(measure.quantity) +
              cell(with_commas(any->rows)) + cell(with_commas(any->positives));
      for (size_t r = 0; r < runs.size(); ++r) rows += cell(number_or_dash(auc[r], 4), best[r]);
      rows += "</tr>\n";
    }
    if (count > 0)
      html += fmt::format("<tbody class=\"group\">\n<tr><td class=\"left\" rowspan=\"{}\"><strong>{}</strong></td>{}</tbody>\n",
                          count, escape_html(scenario), rows);
  }
  return html + "</table></div>\n";
}

std::string duration(double seconds) {
  if (seconds < 120) return fmt::format("{:.1f} s", seconds);
  const int64_t minutes = std::llround(seconds / 60);
  return minutes < 120 ? fmt::format("{} min", minutes) : fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
}

std::string cost_section(const std::vector<Shown>& runs) {
  std::string rows;
  bool any = false;
  for (const auto& shown : runs) {
    const auto& i = shown.inspection;
    auto seconds = i.seconds, samples_per_s = i.samples_per_s, steps = i.steps;
    // A run without inspect.json still has its history.
    if (!shown.run->history.empty()) {
      const HistoryPoint& last = shown.run->history.back();
      if (!seconds) seconds = last.seconds;
      if (!samples_per_s) samples_per_s = last.samples_per_s;
      if (!steps) steps = static_cast<double>(last.step);
    }
    auto number = [&](const std::optional<double>& value) {
      return value ? with_commas(std::llround(*value)) : std::string("-");
    };
    auto parameters = [&](const std::optional<int64_t>& count) { return count ? with_commas(*count) : std::string("-"); };
    std::optional<int64_t> total;
    if (i.embedding_parameters && i.network_parameters) total = *i.embedding_parameters + *i.network_parameters;
    any |= total || seconds || samples_per_s || steps;
    rows += "<tr>" + run_cell(shown) + left_cell(shown.run->name) + cell(parameters(i.embedding_parameters)) +
            cell(parameters(i.network_parameters)) + cell(parameters(total)) + cell(seconds ? duration(*seconds) : "-") +
            cell(number(samples_per_s)) + cell(number(steps)) + cell(number(i.best_step)) + cell(number(i.threads)) + "</tr>\n";
  }
  if (!any) return "";
  return "<h2>Size and cost</h2>\n<div class=\"scroll\"><table>" +
         header_row({{"Model", true},
                     {"Run", true},
                     {"Embedding parameters", false},
                     {"Network parameters", false},
                     {"All parameters", false},
                     {"Training time", false},
                     {"Samples / s", false},
                     {"Steps", false},
                     {"Saved step", false},
                     {"Threads", false}}) +
         "<tbody class=\"plain\">\n" + rows + "</tbody></table></div>\n";
}

std::string dataset_section(const Json& dataset) {
  if (dataset.is_null()) return "";
  std::string rows;
  const Json flat = dataset.flatten();
  for (const auto& [path, value] : flat.items()) {
    std::string name = path.substr(path.empty() ? 0 : 1);
    for (size_t at = 0; (at = name.find('/', at)) != std::string::npos; at += 3) name.replace(at, 1, " / ");
    const std::string shown = value.is_string()           ? value.get<std::string>()
                              : value.is_number_integer() ? with_commas(value.get<int64_t>())
                                                          : value.dump();
    rows += "<tr>" + left_cell(name) + cell(shown) + "</tr>\n";
  }
  return "<h2>Data set</h2>\n<table><tbody class=\"plain\">\n" + rows + "</tbody></table>\n";
}

std::string glossary_section(const std::vector<Measure>& measures) {
  auto measured = [&](const char* quantity) {
    return std::any_of(measures.begin(), measures.end(), [&](const Measure& m) { return m.quantity == quantity; });
  };
  std::string html = "<h2>How to read the numbers</h2>\n<dl>\n";
  auto entry = [&](const char* term, const char* meaning) { html += fmt::format("<dt>{}</dt><dd>{}</dd>\n", term, meaning); };
  entry("ctr", "The task's own probability, on all rows.");
  if (measured("cvr"))
    entry("cvr",
          "A conversion given that the event before it happened, on the rows where that event happened and the label was "
          "reported.");
  if (measured("ctcvr"))
    entry("ctcvr",
          "The whole path from the impression to the conversion: the product of the probabilities along it, on all rows where "
          "the outcome is known.");
  entry("AUC",
        "The share of pairs of a positive and a negative row that are ranked rightly; ties count one half. 0.5 is chance, 1 "
        "perfect.");
  entry("GAUC",
        "The mean of the AUC within each group (usually a user), weighted by the group's rows; groups without both classes are "
        "left out.");
  entry("LogLoss",
        "Mean negative log-likelihood, natural logarithm. Lower is better; its height depends on the rate of positives.");
  entry("PCOC", "Sum of predictions over number of positives. 1 is right on average, above 1 too high.");
  entry("ECE", "Expected calibration error: mean distance of prediction and observed rate over 20 bins of equal size.");
  entry("95 % interval", "DeLong's interval of the AUC for another sample of test rows; seeds of training are not in it.");
  return html + "</dl>\n";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
  return text;
}

}  // namespace

ReportRun load_report_run(const fs::path& run) {
  const std::string remedy = "Train first (ektm train), or check the path.";
  if (!fs::is_directory(run)) fail(ErrorKind::Config, run.string(), "found no run folder there. {}", remedy);
  if (!fs::exists(run / "metrics.json"))
    fail(ErrorKind::Config, run.string(), "found no metrics.json in the run folder; run: ektm evaluate {}", run.string());
  ReportRun result;
  const fs::path normal = fs::weakly_canonical(run);
  result.name = normal.filename().string();

  const std::string metrics = (run / "metrics.json").string();
  const Json evaluation = parse_json(read_file(metrics), metrics);
  reading(metrics, ("Run: ektm evaluate " + run.string()).c_str(),
          [&] { result.evaluation = EvaluationResult::from_json(evaluation); });

  if (fs::exists(run / "inspect.json")) {
    const std::string where = (run / "inspect.json").string();
    result.extra = parse_json(read_file(where), where);
    reading(where, "Remove the file, or train again.", [&] { inspection_of(result.extra); });
  }
  if (fs::exists(run / "history.jsonl")) {
    std::istringstream lines(read_file(run / "history.jsonl"));
    int64_t number = 0;
    for (std::string line; std::getline(lines, line);) {
      const std::string where = fmt::format("{}, line {}", (run / "history.jsonl").string(), ++number);
      const Json point = parse_json(line, where);
      reading(where, "Remove the line, or train again.", [&] { result.history.push_back(history_point(point)); });
    }
  }
  return result;
}

std::string comparison_table(const std::vector<ReportRun>& runs) {
  using enum TextTable::Align;
  const auto shown = shown_runs(runs);
  const auto measures = measures_of(shown);
  TextTable table({Left, Left, Left, Right, Left, Left, Right, Right, Right});
  table.row({"task", "rows", "model", "AUC", "", "95 % interval", "GAUC", "LogLoss", "PCOC"});
  for (const auto& measure : measures) {
    const auto best = best_of(values_of(shown, measure, &BinaryMetrics::auc), higher);
    std::string task = measure.quantity == "ctcvr" ? measure.task + ", whole path" : measure.task, rows = measure.rows_covered;
    for (size_t r = 0; r < shown.size(); ++r) {
      const BinaryMetrics* m = shown[r].find(measure);
      if (!m) continue;
      table.row({task, rows, shown[r].label, number_or_dash(m->auc, 4), best[r] ? "*" : "",
                 m->auc_95 ? fmt::format("{:.4f} .. {:.4f}", m->auc_95->low, m->auc_95->high) : "-", number_or_dash(m->gauc, 4),
                 number_or_dash(m->logloss, 4), number_or_dash(m->pcoc, 3)});
      task = rows = "";
    }
  }
  std::string text = table.to_string();
  if (runs.size() > 1) text += "* best AUC of the task\n";
  for (const auto& warning : comparability_warnings(shown, measures)) text += "Note: " + warning + "\n";
  return text;
}

std::string render_report(const std::vector<ReportRun>& runs, const ReportOptions& options) {
  const auto shown = shown_runs(runs);
  const auto measures = measures_of(shown);
  std::set<std::string> splits, tasks;
  for (const auto& run : runs) splits.insert(run.evaluation.split);
  for (const auto& measure : measures) tasks.insert(measure.task);

  std::string html = "<header>\n<h1>" + escaped(options.title) + "</h1>\n";
  html +=
      fmt::format("<p class=\"facts\">{} &#183; split {} &#183; {} {} &#183; {} {}</p>\n",
                  escaped(options.date.empty() ? utc_now() : options.date), escaped(fmt::format("{}", fmt::join(splits, ", "))),
                  runs.size(), runs.size() == 1 ? "run" : "runs", tasks.size(), tasks.size() == 1 ? "task" : "tasks");
  if (!options.intro.empty()) html += "<p class=\"lead\">" + escaped(options.intro) + "</p>\n";
  for (const auto& warning : comparability_warnings(shown, measures))
    html += "<p class=\"warning\">" + escaped(warning) + "</p>\n";
  html += "</header>\n";
  html += overview_section(shown, measures) + detail_section(shown, measures) + interval_section(shown, measures) +
          head_section(shown, measures) + transfer_section(shown) + reliability_section(shown, measures) +
          curve_section(shown, measures) + scenario_section(shown, measures) + cost_section(shown) +
          dataset_section(options.dataset) + glossary_section(measures);
  return html_page(options.title, html + "<footer>Written by ektm report.</footer>\n");
}

std::string render_inside(const std::vector<ReportRun>& runs) {
  const auto shown = shown_runs(runs);
  const auto measures = measures_of(shown);
  return head_section(shown, measures) + transfer_section(shown) + reliability_section(shown, measures) + curve_section(shown, measures);
}

}  // namespace ektm
