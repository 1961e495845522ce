#pragma once
// Logs of the simulated platform as files.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "sim/config.h"

namespace ektm {

// Writes the folder `output`, whole or not at all:
//   train|valid|test.parquet (or .csv)  the logs in time order: the last days are test, the days before them validation
//   schema.yaml                         for `ektm prepare`
//   truth/train|valid|test.parquet      impression_id and p_<task> (given that the task's parent happened), rows as in the logs;
//                                       never an input of training
//   summary.json                        config; by split and task: rows, rates, attainable AUC (that of the true probabilities)
// Same config, same bytes. Memory: users + items + some chunks of rows. Returns the summary.
// Error Io when `output` exists (unless `overwrite` and it holds earlier simulated logs) or cannot be written.
nlohmann::ordered_json write_logs(const SimulationConfig& config, const std::filesystem::path& output, bool overwrite = false);

// The schema.yaml of a pattern's logs.
std::string logs_schema(const SimulationConfig& config);

}  // namespace ektm
