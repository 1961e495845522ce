// ektm bench PLAN.yaml --output WORK
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"
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
  std::vector<std::string> plans;
  std::string output, raw, update;
  std::vector<std::string> overrides;
  bool check = false, quiet = false, verbose = false;
};

[[noreturn]] void interrupted(const Arguments& arguments, const std::string& state) {
  std::string command = "ektm bench";
  for (const auto& plan : arguments.plans) command += " " + shell_word(plan);
  for (const auto& assignment : arguments.overrides) command += " --set " + shell_word(assignment);
  if (!arguments.raw.empty()) command += " --raw " + shell_word(arguments.raw);
  if (!arguments.update.empty()) command += " --update " + shell_word(arguments.update);
  std::fprintf(stderr, "\nInterrupted; %s. Go on with:\n  %s --output %s\n", state.c_str(), command.c_str(), shell_word(arguments.output).c_str());
  throw CLI::RuntimeError(130);
}

// Takes the models of broken runs out of the plan.
PlanResults write_results(Plan& plan, const Places& places, const std::vector<BrokenRun>& broken) {
  const auto foreign = foreign_runs(plan, places);
  std::vector<std::string> warnings = leave_out(broken, plan);
  PlanResults result{&plan, collect_results(plan, places), std::move(warnings)};
  const auto& all = result.datasets;
  if (!foreign.empty())
    result.warnings.push_back(fmt::format("{} holds {} runs that are not of this plan and are not counted, the first: {}. Results that were left out by hand prove nothing.",
                                          places.work.string(), foreign.size(), foreign.front()));
  if (const std::string mixed = mixed_programs(plan, places); !mixed.empty()) result.warnings.push_back(mixed);
  const std::string markdown = results_markdown(plan, all, result.warnings);
  write_file_atomic(places.work / "results.json", results_json(plan, all, result.warnings).dump(1) + "\n");
  write_file_atomic(places.work / "results.csv", results_csv(all));
  write_file_atomic(places.work / "comparisons.csv", comparisons_csv(all));
  write_file_atomic(places.work / "results.tex", results_tex(all, result.warnings));
  write_file_atomic(places.work / "report.html", results_page({result}));
  write_file_atomic(places.work / "results.md", markdown);
  for (const auto& warning : result.warnings) std::printf("Note: %s\n", warning.c_str());
  std::fputs(results_text(all).c_str(), stdout);
  std::fflush(stdout);  // before the next line on stderr
  log_info("wrote results.md, .csv, .tex, .json, comparisons.csv and report.html into {}", places.work.string());
  return result;
}

// A plan of the command, the name of its place in a text, and its work folder.
struct Chapter {
  std::string file, name;
  Plan plan;
  Places places;
};

std::vector<Chapter> read_plans(const Arguments& arguments) {
  std::vector<Chapter> chapters;
  for (const auto& file : arguments.plans) {
    const std::string name = fs::path(file).stem().string();
    for (const auto& other : chapters)
      if (other.name == name)
        fail(ErrorKind::Config, file, "has the same name as {}; each plan works in a folder of its name. Rename one of them.", other.file);
    chapters.push_back({file, name, load_plan(file, arguments.overrides, arguments.raw),
                        {arguments.plans.size() == 1 ? fs::path(arguments.output) : fs::path(arguments.output) / name}});
  }
  return chapters;
}

std::string updated_text(const Arguments& arguments, const std::vector<Chapter>& chapters, const std::vector<PlanResults>& results) {
  std::string text = read_file(arguments.update);
  for (size_t i = 0; i < chapters.size(); ++i)
    text = with_results(text, chapters[i].name, i < results.size() ? results_summary(results[i].datasets, results[i].warnings) : "", "--update " + arguments.update);
  return text;
}

void run(const Arguments& arguments) {
  set_quiet(arguments.quiet);
  std::vector<Chapter> chapters = read_plans(arguments);
  if (!arguments.update.empty()) updated_text(arguments, chapters, {});  // an error now, not after hours
  if (arguments.check) {
    for (const auto& chapter : chapters)
      std::printf("%s: %zu data sets, %zu models, %zu seeds; no problem found\n", chapter.file.c_str(), chapter.plan.datasets.size(),
                  chapter.plan.models.size(), chapter.plan.seeds.size());
    return;
  }
  if (arguments.output.empty()) throw CLI::RequiredError("--output");
  RunnerOptions options;
  options.program = fs::read_symlink("/proc/self/exe");
  options.verbose = arguments.verbose;
  std::vector<PlanResults> results;
  for (auto& chapter : chapters) {
    options.work = chapter.places.work;
    RunnerOutcome outcome;
    if (chapters.size() > 1) log_info("plan {} of {}, {}: {}", results.size() + 1, chapters.size(), chapter.file, chapter.plan.title);
    try {
      outcome = carry_out(chapter.plan, options);
    } catch (const Interrupted&) {
      interrupted(arguments, "what is finished is kept");
    }
    if (outcome.interrupted)
      interrupted(arguments, fmt::format("{} of {} runs{} are finished", outcome.done, outcome.jobs, chapters.size() > 1 ? " of " + chapter.file : ""));
    try {
      results.push_back(write_results(chapter.plan, chapter.places, outcome.broken));
    } catch (const Interrupted&) {
      interrupted(arguments, "all its runs are finished, the report is not written");
    }
  }
  if (chapters.size() > 1) {
    write_file_atomic(fs::path(arguments.output) / "report.html", results_page(results));
    log_info("wrote the report of all plans, {}", (fs::path(arguments.output) / "report.html").string());
  }
  if (!arguments.update.empty()) {
    write_file_atomic(arguments.update, updated_text(arguments, chapters, results));
    log_info("wrote the results into {}", arguments.update);
  }
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("bench", "A whole comparison from one plan: search, seeds, tables with intervals, a report");
  command->add_option("plan", arguments->plans, "YAML files: data sets, models, seeds; `ektm models --plan` lists the keys")->required();
  command->add_option("-o,--output", arguments->output,
                      "work folder; called again with it, only what is missing is done. Several plans work in folders of their names below it");
  command->add_option("--raw", arguments->raw, "folder in which relative paths of the plan's raw files begin (default: the working directory)");
  command->add_option("--update", arguments->update, "a Markdown file that has a line `<!-- bench NAME -->` and a line `<!-- /bench NAME -->` for each plan "
                      "NAME.yaml: the results are written between them");
  command->add_option("--set", arguments->overrides, "KEY=VALUE, over the plan's value, e.g. --set 'seeds=[1, 2]'")->allow_extra_args(false);
  command->add_flag("--check", arguments->check, "check plan, configs and data sets only");
  command->add_flag("--verbose", arguments->verbose, "what each training says too");
  command->add_flag("-q,--quiet", arguments->quiet, "no progress");
  command->footer(
      "Examples:\n"
      "  ektm bench configs/simulated/bench.yaml --output runs/bench\n"
      "  ektm bench configs/kuairand/plan.yaml --raw RAW --set parallel=4 --output runs/kuairand\n"
      "  ektm bench configs/kuairand/plan.yaml --raw RAW --check\n"
      "  ektm bench configs/results/*.yaml --raw RAW --output runs/results --update docs/results.md\n"
      "The folder gets runs/DATASET/MODEL/seed-N (ordinary run folders), trials/, results.md, .csv, .tex, .json and report.html.\n"
      "Ctrl-C stops after a checkpoint; the same command goes on. The numbers do not depend on interruptions, nor on `parallel`.");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
