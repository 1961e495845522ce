#pragma once
// A made-up training problem of a given size, and its steps timed. Labels are random: for speed, not for quality.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/random.h"
#include "models/network.h"
#include "nn/threading.h"
#include "train/stepper.h"

namespace ektm::bench {

// Ranks 0 .. n-1 with probability proportional to about (rank + 1)^-exponent, by inversion of the continuous distribution. Ranks
// are scattered over the table: what is popular does not lie side by side.
class ZipfIds {
 public:
  // Exponent 1, whose inverse is an exponential, is taken as its limit.
  ZipfIds(int64_t n, double exponent) : n_(n), power_(exponent == 1 ? 1e-9 : 1 - exponent),
                                        last_(std::pow(static_cast<double>(n) + 1, power_)) {}
  int32_t next(Rng& rng) const {
    const double x = std::pow(1 + rng.uniform() * (last_ - 1), 1 / power_);
    const int64_t rank = std::min(n_ - 1, static_cast<int64_t>(x) - 1);
    return static_cast<int32_t>(static_cast<uint64_t>(rank) * 2654435761U % static_cast<uint64_t>(n_));  // a prime: one to one
  }

 private:
  int64_t n_;
  double power_, last_;
};

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

template <class Work>
double seconds(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct ProblemSize {
  int64_t fields = 23, dim = 16, rows = 1000000;  // rows of all tables together
  int64_t conversions = 6, batch = 4096;
  int64_t batches = 16;  // that the steps go round
  std::string precision = "f32";
};

struct Problem {
  DatasetInfo info;
  std::vector<Batch> batches;

  explicit Problem(const ProblemSize& size) {
    for (int64_t f = 0; f < size.fields; ++f) {
      info.tables.push_back({fmt::format("table{}", f), std::max<int64_t>(kFirstValueRow + 1, size.rows / size.fields)});
      info.fields.push_back({fmt::format("field{}", f), static_cast<int32_t>(f), false});
    }
    info.tasks.push_back({"click", -1});
    for (int64_t t = 0; t < size.conversions; ++t) info.tasks.push_back({fmt::format("conversion{}", t), 0});
    const ZipfIds zipf(info.tables[0].rows, 1.05);
    Rng rng(1);
    batches.resize(size.batches);
    for (Batch& batch : batches) {
      batch.rows = size.batch;
      for (int64_t i = 0; i < size.batch * size.fields; ++i) batch.ids.push_back(zipf.next(rng));
      for (int64_t b = 0; b < size.batch; ++b) {
        const bool click = rng.uniform() < 0.3;
        batch.labels.push_back(click);
        batch.observed.push_back(1);
        for (int64_t t = 0; t < size.conversions; ++t) {
          batch.observed.push_back(click);
          batch.labels.push_back(click && rng.uniform() < 0.1);
        }
      }
    }
  }
};

struct Training {
  RunConfig config;
  Network network;
  Stepper stepper;
  const Problem& problem;
  size_t next = 0;

  // `model`: YAML.
  Training(const Problem& problem_in, const ProblemSize& size, const std::string& model)
      : config(parse_run_config(parse_yaml(fmt::format("embedding: {{dim: {}}}", size.dim), "benchmark"), "benchmark", {"model=" + model, "precision=" + size.precision})),
        network(config, problem_in.info), stepper(network, config, 1 << 30), problem(problem_in) {}

  void step() { stepper.step(problem.batches[next++ % problem.batches.size()]); }

  // Seconds of each of `steps` steps.
  std::vector<double> time(int64_t steps) {
    std::vector<double> times;
    for (int64_t i = 0; i < steps; ++i) times.push_back(seconds([&] { step(); }));
    return times;
  }
};

}  // namespace ektm::bench
