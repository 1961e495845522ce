#pragma once
// The report of one plan or several: one self-contained HTML file without script, and a table for the terminal.
#include <string>
#include <vector>

#include "experiment/results.h"

namespace ektm {

std::string results_page(const std::vector<PlanResults>& plans);
// Mean AUC of each task by model, and the differences.
std::string results_text(const std::vector<DatasetResults>& all);

}  // namespace ektm
