// ektm predict RUN --input raw files --output scores.parquet
#include <cstdio>
#include <memory>

#include "base/log.h"
#include "commands.h"
#include "serve/predictor.h"

namespace ektm {
namespace {

struct Arguments {
  std::string run, output;
  RawInput input;
  std::vector<std::string> keep;
  bool quiet = false;
};

void run(const Arguments& arguments) {
  set_quiet(arguments.quiet);
  Predictor predictor(arguments.run);
  const int64_t rows = predict_files(predictor, arguments.input, arguments.keep, arguments.output);
  std::printf("%s rows -> %s\n", with_commas(rows).c_str(), arguments.output.c_str());
}

}  // namespace

void add_predict_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("predict", "Score raw rows with a run's own encoders and model");
  command->add_option("run", arguments->run, "run folder")->required();
  command->add_option("-i,--input", arguments->input.files, "CSV (also .gz), Parquet, Arrow, or folders of them; labels are not needed")->required();
  command->add_option("-o,--output", arguments->output, "Parquet file: kept columns, p_TASK, path_TASK")->required();
  command->add_option("-k,--keep", arguments->keep, "input columns to copy beside the scores, e.g. --keep user_id,item_id")->delimiter(',');
  command->add_flag("-q,--quiet", arguments->quiet, "no progress");
  command->footer(
      "Rows keep the input's order. p_TASK is conditional on the task's `after` event, path_TASK is the product along the chain.\n"
      "Example:\n  ektm predict runs/ektm-7 --input logs/today.parquet --keep user_id,video_id --output scores.parquet");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
