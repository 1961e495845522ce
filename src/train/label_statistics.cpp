#include "train/label_statistics.h"

#include <algorithm>
#include <cmath>

namespace ektm {

bool needs_label_statistics(const RunConfig& config, const DatasetInfo& info) {
  auto is = [&](const char* key, const char* value) { return config.model[key] && config.model[key].as<std::string>() == value; };
  if (std::any_of(info.tasks.begin(), info.tasks.end(), [](const TaskInfo& task) { return task.parent >= 0; }))
    for (const char* of_paths : {"esmm", "escm2_ipw", "escm2_dr", "dcmt", "aitm"})
      if (is("name", of_paths)) return true;
  return is("similarity", "label") || (is("transmit", "mix") && is("mix_start", "labels"));
}

LabelStatistics label_statistics(const Dataset& train, LoaderConfig loader_config) {
  const int64_t count = static_cast<int64_t>(train.info().tasks.size());
  struct Counts {
    double both_observed = 0, first = 0, second = 0, both = 0;
  };
  std::vector<Counts> counts(count * count);
  loader_config.batch_rows = 8192;
  loader_config.shuffle = false;
  Loader loader(train, loader_config);
  loader.start_epoch(0);
  while (const Batch* batch = loader.next())
    for (int64_t b = 0; b < batch->rows; ++b) {
      const uint8_t* label = batch->labels.data() + b * count;
      const uint8_t* observed = batch->observed.data() + b * count;
      for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < count; ++j) {
          if (!observed[i] || !observed[j]) continue;
          Counts& c = counts[i * count + j];
          ++c.both_observed;
          c.first += label[i];
          c.second += label[j];
          c.both += label[i] && label[j];
        }
    }
  LabelStatistics result{at::eye(count), at::zeros({count, count}), at::zeros({count}), std::vector<double>(count, 1.0)};
  for (int64_t t = 0; t < count; ++t)
    if (const int32_t parent = train.info().tasks[t].parent; parent >= 0)
      if (const double came = counts[parent * count + parent].first; came > 0) result.known[t] = counts[parent * count + t].first / came;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < count; ++j) {
      const Counts& c = counts[i * count + j];
      result.rows[i][j] = c.both_observed;
      if (i == j) result.rarer[i] = std::min(c.first, c.both_observed - c.first);
      if (i == j || c.both_observed == 0) continue;
      const double n = c.both_observed, p = c.first / n, q = c.second / n, variance = p * (1 - p) * q * (1 - q);
      result.similarity[i][j] = variance > 0 ? (c.both / n - p * q) / std::sqrt(variance) : 0.0;
    }
  return result;
}

}  // namespace ektm
