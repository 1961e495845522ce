#include "experiment/result_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "experiment/result_tables.h"
#include "metrics/text_table.h"
#include "report/charts.h"
#include "report/page.h"

namespace ektm {
namespace {

std::string paragraph(const std::string& text, const char* kind = "soft") { return fmt::format("<p class=\"{}\">{}</p>\n", kind, escape_html(text)); }

std::string list(const std::vector<std::string>& lines) {
  std::string html = "<ul>\n";
  for (const auto& line : lines) html += "<li>" + escape_html(line) + "</li>\n";
  return html + "</ul>\n";
}

// The first columns of the models' tables show the marker that the charts have.
std::string html_table(const ResultTable& table, const DatasetResults& results) {
  std::string html = "<div class=\"scroll\"><table><thead><tr>";
  for (size_t c = 0; c < table.columns.size(); ++c) {
    std::string title;
    for (char letter : escape_html(table.columns[c])) title += letter == '_' ? "_<wbr/>" : std::string(1, letter);  // long names may break there
    html += fmt::format("<th{}>{}</th>", c < table.left ? " class=\"left\"" : "", title);
  }
  html += "</tr></thead>\n<tbody class=\"plain\">\n";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string text = escape_html(row[c].text);
      const auto model = std::find_if(results.models.begin(), results.models.end(), [&](const ModelResults& m) { return m.name == row[c].text; });
      if (c == 0 && model != results.models.end())
        html += fmt::format("<td class=\"left\"><span class=\"run\">{}<span>{}</span></span></td>",
                            legend_key(RunStyle(static_cast<size_t>(model - results.models.begin()))), text);
      else if (c < table.left)
        html += "<td class=\"left\">" + text + "</td>";
      else
        html += row[c].best ? "<td class=\"best\"><span class=\"value\">" + text + "</span></td>" : "<td>" + text + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string panels(const std::vector<std::string>& charts) {
  std::string html = "<div class=\"panels\">\n";
  for (const auto& chart : charts) html += "<div>" + chart + "</div>\n";
  return html + "</div>\n";
}

std::vector<double> present(const SeedValues& values) {
  std::vector<double> result;
  for (const auto& value : values)
    if (value) result.push_back(*value);
  return result;
}

std::optional<Interval> seed_interval(const SeedValues& values) {
  const auto estimate = over_seeds(present(values));
  return estimate ? std::optional(estimate->interval) : std::nullopt;
}

std::string mean_panel(const DatasetResults& results, const ChartTitle& title, const char* axis, const std::vector<const SeedValues*>& values) {
  std::vector<MeanEntry> entries;
  std::optional<double> highest;
  for (const auto* series : values)
    if (const auto mean = over(*series)) highest = std::max(highest.value_or(mean->mean), mean->mean);
  for (size_t m = 0; m < values.size(); ++m) {
    const auto mean = over(*values[m]);
    entries.push_back({results.models[m].name, RunStyle(m), mean ? std::optional(mean->mean) : std::nullopt, seed_interval(*values[m]),
                       present(*values[m]), mean && mean->mean == highest});
  }
  return mean_chart(title, axis, entries);
}

std::string metric_charts(const DatasetResults& results, const std::string& key, const char* axis) {
  std::vector<std::string> charts;
  auto values_of = [&](auto pick) {
    std::vector<const SeedValues*> values;
    for (const auto& model : results.models) values.push_back(pick(model));
    return values;
  };
  if (!results.best_baseline.empty())
    charts.push_back(mean_panel(results, {results.mean_title(), "tasks with enough test positives"}, axis,
                                values_of([&](const ModelResults& m) { return &m.mean.at(key); })));
  for (size_t t = 0; t < results.tasks.size(); ++t) {
    const auto& task = results.tasks[t];
    if (task.quantity == "ctcvr") continue;
    charts.push_back(mean_panel(results, {task.task, fmt::format("{}, {} positives", task.rows_covered, with_commas(task.positives))}, axis,
                                values_of([&](const ModelResults& m) { return &m.metrics.at(key)[t]; })));
  }
  return paragraph(
             "Marker: the mean; whiskers: its 95 % interval over seeds; grey ticks: each seed. The scales do not begin at 0, and each panel has its "
             "own. "
             "Models share seeds and rows, so whiskers that overlap do not mean a tie: see the differences.") +
         panels(charts);
}

// Of the comparisons of the mean, or of those of the tasks; `results`: for the models' markers.
std::string difference_panel(const std::vector<Comparison>& comparisons, const DatasetResults& results, const ChartTitle& title, bool of_mean) {
  std::vector<DifferenceEntry> entries;
  auto number = [&](const std::string& name) {
    return static_cast<size_t>(std::find_if(results.models.begin(), results.models.end(), [&](const ModelResults& m) { return m.name == name; }) -
                               results.models.begin());
  };
  for (const auto& c : comparisons) {
    if (c.task.empty() != of_mean) continue;
    entries.push_back({(of_mean ? "" : c.task + ": ") + c.model + " − " + c.reference, to_string(c.verdict), RunStyle(number(c.model)), c.difference,
                       c.seeds ? std::optional(c.seeds->interval) : std::nullopt, c.rows ? std::optional(c.rows->interval) : std::nullopt,
                       c.both ? std::optional(c.both->interval) : std::nullopt});
  }
  if (entries.empty()) return "";
  return panels({difference_chart(title, "difference of AUC", entries)});
}

std::string difference_charts(const DatasetResults& results, bool of_mean) {
  return difference_panel(results.comparisons, results,
                          {of_mean ? results.mean_title() : "task by task",
                           results.grouped ? "solid: over seeds; dashed: over groups; band: over both" : "solid: over seeds; dashed: over rows; band: over both"},
                          of_mean);
}

std::string cost_chart(const DatasetResults& results) {
  if (results.best_baseline.empty()) return "";
  std::vector<ScatterPoint> points;
  for (size_t m = 0; m < results.models.size(); ++m) {
    const auto& model = results.models[m];
    const auto mean = over(model.mean.at("auc"));
    if (!mean || model.cost.samples_per_s <= 0) continue;
    points.push_back({model.name, RunStyle(m), 1e6 / model.cost.samples_per_s, mean->mean, seed_interval(model.mean.at("auc"))});
  }
  return panels({scatter_chart({"Quality against cost", "up and left is better; lines: over seeds"}, "training time a sample, microseconds",
                               "mean AUC", points)});
}

std::string charts_of(const DatasetResults& results, const std::string& key) {
  if (key == "auc") return metric_charts(results, "auc", "AUC");
  if (key == "gauc") return metric_charts(results, "gauc", "GAUC");
  if (key == "comparisons") return difference_charts(results, true);
  if (key == "by_task") return difference_charts(results, false);
  if (key == "cost") return cost_chart(results);
  return "";
}

std::string dataset_part(const DatasetResults& results) {
  std::string html = "<h1 class=\"set\">" + escape_html(results.name) + "</h1>\n" + list(findings(results));
  for (const auto& section : result_sections(results)) {
    html += "<h2>" + escape_html(section.title) + "</h2>\n";
    for (const auto& line : section.text) html += paragraph(line);
    html += html_table(section.table, results) + charts_of(results, section.key);
  }
  std::vector<ReportRun> runs;
  for (const auto& model : results.models) runs.push_back(model.runs.front());
  return html + fmt::format("<h2>Inside the runs of seed {}</h2>\n", results.seeds.front()) +
         paragraph("One seed of each model: what follows shows how they work, not which is better.") + render_inside(runs);
}

std::string rolling_part(const RollingResults& rolling) {
  std::string html = fmt::format("<h1 class=\"set\">{}, over {} rolling cuts</h1>\n", escape_html(rolling.name), rolling.cuts.size());
  if (rolling.best_baseline.empty()) return html + paragraph("In some cut no task has enough test positives, so nothing is compared.");
  for (const auto& section : rolling_sections(rolling)) {
    html += "<h2>" + escape_html(section.title) + "</h2>\n" + paragraph(section.text.front()) + html_table(section.table, *rolling.cuts.front());
    if (section.key == "over_cuts")
      html += difference_panel(rolling.comparisons, *rolling.cuts.front(), {rolling.name, "solid: over seeds; dashed: over cuts; band: over both"}, true);
  }
  return html;
}

std::string section_text(const std::string& name, const ResultSection& section) {
  using enum TextTable::Align;
  std::vector<TextTable::Align> columns;
  for (size_t c = 0; c < section.table.columns.size(); ++c) columns.push_back(c < section.table.left ? Left : Right);
  TextTable table(columns);
  table.line(name + ": " + section.title);
  table.row(section.table.columns);
  for (const auto& row : section.table.rows) {
    std::vector<std::string> cells;
    for (const auto& cell : row) cells.push_back(cell.text + (cell.best ? "*" : columns[cells.size()] == Right ? " " : ""));
    table.row(cells);
  }
  table.line("");
  return table.to_string();
}

}  // namespace

std::string results_page(const std::vector<PlanResults>& plans) {
  const bool several = plans.size() > 1;
  std::string title, body, contents;
  for (size_t p = 0; p < plans.size(); ++p) {
    const Plan& plan = *plans[p].plan;
    const std::string facts =
        fmt::format("{} {} &#183; {} models &#183; {} {}", plan.datasets.size(), plan.datasets.size() == 1 ? "data set" : "data sets",
                    plan.models.size(), plan.seeds.size(), plan.seeds.size() == 1 ? "seed" : "seeds");
    body += fmt::format("<header{}>\n<h1>{}</h1>\n<p class=\"facts\">{}</p>\n", several ? fmt::format(" id=\"plan{}\"", p) : "", escape_html(plan.title), facts);
    for (const auto& warning : plans[p].warnings) body += paragraph(warning, "warning");
    body += "</header>\n<h2>How to read the intervals</h2>\n" + list(reading_notes(plans[p].datasets));
    for (const auto& rolling : rolling_results(plans[p].datasets)) body += rolling_part(rolling);
    for (const auto& results : plans[p].datasets) body += dataset_part(results);
    contents += fmt::format("<li><a href=\"#plan{}\">{}</a>: {}</li>\n", p, escape_html(plan.title), facts);
    title += (p > 0 ? "; " : "") + plan.title;
  }
  if (several) {
    title = "Results";
    body = "<h1>Results</h1>\n<ul>\n" + contents + "</ul>\n" + body;
  }
  return html_page(title, body + "<footer>Written by ektm bench.</footer>\n");
}

std::string results_text(const std::vector<DatasetResults>& all) {
  std::string text;
  for (const auto& results : all)
    for (const auto& section : result_sections(results))
      if (section.key == "auc" || section.key == "comparisons") text += section_text(results.name, section);
  for (const auto& rolling : rolling_results(all))
    for (const auto& section : rolling_sections(rolling)) text += section_text(rolling.name, section);
  return text;
}

}  // namespace ektm
