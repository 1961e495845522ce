#include "experiment/result_tables.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "report/svg.h"

namespace ektm {
namespace {

using Json = nlohmann::ordered_json;
using Verdict = Comparison::Verdict;

std::string plural(size_t count, const char* one, const char* many) { return fmt::format("{} {}", count, count == 1 ? one : many); }

std::string mean_and_std(const std::optional<MeanStd>& value, size_t seeds) {
  if (!value) return "–";
  return seeds > 1 ? fmt::format("{:.4f} ± {:.4f}", value->mean, value->std) : fmt::format("{:.4f}", value->mean);
}

std::string p_text(const std::optional<double>& p) { return !p ? "–" : *p < 0.001 ? "< 0.001" : fmt::format("{:.3f}", *p); }

std::string interval_text(const std::optional<Estimate>& estimate) {
  return estimate ? fmt::format("[{}, {}]", signed_number(estimate->interval.low), signed_number(estimate->interval.high)) : "–";
}

// The best mean of a column; all false where fewer than two have one.
std::vector<bool> best_means(const std::vector<std::optional<MeanStd>>& values, double (*goodness)(double)) {
  std::vector<bool> best(values.size(), false);
  std::optional<double> highest;
  size_t present = 0;
  for (const auto& value : values)
    if (value) ++present, highest = std::max(highest.value_or(goodness(value->mean)), goodness(value->mean));
  if (present > 1)
    for (size_t i = 0; i < values.size(); ++i) best[i] = values[i] && goodness(values[i]->mean) == *highest;
  return best;
}

std::vector<size_t> shown_tasks(const DatasetResults& results) {
  std::vector<size_t> shown;
  for (size_t t = 0; t < results.tasks.size(); ++t)
    if (results.tasks[t].quantity != "ctcvr") shown.push_back(t);
  return shown;
}

std::string over_what(const DatasetResults& results) { return results.grouped ? "groups" : "rows"; }

ResultSection task_section(const DatasetResults& results) {
  ResultSection section{"tasks", "Test split", {}, {{"task", "measured on", "rows", "positives", "compared", "in the mean"}, 2, {}}};
  for (size_t t : shown_tasks(results)) {
    const auto& task = results.tasks[t];
    section.table.rows.push_back({{task.task},
                                  {task.rows_covered},
                                  {with_commas(task.rows)},
                                  {with_commas(task.positives)},
                                  {task.counted ? "yes" : "no"},
                                  {task.in_mean ? "yes" : "no"}});
  }
  section.text.push_back(fmt::format("{} rows in {} {}. Tasks with fewer than {} test positives are shown, but nothing is concluded from them.",
                                     with_commas(results.test_rows), with_commas(results.clusters),
                                     results.grouped ? "groups (the schema's group column)" : "independent rows",
                                     with_commas(results.min_positives)));
  return section;
}

ResultSection metric_section(const DatasetResults& results, const MetricKind& kind) {
  ResultSection section{kind.key, kind.title, {}, {{"model"}, 1, {}}};
  std::vector<std::vector<std::optional<MeanStd>>> columns;
  for (size_t t : shown_tasks(results)) {
    columns.emplace_back();
    for (const auto& model : results.models) columns.back().push_back(over(model.metrics.at(kind.key)[t]));
    section.table.columns.push_back(results.tasks[t].task);
  }
  if (results.models.front().mean.count(kind.key) && !results.best_baseline.empty()) {
    columns.emplace_back();
    for (const auto& model : results.models) columns.back().push_back(over(model.mean.at(kind.key)));
    section.table.columns.push_back(results.mean_title());
  }
  for (const auto& model : results.models) section.table.rows.push_back({{model.name}});
  bool any = false;
  for (const auto& column : columns) {
    const auto best = best_means(column, kind.goodness);
    for (size_t m = 0; m < column.size(); ++m) {
      section.table.rows[m].push_back({mean_and_std(column[m], results.seeds.size()), best[m]});
      any |= column[m].has_value();
    }
  }
  if (!any) section.table.rows.clear();
  section.text.push_back(
      fmt::format("{} {}; the best mean of a column is bold, whether or not its lead means anything.", kind.note,
                  results.seeds.size() > 1 ? fmt::format("Mean ± standard deviation over {} seeds", results.seeds.size()) : "One seed"));
  return section;
}

std::string why(const Comparison& c, const DatasetResults& results) {
  if (c.verdict == Verdict::Undecided)
    return c.seeds ? "undecided: too few positives or negatives for an interval over " + over_what(results)
                   : "undecided: one seed cannot tell a model from its luck";
  if (c.verdict != Verdict::Tie) return to_string(c.verdict);
  if (c.both->holds_zero()) return "a tie";
  return fmt::format("a tie: the interval excludes 0, but p is {} after Holm's correction for {} comparisons", p_text(c.holm), c.family);
}

const char* relation(const Comparison& c) {
  return c.stated && c.best ? "its baseline, and the best" : c.stated ? "its baseline" : "best baseline";
}

std::string reference_text(const Comparison& c) { return fmt::format("{} ({})", c.reference, relation(c)); }

ResultSection comparison_section(const DatasetResults& results, bool of_mean) {
  ResultSection section;
  section.key = of_mean ? "comparisons" : "by_task";
  section.title = of_mean ? "Differences of the mean AUC" : "Differences task by task";
  section.table.columns = {"model",   of_mean ? "against" : "task, against", "difference", "95 % over both", "over seeds", "over " + over_what(results), "p",
                           "verdict"};
  section.table.left = 2;
  size_t real = 0, count = 0;
  for (const auto& c : results.comparisons) {
    if (c.task.empty() != of_mean) continue;
    ++count;
    real += c.verdict == Verdict::Better || c.verdict == Verdict::Worse;
    section.table.rows.push_back({{c.model},
                                  {of_mean ? reference_text(c) : c.task + ", " + c.reference},
                                  {signed_number(c.difference)},
                                  {interval_text(c.both)},
                                  {interval_text(c.seeds)},
                                  {interval_text(c.rows)},
                                  {p_text(c.holm)},
                                  {to_string(c.verdict), c.verdict == Verdict::Better || c.verdict == Verdict::Worse}});
  }
  section.text.push_back(fmt::format(
      "AUC of the model less AUC of the other, paired by seed and by test row{}, with intervals of 95 % for new seeds and new {} together and for "
      "each alone. They are not corrected; p, that of both together, is, by Holm's method for the {} of this table. A difference is called better "
      "or worse only where p is below 0.05; everything else is a tie. Here {} of {} differ.",
      of_mean ? ", " + results.mean_title() : "", over_what(results), plural(count, "comparison", "comparisons"), real, count));
  if (of_mean)
    section.text.push_back(
        fmt::format("The best baseline ({}) is the one with the highest mean on these very test rows, which favours it: a model that does not beat "
                    "it may still equal it.",
                    results.best_baseline));
  return section;
}

ResultSection head_section(const DatasetResults& results) {
  ResultSection section{"heads", "Inside EKTM: served less base head", {}, {{"model", "difference", "95 % over seeds"}, 1, {}}};
  for (const auto& model : results.models) {
    if (!model.head_gains) continue;
    section.table.rows.push_back({{model.name}, {signed_number(mean_std(*model.head_gains).mean)}, {interval_text(over_seeds(*model.head_gains))}});
  }
  section.text.push_back(
      "Mean AUC of the served heads less that of the base heads of the same run; 0 for a task whose base head is served. It says what the transfer "
      "adds to a model that was trained with it; it does not say that the model without it would be worse.");
  return section;
}

ResultSection search_section(const DatasetResults& results) {
  ResultSection section{"search", "Search", {}, {{"model", "trials", "broke off", "best trial", "its validation metric", "median", "worst"}, 1, {}}};
  for (const auto& model : results.models) {
    if (model.trials.empty()) continue;
    std::vector<double> values;
    for (const auto& trial : model.trials)
      if (trial.selection) values.push_back(*trial.selection);
    const auto best = std::find_if(model.trials.begin(), model.trials.end(), [&](const TrialRecord& t) { return model.best_trial == t.trial; });
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    const double middle = values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2, top = *best->selection,
                 worst = std::abs(values.front() - top) > std::abs(values.back() - top) ? values.front() : values.back();
    section.table.rows.push_back({{model.name},
                                  {std::to_string(model.trials.size())},
                                  {std::to_string(model.trials.size() - values.size())},
                                  {std::to_string(*model.best_trial)},
                                  {fmt::format("{:.4f}", top)},
                                  {fmt::format("{:.4f}", middle)},
                                  {fmt::format("{:.4f}", worst)}});
  }
  section.text.push_back(
      results.search +
      " on the validation split with the same number of trials for every model; a model with a baseline takes over its baseline's "
      "draws. The test "
      "split was not read. The distance between best and worst shows how much settings matter beside the differences above.");
  return section;
}

ResultSection cost_section(const DatasetResults& results) {
  ResultSection section{"cost", "Cost", {}, {{"model", "parameters", "of them embeddings", "training samples/s", "training time"}, 1, {}}};
  for (const auto& model : results.models) {
    const auto& cost = model.cost;
    section.table.rows.push_back({{model.name},
                                  {with_commas(cost.parameters)},
                                  {with_commas(cost.embedding_parameters)},
                                  {with_commas(std::llround(cost.samples_per_s))},
                                  {fmt::format("{:.1f} s", cost.seconds)}});
  }
  section.text.push_back(
      "Medians over the seeds, validation left out of samples/s. They hold for this machine and what else ran on it; everything above does not "
      "depend on it.");
  return section;
}

std::string markdown_table(const ResultTable& table) {
  auto line = [](const std::vector<std::string>& cells) { return fmt::format("| {} |\n", fmt::join(cells, " | ")); };
  std::vector<std::string> rule;
  for (size_t c = 0; c < table.columns.size(); ++c) rule.push_back(c < table.left ? "---" : "---:");
  std::string text = line(table.columns) + line(rule);
  for (const auto& row : table.rows) {
    std::vector<std::string> cells;
    for (const auto& cell : row) cells.push_back(cell.best ? "**" + cell.text + "**" : cell.text);
    text += line(cells);
  }
  return text;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string tex_text(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (std::string("&%$#_{}").find(c) != std::string::npos)
      result += std::string("\\") + c;
    else if (c == '\\')
      result += "\\textbackslash{}";
    else if (c == '~')
      result += "\\textasciitilde{}";
    else if (c == '^')
      result += "\\textasciicircum{}";
    else if (c == '<')
      result += "$<$";
    else if (text.compare(i, 2, "±") == 0)
      result += "$\\pm$", ++i;
    else if (text.compare(i, 3, "–") == 0)
      result += "--", i += 2;
    else
      result += c;
  }
  return result;
}

// More rows than a page holds need longtable, which no two-column page takes: only they have it.
constexpr size_t kTexPageRows = 36;

std::string tex_table(const ResultSection& section, const std::string& dataset) {
  const auto& table = section.table;
  const bool pages = table.rows.size() > kTexPageRows;
  const std::string caption = fmt::format("\\caption{{{}: {}. {}}}\n\\label{{tab:{}-{}}}", tex_text(dataset), tex_text(section.title),
                                          tex_text(section.text.front()), dataset, section.key);
  const std::string columns = std::string(table.left, 'l') + std::string(table.columns.size() - table.left, 'r');
  auto line = [](const std::vector<std::string>& cells) { return fmt::format("{} \\\\\n", fmt::join(cells, " & ")); };
  std::vector<std::string> cells;
  for (const auto& column : table.columns) cells.push_back(tex_text(column));
  const std::string head = "\\toprule\n" + line(cells) + "\\midrule\n";
  constexpr const char *kFloat = R"(\begin{{table}}
{caption}
\centering
\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{%
\begin{{tabular}}{{{columns}}}
{head})",
                       *kPages = R"({{\scriptsize\setlength{{\tabcolsep}}{{3pt}}
\begin{{longtable}}{{{columns}}}
{caption} \\
{head}\endfirsthead
{head}\endhead
\bottomrule
\endfoot
)";
  std::string text = fmt::format(fmt::runtime(pages ? kPages : kFloat), fmt::arg("caption", caption), fmt::arg("columns", columns), fmt::arg("head", head));
  for (const auto& row : table.rows) {
    cells.clear();
    for (const auto& cell : row) cells.push_back(cell.best ? "\\textbf{" + tex_text(cell.text) + "}" : tex_text(cell.text));
    text += line(cells);
  }
  return text + (pages ? "\\end{longtable}}\n\n" : "\\bottomrule\n\\end{tabular}}\n\\end{table}\n\n");
}

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json series_json(const SeedValues& values) {
  const auto all = over(values);
  Json json = {{"mean", number_or_null(all ? std::optional(all->mean) : std::nullopt)},
               {"std", number_or_null(all && values.size() > 1 ? std::optional(all->std) : std::nullopt)},
               {"by_seed", Json::array()}};
  for (const auto& value : values) json["by_seed"].push_back(number_or_null(value));
  return json;
}

Json estimate_json(const std::optional<Estimate>& estimate) {
  if (!estimate) return nullptr;
  return {{"low", estimate->interval.low}, {"high", estimate->interval.high}, {"p", estimate->p}};
}

// `second`: what the second interval is over.
Json comparison_json(const Comparison& c, const char* second) {
  return {{"model", c.model},
          {"reference", c.reference},
          {"stated_baseline", c.stated},
          {"best_baseline", c.best},
          {"difference", c.difference},
          {"by_seed", c.by_seed},
          {"seeds", estimate_json(c.seeds)},
          {second, estimate_json(c.rows)},
          {"both", estimate_json(c.both)},
          {"p_holm", number_or_null(c.holm)},
          {"family", c.family},
          {"verdict", to_string(c.verdict)}};
}

std::string rolling_title(const RollingResults& rolling, const std::string& mark) {
  return fmt::format("{}{}, over {} rolling cuts\n", mark, rolling.name, rolling.cuts.size()) +
         (rolling.best_baseline.empty() ? "\nIn some cut no task has enough test positives, so nothing is compared.\n" : "");
}

}  // namespace

std::vector<std::string> findings(const DatasetResults& results) {
  std::vector<std::string> text;
  if (results.best_baseline.empty()) {
    text.push_back(fmt::format("No task has {} test positives, so no model is compared with another. The tables below are for orientation.",
                               with_commas(results.min_positives)));
    return text;
  }
  size_t real = 0, count = 0;
  for (const auto& c : results.comparisons) {
    if (!c.task.empty()) continue;
    ++count;
    real += c.verdict == Verdict::Better || c.verdict == Verdict::Worse;
    if (!c.stated) continue;
    std::string intervals;
    if (c.both)
      intervals = interval_text(c.both);
    else if (c.seeds)
      intervals = interval_text(c.seeds) + " over seeds";
    else if (c.rows)
      intervals = interval_text(c.rows) + " over " + over_what(results);
    text.push_back(fmt::format("{} against {}: {}{} of AUC ({}); {}.", c.model, reference_text(c), signed_number(c.difference),
                               intervals.empty() ? "" : " " + intervals, results.mean_title(), why(c, results)));
  }
  const auto best = over(results.model(results.best_baseline).mean.at("auc"));
  text.insert(text.begin(), fmt::format("Best baseline by mean AUC: {} ({:.4f}). {} of {} of mean AUC are more than ties.", results.best_baseline,
                                        best->mean, real, plural(count, "difference", "differences")));
  return text;
}

std::vector<ResultSection> result_sections(const DatasetResults& results) {
  std::vector<ResultSection> all = {task_section(results)};
  for (const auto& kind : metric_kinds()) all.push_back(metric_section(results, kind));
  if (!results.comparisons.empty()) all.push_back(comparison_section(results, true)), all.push_back(comparison_section(results, false));
  all.push_back(head_section(results));
  all.push_back(search_section(results));
  all.push_back(cost_section(results));
  std::erase_if(all, [](const ResultSection& section) { return section.table.rows.empty(); });
  return all;
}

std::vector<ResultSection> rolling_sections(const RollingResults& rolling) {
  if (rolling.best_baseline.empty()) return {};
  const auto& first = *rolling.cuts.front();
  ResultSection auc{"cuts", "AUC by cut", {}, {{"model"}, 1, {}}};
  std::vector<std::vector<std::optional<MeanStd>>> columns;
  std::vector<std::string> facts;
  for (const auto* cut : rolling.cuts) {
    auc.table.columns.push_back(cut->name);
    columns.emplace_back();
    for (const auto& model : cut->models) columns.back().push_back(over(model.mean.at("auc")));
    int64_t positives = 0;
    for (const auto& task : cut->tasks)
      if (task.in_mean) positives += task.positives;
    facts.push_back(fmt::format("{}: {} test rows, {} ({} positives)", cut->name, with_commas(cut->test_rows), cut->mean_title(), with_commas(positives)));
  }
  auc.table.columns.push_back("mean over the cuts");
  columns.emplace_back();
  for (size_t m = 0; m < first.models.size(); ++m) {
    std::vector<double> means;
    for (size_t c = 0; c < rolling.cuts.size(); ++c) means.push_back(columns[c][m]->mean);
    columns.back().push_back(mean_std(means));
    auc.table.rows.push_back({{first.models[m].name}});
  }
  for (size_t c = 0; c < columns.size(); ++c) {
    const auto best = best_means(columns[c], metric_kinds().front().goodness);
    for (size_t m = 0; m < columns[c].size(); ++m)
      auc.table.rows[m].push_back({c + 1 < columns.size() ? mean_and_std(columns[c][m], first.seeds.size()) : fmt::format("{:.4f}", columns[c][m]->mean), best[m]});
  }
  auc.text.push_back(fmt::format("Mean AUC over the tasks with enough test positives, {}; the best of a column is bold. {}.",
                                 first.seeds.size() > 1 ? fmt::format("mean ± standard deviation over {} seeds", first.seeds.size()) : "one seed",
                                 fmt::join(facts, "; ")));

  ResultSection differences{"over_cuts", "Differences over the cuts", {}, {{"model", "against"}, 2, {}}};
  auto& titles = differences.table.columns;
  for (const auto* cut : rolling.cuts) titles.push_back(cut->name);
  for (const char* title : {"mean", "95 % over both", "over seeds", "over cuts", "p", "verdict"}) titles.push_back(title);
  size_t real = 0;
  for (size_t i = 0; i < rolling.comparisons.size(); ++i) {
    const auto& c = rolling.comparisons[i];
    std::vector<ResultCell> row = {{c.model}, {reference_text(c)}};
    for (double difference : rolling.by_cut[i]) row.push_back({signed_number(difference)});
    const bool is_real = c.verdict == Verdict::Better || c.verdict == Verdict::Worse;
    real += is_real;
    row.insert(row.end(), {{signed_number(c.difference)}, {interval_text(c.both)}, {interval_text(c.seeds)}, {interval_text(c.rows)}, {p_text(c.holm)},
                           {to_string(c.verdict), is_real}});
    differences.table.rows.push_back(std::move(row));
  }
  differences.text.push_back(fmt::format(
      "Mean AUC of the model less that of the other, paired by cut and seed; every cut counts alike. Student's intervals of 95 %: over the seeds, of the means "
      "over the cuts, over the {} cuts, of the means over the seeds (the cuts share users and training rows, so they are not quite independent), and for new seeds "
      "and cuts together. p is that of both together, by Holm's method for the {} of this table; better or worse only where it is below 0.05. Here {} of {} differ.",
      rolling.cuts.size(), plural(rolling.comparisons.size(), "comparison", "comparisons"), real, rolling.comparisons.size()));
  return {auc, differences};
}

std::vector<std::string> reading_notes(const std::vector<DatasetResults>& all) {
  const bool grouped = std::any_of(all.begin(), all.end(), [](const DatasetResults& r) { return r.grouped; });
  const bool rolled = std::any_of(all.begin(), all.end(), [](const DatasetResults& r) { return !r.cut_of.empty(); });
  const bool searched = std::any_of(all.begin(), all.end(), [](const DatasetResults& r) { return !r.models.front().trials.empty(); });
  return {
      fmt::format("The interval over seeds is Student's, of the differences paired by seed ({} here): how far training again with other seeds would "
                  "move the difference, on the "
                  "same rows and settings. It knows nothing of other users or days.",
                  plural(all.front().seeds.size(), "seed", "seeds")),
      fmt::format("The interval over {} is DeLong's for correlated curves{}, for the mean over the seeds: how far other test rows of the same kind "
                  "would move the difference, with "
                  "the trained weights as they are. It knows nothing of training.",
                  grouped ? "groups or rows" : "rows",
                  grouped ? ", with all rows of a group (usually a user) counted as one draw (Obuchowski's form) where the data set has groups" : ""),
      "The interval over both is for other seeds and other rows at once: the two errors add up (their distributions are convolved, Student's and the normal "
      "one), so it is never narrower than one of the two. The verdict rests on it, after Holm's correction.",
      std::string("No interval covers other days or platforms") +
          (rolled ? "; where a data set has rolling cuts in time, the table over the cuts does, as far as they reach" : ": every data set has one split, and no rolling cuts in time were made") +
          ". None covers the search for settings.",
      std::string("Weights, epochs and ") +
          (searched ? "settings were chosen on the validation split; " : "the kept step were chosen on the validation split; ") +
          "the test split was read once for each run, and nothing was chosen by it but the name of the best baseline.",
      "A tie is no proof of equality: it says that these seeds and rows cannot tell the two apart.",
  };
}

namespace {

std::string notes_markdown(const std::vector<std::string>& warnings) {
  std::string text;
  for (const auto& warning : warnings) text += "**Note:** " + warning + "\n\n";
  return text;
}

// Where the line `line` begins and the one after it, whether it ends in \n, \r\n or with the text.
std::optional<std::pair<size_t, size_t>> find_line(const std::string& text, const std::string& line) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view found(text.data() + begin, end - begin);
    if (found.ends_with('\r')) found.remove_suffix(1);
    if (found == line) return std::pair(begin, std::min(end + 1, text.size()));
    begin = end + 1;
  }
  return std::nullopt;
}

}  // namespace

std::string results_markdown(const Plan& plan, const std::vector<DatasetResults>& all, const std::vector<std::string>& warnings) {
  std::string text = "# " + plan.title + "\n\n" + notes_markdown(warnings);
  text += "How to read the intervals:\n\n";
  for (const auto& note : reading_notes(all)) text += "- " + note + "\n";
  for (const auto& results : all) {
    text += "\n## " + results.name + "\n\n";
    for (const auto& line : findings(results)) text += "- " + line + "\n";
    for (const auto& section : result_sections(results)) {
      text += "\n### " + section.title + "\n\n";
      for (const auto& line : section.text) text += line + "\n\n";
      text += markdown_table(section.table);
    }
  }
  for (const auto& rolling : rolling_results(all)) {
    text += rolling_title(rolling, "\n## ");
    for (const auto& section : rolling_sections(rolling)) text += "\n### " + section.title + "\n\n" + section.text.front() + "\n\n" + markdown_table(section.table);
  }
  return text;
}

std::string results_summary(const std::vector<DatasetResults>& all, const std::vector<std::string>& warnings) {
  std::string text;
  for (const auto& rolling : rolling_results(all)) {
    text += rolling_title(rolling, text.empty() ? "### " : "\n### ");
    for (const auto& section : rolling_sections(rolling))
      text += "\n**" + section.title + ".** " + section.text.front() + "\n\n" + markdown_table(section.table);
  }
  for (const auto& results : all) {
    if (!results.cut_of.empty()) continue;
    text += (text.empty() ? "### " : "\n### ") + results.name + "\n\n";
    for (const auto& line : findings(results)) text += "- " + line + "\n";
    for (const auto& section : result_sections(results)) {
      if (section.key == "by_task" || section.key == "gauc" || section.key == "ece" || section.key == "search") continue;
      text += "\n**" + section.title + ".** " + section.text.front() + "\n\n" + markdown_table(section.table);
    }
  }
  return notes_markdown(warnings) + text;
}

std::string with_results(const std::string& text, const std::string& name, const std::string& results, const std::string& place) {
  const std::string begin = "<!-- bench " + name + " -->", end = "<!-- /bench " + name + " -->";
  const auto first = find_line(text, begin), last = find_line(text, end);
  if (!first || !last || last->first < first->second)
    fail(ErrorKind::Config, place, "expected the two lines '{}' and '{}', between which the results of this plan are written.", begin, end);
  return text.substr(0, first->second) + results + text.substr(last->first);
}

std::string results_csv(const std::vector<DatasetResults>& all) {
  std::string text = "dataset,model,task,quantity,rows,positives,metric,mean,std,seeds,values\n";
  for (const auto& results : all) {
    auto line = [&](const std::string& model, const std::string& task, const std::string& quantity, const std::string& counts, const char* metric,
                    const SeedValues& values) {
      const auto at = over(values);
      if (!at) return;
      std::vector<std::string> by_seed;
      for (const auto& value : values) by_seed.push_back(value ? fmt::format("{}", *value) : "");
      text += fmt::format("{},{},{},{},{},{},{},{},{},{}\n", csv_cell(results.name), csv_cell(model), csv_cell(task), quantity, counts, metric,
                          at->mean, values.size() > 1 ? fmt::format("{}", at->std) : "", values.size(), fmt::join(by_seed, " "));
    };
    for (const auto& model : results.models) {
      for (const auto& kind : metric_kinds())
        for (size_t t = 0; t < results.tasks.size(); ++t)
          line(model.name, results.tasks[t].task, results.tasks[t].quantity, fmt::format("{},{}", results.tasks[t].rows, results.tasks[t].positives),
               kind.key, model.metrics.at(kind.key)[t]);
      for (const auto& [key, values] : model.mean) line(model.name, results.mean_title(), "", ",", key.c_str(), values);
    }
  }
  return text;
}

std::string comparisons_csv(const std::vector<DatasetResults>& all) {
  std::string text =
      "dataset,task,model,against,relation,difference,seeds_low,seeds_high,seeds_p,over,low,high,p,both_low,both_high,both_p,both_p_holm,comparisons,verdict,"
      "by_seed\n";
  const auto estimate = [](const std::optional<Estimate>& at) {
    return at ? fmt::format("{},{},{}", at->interval.low, at->interval.high, at->p) : std::string(",,");
  };
  const auto lines = [&](const std::string& dataset, const std::string& mean, const char* other, const std::vector<Comparison>& comparisons) {
    for (const auto& c : comparisons)
      text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", csv_cell(dataset), csv_cell(c.task.empty() ? mean : c.task), csv_cell(c.model),
                          csv_cell(c.reference), csv_cell(relation(c)), c.difference, estimate(c.seeds), other, estimate(c.rows), estimate(c.both),
                          c.holm ? fmt::format("{}", *c.holm) : "", c.family, to_string(c.verdict), fmt::join(c.by_seed, " "));
  };
  for (const auto& results : all) lines(results.name, results.mean_title(), results.grouped ? "groups" : "rows", results.comparisons);
  for (const auto& rolling : rolling_results(all)) lines(rolling.name, "mean over the cuts", "cuts", rolling.comparisons);
  return text;
}

std::string results_tex(const std::vector<DatasetResults>& all, const std::vector<std::string>& warnings) {
  std::string text = "% Needs \\usepackage{booktabs,graphicx}, and {longtable} for tables of more than a page.\n";
  for (const auto& warning : warnings) text += "% Note: " + warning + "\n";
  for (const auto& results : all) {
    for (const auto& section : result_sections(results)) text += tex_table(section, results.name);
    text += "\\clearpage\n\n";  // TeX holds back a few dozen floats at most
  }
  for (const auto& rolling : rolling_results(all))
    for (const auto& section : rolling_sections(rolling)) text += tex_table(section, rolling.name);
  return text;
}

Json results_json(const Plan& plan, const std::vector<DatasetResults>& all, const std::vector<std::string>& warnings) {
  Json json = {{"title", plan.title}, {"notes", warnings}, {"seeds", plan.seeds}, {"min_positives", plan.min_positives}, {"datasets", Json::array()}};
  for (const auto& results : all) {
    Json set = {{"name", results.name},
                {"test_rows", results.test_rows},
                {"clusters", results.clusters},
                {"grouped", results.grouped},
                {"best_baseline", results.best_baseline},
                {"tasks", Json::array()},
                {"models", Json::array()},
                {"comparisons", Json::array()}};
    for (const auto& task : results.tasks)
      set["tasks"].push_back({{"task", task.task},
                              {"quantity", task.quantity},
                              {"rows_covered", task.rows_covered},
                              {"rows", task.rows},
                              {"positives", task.positives},
                              {"compared", task.counted},
                              {"in_mean", task.in_mean}});
    for (const auto& model : results.models) {
      Json one = {{"name", model.name}, {"baseline", model.baseline}, {"results", Json::array()}, {"mean", Json::object()}};
      for (size_t t = 0; t < results.tasks.size(); ++t) {
        Json line = {{"task", results.tasks[t].task}, {"quantity", results.tasks[t].quantity}};
        for (const auto& kind : metric_kinds()) line[kind.key] = series_json(model.metrics.at(kind.key)[t]);
        one["results"].push_back(std::move(line));
      }
      for (const auto& [key, values] : model.mean) one["mean"][key] = series_json(values);
      if (model.head_gains) {
        one["served_less_base"] = {
            {"by_seed", *model.head_gains}, {"mean", mean_std(*model.head_gains).mean}, {"seeds", estimate_json(over_seeds(*model.head_gains))}};
      }
      if (model.best_trial) {
        one["search"] = {{"best_trial", *model.best_trial}, {"trials", Json::array()}};
        for (const auto& trial : model.trials)
          one["search"]["trials"].push_back({{"trial", trial.trial}, {"selection", number_or_null(trial.selection)}, {"step", trial.step}});
      }
      // Depends on the machine, unlike everything else here.
      one["cost"] = {{"parameters", model.cost.parameters},
                     {"embedding_parameters", model.cost.embedding_parameters},
                     {"steps", model.cost.steps},
                     {"samples_per_s", model.cost.samples_per_s},
                     {"seconds", model.cost.seconds}};
      set["models"].push_back(std::move(one));
    }
    for (const auto& c : results.comparisons) {
      Json one = comparison_json(c, "rows");
      one["task"] = c.task.empty() ? Json(nullptr) : Json(c.task);
      set["comparisons"].push_back(std::move(one));
    }
    json["datasets"].push_back(std::move(set));
  }
  for (const auto& rolling : rolling_results(all)) {
    Json set = {{"name", rolling.name}, {"cuts", Json::array()}, {"best_baseline", rolling.best_baseline}, {"comparisons", Json::array()}};
    for (const auto* cut : rolling.cuts) set["cuts"].push_back(cut->name);
    for (size_t i = 0; i < rolling.comparisons.size(); ++i) {
      Json one = comparison_json(rolling.comparisons[i], "cuts");
      one["by_cut"] = rolling.by_cut[i];
      set["comparisons"].push_back(std::move(one));
    }
    json["rolling"].push_back(std::move(set));
  }
  return json;
}

}  // namespace ektm
