#pragma once
// A trained run, ready to score.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/encoder.h"
#include "models/network.h"

namespace ektm {

class Predictor {
 public:
  // Loads config.yaml, schema.yaml, encoders/ and model.safetensors of a run folder. Errors: Io (not a run folder), Data (damaged),
  // Model (weights that do not fit the configuration).
  explicit Predictor(const std::filesystem::path& run);

  const RunConfig& config() const { return config_; }
  const DatasetInfo& info() const { return encoders_->info(); }
  const Encoders& encoders() const { return *encoders_; }
  const Network& network() const { return *network_; }

  // Error Data when the data set was encoded with another schema or other encoders than the run's.
  void check_dataset(const DatasetInfo& info, const std::string& where) const;

 private:
  RunConfig config_;
  std::unique_ptr<Encoders> encoders_;
  std::unique_ptr<Network> network_;
};

// Scores raw files and writes a Parquet file: the columns `keep` as they stand in the input, then for each task p_TASK (float,
// conditional on its `after` event) and for each conversion path_TASK (pCTCVR). Whole or absent. Returns the number of rows.
int64_t predict_files(const Predictor& predictor, const RawInput& input, const std::vector<std::string>& keep,
                      const std::filesystem::path& output);

}  // namespace ektm
