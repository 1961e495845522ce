#pragma once
// The results as tables with the sentences that say what they show, and their files: Markdown, CSV, LaTeX, JSON.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "experiment/results.h"

namespace ektm {

struct ResultCell {
  std::string text;
  bool best = false;
};

struct ResultTable {
  std::vector<std::string> columns;
  size_t left = 1;  // the first columns hold texts, the others numbers
  std::vector<std::vector<ResultCell>> rows;
};

struct ResultSection {
  std::string key;  // "tasks", "auc", "gauc", ..., "comparisons", "by_task", "heads", "search", "cost"; "cuts", "over_cuts"
  std::string title;
  std::vector<std::string> text;  // paragraphs
  ResultTable table;
};

// What a data set's results show, in a few sentences.
std::vector<std::string> findings(const DatasetResults& results);
std::vector<ResultSection> result_sections(const DatasetResults& results);
// Of rolling cuts, over them.
std::vector<ResultSection> rolling_sections(const RollingResults& rolling);
// Of the whole report: which interval covers what.
std::vector<std::string> reading_notes(const std::vector<DatasetResults>& all);

std::string results_markdown(const Plan& plan, const std::vector<DatasetResults>& all, const std::vector<std::string>& warnings);
// The part of it that stands in a text about the results: no sections of single tasks' differences, of GAUC, of ECE or of the search; of
// rolling cuts what they say together.
std::string results_summary(const std::vector<DatasetResults>& all, const std::vector<std::string>& warnings);
// `text` with what stands between the lines "<!-- bench NAME -->" and "<!-- /bench NAME -->" replaced. Error Config, where = `place`,
// without the two lines.
std::string with_results(const std::string& text, const std::string& name, const std::string& results, const std::string& place);
// A line a data set, model, task and metric: mean, standard deviation, and the values by seed.
std::string results_csv(const std::vector<DatasetResults>& all);
// Every difference, its intervals and p-values; of rolling cuts put together with the intervals over cuts in place of those over groups.
std::string comparisons_csv(const std::vector<DatasetResults>& all);
// Tables for \usepackage{booktabs,graphicx}, made smaller where they are wider than the line; of more rows than a page holds for {longtable}.
std::string results_tex(const std::vector<DatasetResults>& all, const std::vector<std::string>& warnings);
nlohmann::ordered_json results_json(const Plan& plan, const std::vector<DatasetResults>& all, const std::vector<std::string>& warnings);

}  // namespace ektm
