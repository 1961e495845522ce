// ektm bench PLAN.yaml --output WORK
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "commands.h"
#include "experiment/result_page.h"
#include "experiment/result_tables.h"
#include "experiment/runner.h"
#include "shell_word.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string plan, output;
  std::vector<std::string> overrides;
  bool check = false, quiet = false, verbose = false;
};

[[noreturn]] void interrupted(const Arguments& arguments, const std::string& state) {
  std::string command = "ektm bench " + shell_word(arguments.plan);
  for (const auto& assignment : arguments.overrides) command += " --set " + shell_word(assignment);
  std::fprintf(stderr, "\nInterrupted; %s. Go on with:\n  %s --output %s\n", state.c_str(), command.c_str(), shell_word(arguments.output).c_str());
  throw CLI::RuntimeError(130);
}

void write_results(const Plan& plan, const Places& places) {
  const auto results = collect_results(plan, places);
  std::vector<std::string> warnings;
  if (const auto foreign = foreign_runs(plan, places); !foreign.empty())
    warnings.push_back(fmt::format("{} holds {} runs that are not of this plan and are not counted, the first: {}. Results that were left out by hand prove nothing.",
                                   places.work.string(), foreign.size(), foreign.front()));
  const std::string markdown = results_markdown(plan, results, warnings);
  write_file_atomic(places.work / "results.json", results_json(plan, results).dump(1) + "\n");
  write_file_atomic(places.work / "results.csv", results_csv(results));
  write_file_atomic(places.work / "results.tex", results_tex(results));
  write_file_atomic(places.work / "report.html", results_page(plan, results, warnings));
  write_file_atomic(places.work / "results.md", markdown);
  for (const auto& warning : warnings) std::printf("Note: %s\n", warning.c_str());
  for (const auto& result : results) std::fputs(results_text(result).c_str(), stdout);
  std::fflush(stdout);  // before the next line on stderr
  log_info("wrote results.md, .csv, .tex, .json and report.html into {}", places.work.string());
}

void run(const Arguments& arguments) {
  set_quiet(arguments.quiet);
  const Plan plan = load_plan(arguments.plan, arguments.overrides);
  if (arguments.check) {
    std::printf("%s: %zu data sets, %zu models, %zu seeds; no problem found\n", arguments.plan.c_str(), plan.datasets.size(), plan.models.size(), plan.seeds.size());
    return;
  }
  if (arguments.output.empty()) throw CLI::RequiredError("--output");
  RunnerOptions options;
  options.work = arguments.output;
  options.program = fs::read_symlink("/proc/self/exe");
  options.verbose = arguments.verbose;
  RunnerOutcome outcome;
  try {
    outcome = carry_out(plan, options);
  } catch (const Interrupted&) {
    interrupted(arguments, "what is finished is kept");
  }
  if (outcome.interrupted) interrupted(arguments, fmt::format("{} of {} runs are finished", outcome.done, outcome.jobs));
  try {
    write_results(plan, {options.work});
  } catch (const Interrupted&) {
    interrupted(arguments, "all runs are finished, the report is not written");
  }
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("bench", "A whole comparison from one plan: search, seeds, tables with intervals, a report");
  command->add_option("plan", arguments->plan, "YAML file: data sets, models, seeds; `ektm models --plan` lists its keys")->required();
  command->add_option("-o,--output", arguments->output, "work folder; called again with it, only what is missing is done");
  command->add_option("--set", arguments->overrides, "KEY=VALUE, over the plan's value, e.g. --set 'seeds=[1, 2]'")->allow_extra_args(false);
  command->add_flag("--check", arguments->check, "check plan, configs and data sets only");
  command->add_flag("--verbose", arguments->verbose, "what each training says too");
  command->add_flag("-q,--quiet", arguments->quiet, "no progress");
  command->footer(
      "Examples:\n"
      "  ektm bench configs/simulated/bench.yaml --output runs/bench\n"
      "  ektm bench configs/kuairand/plan.yaml --set parallel=4 --output runs/kuairand\n"
      "  ektm bench configs/kuairand/plan.yaml --check\n"
      "The folder gets runs/DATASET/MODEL/seed-N (ordinary run folders), trials/, results.md, .csv, .tex, .json and report.html.\n"
      "Ctrl-C stops after a checkpoint; the same command goes on. The numbers do not depend on interruptions, nor on `parallel`.");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
