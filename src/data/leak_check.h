#pragma once
// Finds features that give a label away: one column alone, fitted on half of a sample of the training rows, ranks the other half.
#include <string>
#include <vector>

#include "data/batch.h"

namespace ektm {

struct Leak {
  std::string feature, task;
  double auc = 0;
};

class LeakCheck {
 public:
  static constexpr double kMaxAuc = 0.99;
  static constexpr int64_t kMinRows = 100;  // positives and negatives that a task needs to be checked
  // `rows`: of the training split; about a million of them at most, and 32 million cells, are sampled by a hash of their number.
  LeakCheck(const DatasetInfo& info, int64_t rows);
  // The rows in order.
  void add(const Batch& batch);
  // Those above kMaxAuc. An id is scored by the mean label of its rows in the fitting half, a list by the mean over its values, a
  // number by its value and by the mean label of its quantile; what the fitting half lacks has the mean label of all.
  std::vector<Leak> find() const;

 private:
  struct Column {
    std::string name;
    std::vector<int32_t> offsets, values;  // of a list; of an id only values
    std::vector<float> numbers;
    int64_t table_rows = 0;
  };
  // The values of a column as categories 0 .. count-1, no more of them than there are values in the sample.
  struct Categories {
    const std::vector<int32_t>* values;  // the column's, or `own`
    std::vector<int32_t> own;
    int64_t count = 0;
  };
  // The sampled rows where a task is observed: of conversions, few among many.
  struct TaskRows {
    struct Row {
      uint32_t row : 31, label : 1;
    };
    std::vector<Row> fitting, scoring;  // of the two halves
    double fitting_positives = 0;
  };
  TaskRows rows_of(size_t task) const;
  void find_categories(const Column& column, Categories& categories) const;
  static double auc(const Column& column, const Categories& categories, const TaskRows& rows);

  const DatasetInfo info_;
  double share_;
  int64_t next_row_ = 0, rows_ = 0;  // seen; sampled
  std::vector<Column> columns_;
  std::vector<uint8_t> labels_, observed_, fitting_;  // [rows, K], [rows, K], [rows]
  std::vector<size_t> sampled_;                       // rows of the batch
};

}  // namespace ektm
