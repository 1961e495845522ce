// ektm evaluate RUN --data DIR --split test
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/files.h"
#include "base/log.h"
#include "commands.h"
#include "models/evaluation.h"
#include "serve/predictor.h"

namespace ektm {
namespace {

struct Arguments {
  std::string run, data, split = "test", output;
  bool json = false, quiet = false, no_scenarios = false;
};

void run(const Arguments& arguments) {
  set_quiet(arguments.quiet || arguments.json);
  Predictor predictor(arguments.run);
  const std::string data = arguments.data.empty() ? predictor.config().data : arguments.data;
  auto dataset = open_dataset(data, arguments.split);
  predictor.check_dataset(dataset->info(), data);
  EvaluationOptions options;
  options.batch_rows = predictor.config().train.evaluate_batch_rows;
  options.by_scenario = !arguments.no_scenarios;
  options.show_progress = !arguments.json && !arguments.quiet;
  EvaluationResult result = evaluate_network(predictor.network(), *dataset, predictor.config().model_name(), arguments.split, options);
  const std::string text = result.to_json().dump(2) + "\n";
  std::string output = arguments.output;
  // The run's own metrics.json is that of its own test split.
  if (output.empty() && std::filesystem::weakly_canonical(data) == std::filesystem::weakly_canonical(predictor.config().data))
    output = arguments.run + (arguments.split == "test" ? "/metrics.json" : "/metrics-" + arguments.split + ".json");
  if (!output.empty()) write_file_atomic(output, text);
  std::fputs(arguments.json ? text.c_str() : result.to_text().c_str(), stdout);
}

}  // namespace

void add_evaluate_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("evaluate", "AUC, GAUC, LogLoss, PCOC and ECE of a run on a split");
  command->add_option("run", arguments->run, "run folder")->required();
  command->add_option("-d,--data", arguments->data, "encoded data set; default: the one that the run was trained on");
  command->add_option("-s,--split", arguments->split, "train | valid | test")->check(CLI::IsMember({"train", "valid", "test"}));
  command->add_flag("--json", arguments->json, "print JSON instead of a table");
  command->add_option("-o,--output", arguments->output, "write the JSON here; default on the run's own data: RUN/metrics.json");
  command->add_flag("--no-scenarios", arguments->no_scenarios, "overall numbers only");
  command->add_flag("-q,--quiet", arguments->quiet, "no progress");
  command->footer(
      "Click is measured on all rows, each conversion (cvr) where its label is observed, whole paths (ctcvr) on all rows.\n"
      "EKTM's served and base heads stand side by side.\n"
      "Example:\n  ektm evaluate runs/ektm-7 --data data/kuairand --split test");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
