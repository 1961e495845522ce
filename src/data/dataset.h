#pragma once
// An encoded data set on disk (written by `ektm prepare`), memory-mapped, and the loader that cuts it into batches.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"

namespace ektm {

inline constexpr int kDatasetFormatVersion = 1;

// One split of an encoded data set, memory-mapped. Thread-safe for reading.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t rows() const = 0;
  virtual const DatasetInfo& info() const = 0;
  // Copies the rows with the given numbers into `batch`, whose buffers are reused.
  virtual void gather(const int64_t* row_numbers, int64_t count, Batch& batch) const = 0;
};

// Opens DIR/<split>. split: "train" | "valid" | "test". Error Io when absent, Data when damaged (checksum, format version, counts).
// `verify` checks the checksum of every file first (a sequential read).
std::unique_ptr<Dataset> open_dataset(const std::filesystem::path& dir, const std::string& split, bool verify = true);

// The manifest's part that models need, without opening a split.
DatasetInfo read_dataset_info(const std::filesystem::path& dir);

struct LoaderConfig {
  int64_t batch_rows = 1024;
  bool shuffle = false;
  uint64_t seed = 0;        // the order of epoch e depends on (seed, e) alone
  bool prefetch = true;     // a thread prepares the next batch
  bool drop_last = false;
  // [K] of the tasks, or empty = 1: the share of rows whose label stays observed. Which ones depends on (seed, row, task) alone.
  std::vector<double> label_shares;
};

// Batches of one split. Not thread-safe. Prefetch on = off, bit for bit.
class Loader {
 public:
  Loader(const Dataset& dataset, LoaderConfig config);
  ~Loader();
  // Starts epoch `epoch` at batch number `batch` (0 = its beginning; > 0 resumes inside).
  void start_epoch(int64_t epoch, int64_t batch = 0);
  // The next batch, valid until the next call; nullptr at the end of the epoch.
  const Batch* next();
  int64_t batches_per_epoch() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Calls consume(batch) for the whole split in order.
template <class Consume>
void for_each_batch(const Dataset& dataset, int64_t batch_rows, Consume consume) {
  LoaderConfig config;
  config.batch_rows = batch_rows;
  Loader loader(dataset, config);
  loader.start_epoch(0);
  while (const Batch* batch = loader.next()) consume(*batch);
}

}  // namespace ektm
