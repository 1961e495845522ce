// `ektm`: the program. Every subcommand lives in a file of its own; errors end here.
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "commands.h"
#include "nn/threading.h"
#include "train/program_version.h"

namespace {

// CLI11 says of `ektm evalute` that a subcommand is required.
void refuse_unknown_command(const CLI::App& app, int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "";
  if (word.empty() || word.starts_with('-')) return;
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(command->get_name());
  if (std::find(names.begin(), names.end(), word) == names.end())
    ektm::fail(ektm::ErrorKind::Config, "the command line", "there is no command '{}'; expected one of: {}.{} `ektm --help` shows what each does.", word,
               fmt::join(names, ", "), ektm::did_you_mean(word, names));
}

}  // namespace

int main(int argc, char** argv) {
  ektm::keep_freed_memory();
  ektm::catch_interrupts();
  ektm::use_threads(0);  // `train` takes its config's
  CLI::App app{"ektm: multi-task ranking from logs to calibrated conversion probabilities"};
  app.set_version_flag("--version", std::string("ektm ") + ektm::program_version());
  app.require_subcommand(1);
  app.footer(
      "First steps:\n"
      "  ektm simulate logs --output data/raw\n"
      "  ektm prepare --schema data/raw/schema.yaml --train data/raw/train.parquet --valid data/raw/valid.parquet \\\n"
      "               --test data/raw/test.parquet --output data/encoded\n"
      "  ektm train configs/simulated/ektm.yaml --set data=data/encoded --output runs/first\n"
      "  ektm evaluate runs/first --data data/encoded --split test\n"
      "Each subcommand has --help with an example.");
  ektm::add_simulate_command(app);
  ektm::add_prepare_command(app);
  ektm::add_train_command(app);
  ektm::add_evaluate_command(app);
  ektm::add_predict_command(app);
  ektm::add_inspect_command(app);
  ektm::add_report_command(app);
  ektm::add_bench_command(app);
  ektm::add_models_command(app);
  try {
    refuse_unknown_command(app, argc, argv);
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& error) {  // a subcommand that ended with a code of its own
    return error.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 1;
  } catch (const ektm::Error& error) {
    std::fprintf(stderr, "ektm: %s\n", error.what());
    return error.exit_code();
  } catch (const ektm::Interrupted&) {
    std::fprintf(stderr, "\nInterrupted; nothing is left of what was not finished.\n");
    return 130;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "ektm: out of memory. Use smaller batches, tables (min_count, hash_buckets) or embeddings.\n");
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ektm: internal error: %s\nThis is a defect of ektm; please report it with the command line.\n", error.what());
    return 2;
  }
}
