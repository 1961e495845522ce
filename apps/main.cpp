// `ektm`: the program. Every subcommand lives in a file of its own; errors end here.
#include <cstdio>
#include <exception>
#include <new>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "commands.h"
#include "nn/threading.h"
#include "train/program_version.h"

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
