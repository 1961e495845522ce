#include "data/leak_check.h"

#include <algorithm>

#include "base/auc.h"
#include "base/random.h"
#include "data/number_encoding.h"

namespace ektm {
namespace {

constexpr int64_t kSampleRows = 1'000'000, kSampleCells = 32'000'000;
constexpr uint64_t kSampleSeed = 1, kHalfSeed = 2;
constexpr int64_t kQuantiles = 256;

// Mean labels of categories 0 .. n-1, drawn towards the mean of all by one row.
class TargetMeans {
 public:
  TargetMeans(int64_t categories, double mean) : sums_(categories, {mean, 1}) {}
  void add(int64_t category, bool label) {
    sums_[category].labels += label;
    ++sums_[category].rows;
  }
  double operator[](int64_t category) const { return sums_[category].labels / sums_[category].rows; }

 private:
  struct Sum {  // side by side: one miss of the cache
    double labels, rows;
  };
  std::vector<Sum> sums_;
};

// The area under the curve of single rows.
double auc_of(std::vector<double> positives, std::vector<double> negatives) {
  sort_numbers(positives);
  sort_numbers(negatives);
  std::vector<ScoredRows> scored;
  scored.reserve(positives.size() + negatives.size());
  for (size_t p = 0, n = 0; p < positives.size() || n < negatives.size();) {
    const bool takes_positive = n == negatives.size() || (p < positives.size() && positives[p] <= negatives[n]);
    const double score = takes_positive ? positives[p] : negatives[n];
    ScoredRows& rows = scored.emplace_back(ScoredRows{score, 0, 0});
    for (; p < positives.size() && positives[p] == score; ++p) ++rows.positives;
    for (; n < negatives.size() && negatives[n] == score; ++n) ++rows.negatives;
  }
  return tie_aware_auc(scored).value_or(0.5);
}

}  // namespace

LeakCheck::LeakCheck(const DatasetInfo& info, int64_t rows) : info_(info) {
  const int64_t width = static_cast<int64_t>(info.fields.size() + info.bags.size() + info.numbers.size()) + 1;
  const double limit = static_cast<double>(std::min(kSampleRows, kSampleCells / width));
  share_ = rows > 0 ? std::min(1.0, limit / static_cast<double>(rows)) : 1;
  for (const auto& field : info.fields) {
    Column& column = columns_.emplace_back();
    column.name = field.name;
    column.table_rows = info.tables[field.table].rows;
  }
  for (const auto& bag : info.bags) {
    Column& column = columns_.emplace_back();
    column.name = bag.name;
    column.table_rows = info.tables[bag.table].rows;
    column.offsets = {0};
  }
  for (const auto& name : info.numbers) columns_.emplace_back().name = name;
  const size_t expected = static_cast<size_t>(share_ * static_cast<double>(rows) * 1.01) + 1;
  for (size_t c = 0; c < columns_.size(); ++c) {
    if (c >= info.fields.size() + info.bags.size())
      columns_[c].numbers.reserve(expected);
    else
      columns_[c].values.reserve(expected);
  }
}

void LeakCheck::add(const Batch& batch) {
  const size_t fields = info_.fields.size(), bags = info_.bags.size(), numbers = info_.numbers.size(), tasks = info_.tasks.size();
  sampled_.clear();
  for (int64_t b = 0; b < batch.rows; ++b) {
    const uint64_t row = static_cast<uint64_t>(next_row_++);
    if (share_ < 1 && Rng(kSampleSeed, row).uniform() >= share_) continue;
    sampled_.push_back(static_cast<size_t>(b));
    fitting_.push_back(Rng(kHalfSeed, row).next() & 1);
  }
  rows_ += static_cast<int64_t>(sampled_.size());
  for (size_t b : sampled_) {
    labels_.insert(labels_.end(), batch.labels.begin() + b * tasks, batch.labels.begin() + (b + 1) * tasks);
    observed_.insert(observed_.end(), batch.observed.begin() + b * tasks, batch.observed.begin() + (b + 1) * tasks);
  }
  for (size_t f = 0; f < fields; ++f) {
    auto& values = columns_[f].values;
    size_t at = values.size();
    values.resize(at + sampled_.size());
    for (size_t b : sampled_) values[at++] = batch.ids[b * fields + f];
  }
  for (size_t k = 0; k < bags; ++k) {
    const Bag& bag = batch.bags[k];
    Column& column = columns_[fields + k];
    for (size_t b : sampled_) {
      column.values.insert(column.values.end(), bag.values.begin() + bag.offsets[b], bag.values.begin() + bag.offsets[b + 1]);
      column.offsets.push_back(static_cast<int32_t>(column.values.size()));
    }
  }
  for (size_t n = 0; n < numbers; ++n)
    for (size_t b : sampled_) columns_[fields + bags + n].numbers.push_back(batch.numbers[b * numbers + n]);
}

LeakCheck::TaskRows LeakCheck::rows_of(size_t task) const {
  const size_t tasks = info_.tasks.size();
  TaskRows rows;
  for (int64_t r = 0; r < rows_; ++r) {
    const size_t at = static_cast<size_t>(r) * tasks + task;
    if (!observed_[at]) continue;
    (fitting_[r] ? rows.fitting : rows.scoring).push_back({static_cast<uint32_t>(r), labels_[at]});
    rows.fitting_positives += fitting_[r] && labels_[at];
  }
  return rows;
}

std::vector<Leak> LeakCheck::find() const {
  std::vector<std::pair<size_t, TaskRows>> checked;  // tasks and their rows
  for (size_t t = 0; t < info_.tasks.size(); ++t) {
    TaskRows rows = rows_of(t);
    int64_t positives = 0;
    for (const auto* half : {&rows.fitting, &rows.scoring})
      for (const auto row : *half) positives += row.label;
    const int64_t negatives = static_cast<int64_t>(rows.fitting.size() + rows.scoring.size()) - positives;
    if (positives >= kMinRows && negatives >= kMinRows) checked.emplace_back(t, std::move(rows));
  }
  std::vector<Leak> leaks;
  if (checked.empty()) return leaks;
  Categories categories;
  for (const auto& column : columns_) {
    find_categories(column, categories);
    for (const auto& [t, rows] : checked)
      if (const double found = auc(column, categories, rows); found > kMaxAuc)
        leaks.push_back({column.name, info_.tasks[t].name, found});
  }
  return leaks;
}

void LeakCheck::find_categories(const Column& column, Categories& categories) const {
  categories.own.clear();
  categories.values = &categories.own;
  if (!column.numbers.empty()) {
    QuantileSample sample(0);
    for (int64_t r = 0; r < rows_; ++r)
      if (fitting_[r]) sample.add(column.numbers[r]);
    const std::vector<double> edges = sample.edges(kQuantiles);
    for (float x : column.numbers) categories.own.push_back(bin_of(edges, x));
    categories.count = static_cast<int64_t>(edges.size()) + 1;
    return;
  }
  categories.values = &column.values;
  categories.count = column.table_rows;
  if (categories.count > static_cast<int64_t>(column.values.size())) {
    std::vector<int32_t> known = column.values;
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    for (int32_t value : column.values)
      categories.own.push_back(static_cast<int32_t>(std::lower_bound(known.begin(), known.end(), value) - known.begin()));
    categories.values = &categories.own;
    categories.count = static_cast<int64_t>(known.size());
  }
}

double LeakCheck::auc(const Column& column, const Categories& categories, const TaskRows& rows) {
  const auto& values = *categories.values;
  if (rows.fitting.empty()) return 0.5;
  TargetMeans means(categories.count, rows.fitting_positives / static_cast<double>(rows.fitting.size()));
  double best;
  std::vector<double> scores[2];  // of negatives and positives
  if (column.offsets.empty()) {   // rows of one category have one score
    for (const auto row : rows.fitting) means.add(values[row.row], row.label);
    std::vector<ScoredRows> scored(categories.count);
    for (int64_t c = 0; c < categories.count; ++c) scored[c].score = means[c];
    for (const auto row : rows.scoring) {
      ScoredRows& category = scored[values[row.row]];
      ++(row.label ? category.positives : category.negatives);
    }
    best = tie_aware_auc(scored).value_or(0.5);
  } else {
    const auto& offsets = column.offsets;
    for (const auto row : rows.fitting)
      for (int32_t i = offsets[row.row]; i < offsets[row.row + 1]; ++i) means.add(values[i], row.label);
    for (const auto row : rows.scoring) {
      const int32_t first = offsets[row.row], last = offsets[row.row + 1];
      double sum = 0;
      for (int32_t i = first; i < last; ++i) sum += means[values[i]];
      scores[row.label].push_back(sum / static_cast<double>(last - first));
    }
    best = auc_of(std::move(scores[1]), std::move(scores[0]));
  }
  if (!column.numbers.empty()) {
    for (const auto row : rows.scoring) scores[row.label].push_back(column.numbers[row.row]);
    const double by_value = auc_of(std::move(scores[1]), std::move(scores[0]));
    best = std::max({best, by_value, 1 - by_value});
  }
  return best;
}

}  // namespace ektm
