#pragma once
// One function a subcommand of `ektm`, each in a file of its own.
#include <CLI/CLI.hpp>

namespace ektm {

void add_simulate_command(CLI::App& app);
void add_prepare_command(CLI::App& app);
void add_train_command(CLI::App& app);
void add_evaluate_command(CLI::App& app);
void add_predict_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_report_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_models_command(CLI::App& app);

}  // namespace ektm
