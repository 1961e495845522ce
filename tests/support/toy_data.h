#pragma once
// A small made-up data set for tests of models: every kind of input, masks, weights, chains.
#include <string>

#include "base/random.h"
#include "data/batch.h"

namespace ektm {

// 3 single-valued fields over 2 tables (two share one), a mean-pooled and a sum-pooled bag, 2 numbers.
// chain "parallel": click -> a, b, c;  "sequential": click -> a -> b -> c;  "roots": a, b independent of each other;
// "one": click -> a;  "two_roots": view -> a -> c and click -> b, conversions and roots in mixed order.
inline DatasetInfo toy_info(const std::string& chain) {
  DatasetInfo info;
  info.tables = {{"user", 12}, {"item", 20}};
  info.fields = {{"user", 0, false}, {"item", 1, false}, {"last_item", 1, false}};
  info.bags = {{"history", 1, false}, {"tags", 0, true}};
  info.numbers = {"price", "age"};
  if (chain == "parallel") info.tasks = {{"click", -1}, {"a", 0}, {"b", 0}, {"c", 0}};
  if (chain == "sequential") info.tasks = {{"click", -1}, {"a", 0}, {"b", 1}, {"c", 2}};
  if (chain == "one") info.tasks = {{"click", -1}, {"a", 0}};
  if (chain == "two_roots") info.tasks = {{"view", -1}, {"a", 0}, {"click", -1}, {"b", 2}, {"c", 1}};
  if (chain == "roots") info.tasks = {{"a", -1}, {"b", -1}};
  info.schema_hash = "toy";
  return info;
}

// Labels are random; a conversion is observed where its parent happened. `weights`: sample weights in [0.5, 1.5), and of each conversion's labels
// a fifth is hidden, whatever else is seen of the row, as train.label_shares does it.
inline Batch toy_batch(const DatasetInfo& info, int64_t rows, uint64_t seed, bool weights = false) {
  Rng rng(seed);
  Batch batch;
  batch.rows = rows;
  const size_t tasks = info.tasks.size();
  for (int64_t b = 0; b < rows; ++b) {
    for (const auto& field : info.fields) batch.ids.push_back(static_cast<int32_t>(rng.below(info.tables[field.table].rows)));
    for (size_t n = 0; n < info.numbers.size(); ++n) batch.numbers.push_back(static_cast<float>(rng.normal()));
    const size_t first = batch.labels.size();
    for (size_t t = 0; t < tasks; ++t) {
      const int32_t parent = info.tasks[t].parent;
      const bool observed = parent < 0 || (batch.observed[first + parent] && batch.labels[first + parent]);
      batch.observed.push_back(observed);
      batch.labels.push_back(observed && rng.uniform() < 0.5);
    }
    if (weights) batch.weights.push_back(static_cast<float>(0.5 + rng.uniform()));
    for (size_t t = 0; weights && t < tasks; ++t)
      if (info.tasks[t].parent >= 0 && rng.uniform() < 0.2) batch.observed[first + t] = 0, batch.labels[first + t] = 0;
  }
  batch.bags.resize(info.bags.size());
  for (size_t k = 0; k < info.bags.size(); ++k) {
    batch.bags[k].offsets.push_back(0);
    for (int64_t b = 0; b < rows; ++b) {
      for (uint64_t i = 0, length = 1 + rng.below(4); i < length; ++i)
        batch.bags[k].values.push_back(static_cast<int32_t>(rng.below(info.tables[info.bags[k].table].rows)));
      batch.bags[k].offsets.push_back(static_cast<int32_t>(batch.bags[k].values.size()));
    }
  }
  return batch;
}

}  // namespace ektm
