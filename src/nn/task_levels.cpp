#include "nn/task_levels.h"

#include <algorithm>

#include "base/error.h"

namespace ektm {
namespace {

// Rows `numbers` of a tensor; a view where they are a run.
at::Tensor rows_of(const at::Tensor& x, const std::vector<int64_t>& numbers) {
  const int64_t count = static_cast<int64_t>(numbers.size());
  for (int64_t i = 0; i < count; ++i)
    if (numbers[i] != numbers[0] + i) return x.index_select(0, at::tensor(numbers));
  return x.narrow(0, numbers[0], count);
}

}  // namespace

TaskLevels::TaskLevels(const std::vector<TaskInfo>& tasks) {
  std::vector<size_t> level(tasks.size());
  std::vector<int64_t> place(tasks.size());
  for (size_t t = 0; t < tasks.size(); ++t) {
    const int32_t parent = tasks[t].parent;
    EKTM_CHECK(parent < static_cast<int64_t>(t));
    level[t] = parent < 0 ? 0 : level[parent] + 1;
    if (level[t] == tasks_.size()) tasks_.emplace_back(), parents_.emplace_back();
    place[t] = static_cast<int64_t>(tasks_[level[t]].size());
    tasks_[level[t]].push_back(static_cast<int64_t>(t));
    parents_[level[t]].push_back(parent < 0 ? -1 : place[parent]);
  }
  for (size_t t = 0; t < tasks.size(); ++t) {
    int64_t before = 0;
    for (size_t l = 0; l < level[t]; ++l) before += static_cast<int64_t>(tasks_[l].size());
    order_.push_back(before + place[t]);
  }
}

at::Tensor TaskLevels::select(const at::Tensor& all, size_t level) const { return rows_of(all, tasks_[level]); }

at::Tensor TaskLevels::parents(const at::Tensor& above, size_t level) const {
  const auto& places = parents_[level];
  if (std::all_of(places.begin(), places.end(), [&](int64_t place) { return place == places[0]; })) return above.narrow(0, places[0], 1);
  return rows_of(above, places);
}

at::Tensor TaskLevels::join(const std::vector<at::Tensor>& levels) const { return levels.size() == 1 ? levels[0] : rows_of(at::cat(levels), order_); }

at::Tensor path_bce(const at::Tensor& logits, const at::Tensor& path_labels, const TaskLevels& levels) {
  std::vector<at::Tensor> happened, failed;  // log P, log(1 - P) by level
  for (size_t l = 0; l < levels.count(); ++l) {
    at::Tensor z = levels.select(logits, l), yes = at::log_sigmoid(z), no = at::log_sigmoid(-z);
    if (l == 0) {
      happened.push_back(yes);
      failed.push_back(no);
    } else {
      at::Tensor before = levels.parents(happened[l - 1], l);
      happened.push_back(before + yes);
      failed.push_back(at::logaddexp(levels.parents(failed[l - 1], l), before + no));
    }
  }
  return -(path_labels * levels.join(happened) + (1 - path_labels) * levels.join(failed));
}

}  // namespace ektm
