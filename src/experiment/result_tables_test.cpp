#include "experiment/result_tables.h"

#include <gtest/gtest.h>

namespace ektm {
namespace {

// `models` models of one task and one seed, without comparisons.
DatasetResults results_of(size_t models) {
  DatasetResults results;
  results.name = "shop";
  results.seeds = {1};
  results.tasks = {{"pay", "pctcvr", "all rows", 100, 10, false, false}};
  for (size_t m = 0; m < models; ++m) {
    ModelResults model;
    model.name = "m" + std::to_string(m);
    for (const auto& kind : metric_kinds()) model.metrics[kind.key] = {{0.5 + 0.001 * static_cast<double>(m)}};
    results.models.push_back(model);
  }
  return results;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

TEST(ResultTables, ATexTableOfMoreThanAPageGoesOverPages) {
  const auto shorter = results_tex({results_of(36)}, {}), longer = results_tex({results_of(37)}, {});
  EXPECT_EQ(count(shorter, "longtable}{"), 0u);
  EXPECT_GT(count(shorter, "\\begin{tabular}{"), 5u);
  EXPECT_EQ(count(results_tex({results_of(2), results_of(2)}, {}), "\\clearpage\n"), 2u);
  // Every table of models is long; the one of tasks has one row.
  EXPECT_EQ(count(longer, "\\begin{tabular}{"), 1u);
  EXPECT_EQ(count(longer, "\\begin{longtable}{"), count(shorter, "\\begin{tabular}{") - 1);
  EXPECT_EQ(count(longer, "\\begin{longtable}"), count(longer, "\\end{longtable}"));
  EXPECT_NE(longer.find("\\begin{longtable}{lr}\n\\caption{shop: AUC. "), std::string::npos);
  EXPECT_NE(longer.find("\\label{tab:shop-auc} \\\\\n\\toprule\nmodel & pay \\\\\n\\midrule\n\\endfirsthead\n\\toprule\nmodel & pay \\\\\n\\midrule\n"
                        "\\endhead\n\\bottomrule\n\\endfoot\nm0 & 0.5000 \\\\\n"),
            std::string::npos);
  EXPECT_NE(longer.find("\nm36 & \\textbf{0.5360} \\\\\n\\end{longtable}}\n"), std::string::npos);
}

}  // namespace
}  // namespace ektm
