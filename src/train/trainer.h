#pragma once
// The training loop over a run folder: same seed and threads, same bits; interrupted and resumed, the same bits again.
#include <filesystem>
#include <string>

#include "data/dataset.h"
#include "models/run_config.h"

namespace ektm {

struct TrainOptions {
  std::filesystem::path run;   // the run folder
  bool resume = false;         // go on from RUN/checkpoint.safetensors
  bool overwrite = false;      // replace an existing run
  bool profile = false;        // fill TrainOutcome::profile and write RUN/trace.json
};

enum class TrainEnd { Finished, Interrupted };

struct TrainOutcome {
  TrainEnd end = TrainEnd::Finished;
  int64_t steps = 0, best_step = 0;
  double best_value = 0, seconds = 0, samples_per_s = 0;
  std::string profile;  // a table: where the time went
};

// Trains and leaves in the run folder: config.yaml, schema.yaml, encoders/, model.safetensors (the weights of the best validation),
// checkpoint.safetensors (where --resume goes on), history.jsonl, tensorboard/, inspect.json, metrics-valid.json, metrics.json (test).
// When interrupt_flag() is set (base/interrupt.h) it writes a checkpoint after the current step and returns Interrupted.
// Errors: Config (run folder exists, resume with another config), Data, Io, Model (NaN or Inf in a loss: names step and task).
TrainOutcome train(const RunConfig& config, const TrainOptions& options);

// How that config's training rows are read. Error Config where train.label_shares names no task of the data set.
LoaderConfig loader_config(const RunConfig& config, const DatasetInfo& info);

}  // namespace ektm
