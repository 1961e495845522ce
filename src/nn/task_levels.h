#pragma once
// Tasks by their place in chains of events: what models compute parent by parent is one operation a level.
#include <ATen/ATen.h>

#include <vector>

#include "data/batch.h"

namespace ektm {

// Level 0: the tasks that follow no other; level l: those whose `after` event is a task of level l - 1.
class TaskLevels {
 public:
  explicit TaskLevels(const std::vector<TaskInfo>& tasks);
  size_t count() const { return tasks_.size(); }
  const std::vector<int64_t>& tasks(size_t level) const { return tasks_[level]; }  // ascending
  // Rows of a tensor [K,...] that are the tasks of a level: [n,...].
  at::Tensor select(const at::Tensor& all, size_t level) const;
  // Level >= 1. `above` [n',...] of the level above -> the parent's of each task [n,...], or [1,...] where all have the same.
  at::Tensor parents(const at::Tensor& above, size_t level) const;
  // [n,...] of each level -> [K,...].
  at::Tensor join(const std::vector<at::Tensor>& levels) const;

 private:
  std::vector<std::vector<int64_t>> tasks_, parents_;  // parents_: places in the level above
  std::vector<int64_t> order_;                         // place of each task among all levels one after the other
};

// Binary cross entropy of path labels against P_t, the product of sigmoid(logits) along the chain to t, element-wise. Logarithms are
// taken before the product, and 1 - P_t = (1 - P_parent) + P_parent (1 - p_t) is summed in logarithms, so nothing is clamped.
// [K,B] x [K,B] -> [K,B]
at::Tensor path_bce(const at::Tensor& logits, const at::Tensor& path_labels, const TaskLevels& levels);

}  // namespace ektm
