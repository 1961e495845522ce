#pragma once
// Rows of the simulated logs as Arrow tables, and files of them.
#include <arrow/api.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "sim/platform.h"

namespace ektm {

// The newest clicks of every user: categories of the clicked items.
class ClickHistories {
 public:
  ClickHistories(int64_t users, int64_t length) : length_(length), next_(users, 0), values_(users * length) {}
  void add(uint32_t user, uint8_t category) {
    values_[user * length_ + next_[user] % length_] = category;
    // Counts on, but stays small: what matters is the place of the next value and whether the ring is full.
    next_[user] = next_[user] + 1 == 2 * length_ ? length_ : next_[user] + 1;
  }
  int64_t count(uint32_t user) const { return next_[user] < length_ ? next_[user] : length_; }
  // i = 0: the oldest that is kept.
  uint8_t at(uint32_t user, int64_t i) const { return values_[user * length_ + (next_[user] - count(user) + i) % length_]; }

 private:
  int64_t length_;
  std::vector<uint8_t> next_;
  std::vector<uint8_t> values_;
};

// Collects impressions; finish() gives them as a batch and starts anew.
class LogBatchBuilder {
 public:
  // text_lists: lists become texts joined by "|" (CSV).
  LogBatchBuilder(const Platform& platform, bool text_lists);
  ~LogBatchBuilder();
  const std::shared_ptr<arrow::Schema>& schema() const;
  // labels[t]: 0 or 1, or kNotReported.
  static constexpr uint8_t kNotReported = 2;
  void add(const Impression& impression, const ClickHistories& histories, const std::array<uint8_t, kMaxTasks>& labels);
  std::shared_ptr<arrow::RecordBatch> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// impression_id, p_<task>...
class TruthBatchBuilder {
 public:
  explicit TruthBatchBuilder(const Platform& platform);
  ~TruthBatchBuilder();
  const std::shared_ptr<arrow::Schema>& schema() const;
  void add(const Impression& impression, const Probabilities& probabilities);
  std::shared_ptr<arrow::RecordBatch> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Appends batches to a Parquet or CSV file. Error Io.
class TableWriter {
 public:
  TableWriter(std::filesystem::path path, std::shared_ptr<arrow::Schema> schema, bool csv);
  ~TableWriter();
  void write(const std::shared_ptr<arrow::RecordBatch>& batch);
  void close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ektm
