#include "sim/config.h"

#include <algorithm>

#include "base/error.h"

namespace ektm {
namespace {

struct TaskDefault {
  const char* name;
  int parent;
  double relatedness, rate;
};

// Task 0 is the click. In the sequential pattern each event follows the one before it.
std::vector<TaskDefault> pattern_defaults(const std::string& pattern) {
  if (pattern == "sequential") return {{"cart", 0, 0.9, 0.10}, {"pay", 1, 0.7, 0.30}, {"repurchase", 2, 0.5, 0.20}};
  return {{"register", 0, 0.9, 0.06}, {"download", 0, 0.8, 0.10}, {"pay", 0, 0.7, 0.03}, {"share", 0, 0.5, 0.015}};
}

}  // namespace

std::vector<std::string> conversion_names(const std::string& pattern) {
  std::vector<std::string> names;
  for (const auto& task : pattern_defaults(pattern)) names.push_back(task.name);
  return names;
}

void SimulationConfig::fields(FieldVisitor& v) {
  v.field("pattern", pattern, {"parallel", "sequential"},
          "parallel: click -> register, download, pay, share; sequential: click -> cart -> pay -> repurchase");
  v.field("rows", rows, {1, 1'000'000'000'000}, "impressions in all splits together");
  v.field("users", users, {1, 1'000'000'000}, "users; their activity follows a power law");
  v.field("items", items, {1, 1'000'000'000}, "items; their popularity follows a power law");
  v.field("days", days, {3, 3650}, "days of the log, equally many impressions each");
  v.field("valid_days", valid_days, {1, 3650}, "days before the test days that make the validation split");
  v.field("test_days", test_days, {1, 3650}, "last days of the log, the test split");
  v.field("seed", seed, {0, std::numeric_limits<int64_t>::max()}, "same seed and options: same bytes");
  v.field("ctr", ctr, {0.0001, 0.9}, "share of clicks among impressions");
  v.field("rates", rates, {0.0001, 0.9},
          "share of conversions where their parent event happened, by task; others keep their default");
  v.field("relatedness", relatedness, {0, 1},
          "correlation of a conversion's interest with the interest shared by all events, by task: 0 = unrelated, 1 = the same");
  v.field("signal", signal, {0, 5}, "standard deviation of the true logits; it sets the attainable AUC");
  v.field("id_noise", id_noise, {0, 5}, "weight of what only the id of a user or item tells, against 1.5 for the attributes");
  v.field("search_share", search_share, {0, 1}, "share of impressions in the scenario search; the others are in feed");
  v.field("drift", drift, {0, 2}, "how far interests and popularity move over the days; 0 = not at all");
  v.field("missing", missing, {0, 0.9}, "share of missing values in the attributes that can be missing");
  v.field("unreported", unreported, {0, 1}, "share of (advertiser, conversion) pairs without labels");
  v.field("history_length", history_length, {1, 100}, "clicks kept in the sequence column");
  v.field("format", format, {"parquet", "csv"}, "of the log files");
}

std::vector<SimulatedTask> SimulationConfig::tasks() const {
  std::vector<SimulatedTask> tasks = {{"click", -1, 1, ctr}};
  for (const auto& task : pattern_defaults(pattern)) tasks.push_back({task.name, task.parent, task.relatedness, task.rate});
  auto assign = [&](const std::vector<std::pair<std::string, double>>& values, const char* key, double SimulatedTask::*member) {
    for (const auto& [name, value] : values) {
      auto at = std::find_if(tasks.begin() + 1, tasks.end(), [&, n = name](const SimulatedTask& task) { return task.name == n; });
      if (at == tasks.end())
        fail(ErrorKind::Config, key, "found the task '{}'; expected conversions of the {} pattern: {}.", name, pattern,
             fmt::join(conversion_names(pattern), ", "));
      (*at).*member = value;
    }
  };
  assign(rates, "rates", &SimulatedTask::rate);
  assign(relatedness, "relatedness", &SimulatedTask::relatedness);
  return tasks;
}

void SimulationConfig::check() const {
  if (valid_days + test_days >= days)
    fail(ErrorKind::Config, "days",
         "found {} days, of which {} are for validation and {} for test; expected at least one day left for training.", days,
         valid_days, test_days);
  if (rows < days)
    fail(ErrorKind::Config, "rows", "found {} rows over {} days; expected at least one row a day. Use more rows or fewer days.",
         rows, days);
  tasks();
}

SimulationConfig SimulationConfig::quick() {
  SimulationConfig config;
  config.rows = 400'000;
  config.users = 10'000;
  config.items = 2'000;
  config.ctr = 0.2;
  return config;
}

}  // namespace ektm
