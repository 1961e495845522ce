#pragma once
// What the simulated platform looks like.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/fields.h"

namespace ektm {

// A task of the platform, resolved from the config. Task 0 is always the click.
struct SimulatedTask {
  std::string name;
  int parent = -1;         // index of the event that must happen first; -1 for the click
  double relatedness = 1;  // correlation of its interest with the interest that all events share
  double rate = 0;         // share of positives among the rows where the parent happened
};

struct SimulationConfig {
  std::string pattern = "parallel";
  int64_t rows = 1'000'000;
  int64_t users = 50'000;
  int64_t items = 10'000;
  int64_t days = 14;
  int64_t valid_days = 1;
  int64_t test_days = 2;
  int64_t seed = 1;
  double ctr = 0.05;
  std::vector<std::pair<std::string, double>> rates;        // conversions not named keep the pattern's default
  std::vector<std::pair<std::string, double>> relatedness;  // likewise
  double signal = 1.2;
  double id_noise = 0.3;
  double search_share = 0.3;
  double drift = 0.3;
  double missing = 0.03;
  double unreported = 0;
  int64_t history_length = 10;
  std::string format = "parquet";

  void fields(FieldVisitor& v);

  // The click first, then the conversions, parents before children. Error Config (where = the key) when `rates` or `relatedness`
  // name no conversion of the pattern.
  std::vector<SimulatedTask> tasks() const;
  // Error Config for combinations that fields() cannot see: splits without a day or a row, unknown task names.
  void check() const;

  // Smaller and with more clicks: a minute's work for a model on two cores, still learnable.
  static SimulationConfig quick();
};

// The conversions of a pattern ("parallel" | "sequential"), in order.
std::vector<std::string> conversion_names(const std::string& pattern);

}  // namespace ektm
