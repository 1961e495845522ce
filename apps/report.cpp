// ektm report RUN [RUN...]
#include "report/report.h"

#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "commands.h"

namespace ektm {
namespace {

struct Arguments {
  std::vector<std::string> runs;
  std::string output, title, intro, dataset;
  bool quiet = false;
};

void run(const Arguments& arguments) {
  set_quiet(arguments.quiet);
  std::vector<ReportRun> runs;
  for (const auto& folder : arguments.runs) runs.push_back(load_report_run(folder));
  ReportOptions options;
  if (!arguments.title.empty()) options.title = arguments.title;
  options.intro = arguments.intro;
  if (!arguments.dataset.empty()) {
    try {
      options.dataset = nlohmann::json::parse(read_file(arguments.dataset));
    } catch (const nlohmann::json::exception& error) {
      fail(ErrorKind::Data, "--dataset " + arguments.dataset, "is no JSON: {}. Give a JSON object of facts about the data set.",
           error.what());
    }
  }
  const std::filesystem::path output = !arguments.output.empty()    ? std::filesystem::path(arguments.output)
                                       : arguments.runs.size() == 1 ? std::filesystem::path(arguments.runs[0]) / "report.html"
                                                                    : "report.html";
  write_file_atomic(output, render_report(runs, options));
  std::fputs(comparison_table(runs).c_str(), stdout);
  std::fflush(stdout);  // before the next line on stderr
  log_info("wrote {}", output.string());
}

}  // namespace

void add_report_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("report", "Runs side by side: a table here and one HTML file with charts");
  command->add_option("runs", arguments->runs, "run folders with a metrics.json, in the order in which they are to be shown")
      ->required();
  command->add_option("-o,--output", arguments->output,
                      "the HTML file; default: RUN/report.html for one run, report.html for several");
  command->add_option("--title", arguments->title, "title of the page");
  command->add_option("--intro", arguments->intro, "a paragraph below the title");
  command->add_option("--dataset", arguments->dataset, "a JSON file with facts about the data set, shown as a table");
  command->add_flag("-q,--quiet", arguments->quiet, "the table only");
  command->footer(
      "The page needs no network and no script; it can be printed.\nExample:\n  ektm report runs/single_task runs/mmoe runs/ektm "
      "-o report.html");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
