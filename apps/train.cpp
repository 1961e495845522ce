// ektm train CONFIG.yaml --output RUN
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/log.h"
#include "commands.h"
#include "shell_word.h"
#include "train/trainer.h"

namespace ektm {
namespace {

struct Arguments {
  std::string config, output;
  std::vector<std::string> overrides;
  int64_t seed = -1, threads = -1;
  bool resume = false, overwrite = false, quiet = false, profile = false;
};

void run(const Arguments& arguments) {
  set_quiet(arguments.quiet);
  std::vector<std::string> overrides = arguments.overrides;
  if (arguments.seed >= 0) overrides.push_back("seed=" + std::to_string(arguments.seed));
  if (arguments.threads >= 0) overrides.push_back("threads=" + std::to_string(arguments.threads));
  RunConfig config = load_run_config(arguments.config, overrides);
  TrainOptions options;
  options.run = arguments.output;
  options.resume = arguments.resume;
  options.overwrite = arguments.overwrite;
  options.profile = arguments.profile;
  TrainOutcome outcome = train(config, options);
  if (outcome.end == TrainEnd::Interrupted) {
    // The run's own config holds what --set, --seed and --threads decided.
    const std::string config_file = (std::filesystem::path(arguments.output) / "config.yaml").string();
    std::fprintf(stderr, "\nInterrupted after step %ld; the checkpoint is written. Go on with:\n  ektm train %s --output %s --resume\n",
                 outcome.steps, shell_word(config_file).c_str(), shell_word(arguments.output).c_str());
    throw CLI::RuntimeError(130);
  }
  std::printf("%s: %ld steps in %.1f s (%s samples/s); best %s %.5f at step %ld\nrun folder: %s\n", config.model_name().c_str(), outcome.steps,
              outcome.seconds, compact(outcome.samples_per_s).c_str(), config.train.early_stopping.metric.c_str(), outcome.best_value,
              outcome.best_step, arguments.output.c_str());
  if (arguments.profile)
    std::printf("\n%strace: %s/trace.json (chrome://tracing or ui.perfetto.dev opens it)\n", outcome.profile.c_str(), arguments.output.c_str());
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("train", "Train a model into a run folder");
  command->add_option("config", arguments->config, "YAML file; `ektm models` lists its keys")->required();
  command->add_option("-o,--output", arguments->output, "run folder")->required();
  command->add_option("--set", arguments->overrides, "KEY=VALUE, over the file's value, e.g. --set train.epochs=3")->allow_extra_args(false);
  command->add_option("--seed", arguments->seed, "over the file's seed")->check(CLI::NonNegativeNumber);
  command->add_option("--threads", arguments->threads, "over the file's threads; 0 = all cores")->check(CLI::NonNegativeNumber);
  auto* resume = command->add_flag("--resume", arguments->resume, "go on from the run's last checkpoint, bit for bit");
  command->add_flag("--overwrite", arguments->overwrite, "replace an existing run folder")->excludes(resume);
  command->add_flag("--profile", arguments->profile, "show where the time goes, and write RUN/trace.json for a browser's trace viewer");
  command->add_flag("-q,--quiet", arguments->quiet, "no progress");
  command->footer(
      "Example:\n"
      "  ektm train configs/kuairand/ektm-mmoe.yaml --set data=data/kuairand --set model.lambda=0.5 --seed 7 --output runs/ektm-7\n"
      "Ctrl-C writes a checkpoint; --resume goes on. Watch with: tensorboard --logdir runs");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace ektm
