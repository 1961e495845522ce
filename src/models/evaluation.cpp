#include "models/evaluation.h"

#include <algorithm>
#include <map>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/log.h"

namespace ektm {

EvaluationResult evaluate_network(const Network& network, const Dataset& dataset, const std::string& model_name, const std::string& split,
                                  const EvaluationOptions& options) {
  const auto& tasks = network.info().tasks;
  const auto& scenarios = network.info().scenarios;
  const int64_t count = static_cast<int64_t>(tasks.size());
  const int64_t slots = 1 + (options.by_scenario ? static_cast<int64_t>(scenarios.size()) : 0);  // overall, then each scenario
  struct Accumulators {
    std::vector<BinaryAccumulator> served, base, path, base_path;
  };
  std::vector<Accumulators> all(slots);
  for (auto& slot : all)
    for (auto* list : {&slot.served, &slot.base, &slot.path, &slot.base_path}) list->resize(count);
  bool has_base = false;
  Progress progress("evaluate " + split, options.show_progress ? dataset.rows() : 0, "rows");
  int64_t done = 0;
  for_each_batch(dataset, options.batch_rows, [&](const Batch& batch) {
    Network::Scores scores = network.score(batch);
    has_base = scores.base.defined();
    at::Tensor base_path = has_base ? path_probabilities(scores.base, tasks) : at::Tensor();
    const float* served = scores.served.const_data_ptr<float>();
    const float* path = scores.path.const_data_ptr<float>();
    const float* base = has_base ? scores.base.const_data_ptr<float>() : nullptr;
    const float* base_paths = has_base ? base_path.const_data_ptr<float>() : nullptr;
    for (int64_t b = 0; b < batch.rows; ++b) {
      const uint64_t group = batch.groups.empty() ? 0 : batch.groups[b];
      const int32_t scenario = batch.scenarios.empty() ? -1 : batch.scenarios[b];
      const uint8_t* label = batch.labels.data() + b * count;
      const uint8_t* observed = batch.observed.data() + b * count;
      for (int64_t slot : {int64_t{0}, slots > 1 && scenario >= 0 ? int64_t{scenario} + 1 : int64_t{-1}}) {
        if (slot < 0) continue;
        for (int64_t t = 0; t < count; ++t) {
          const int64_t at_number = t * batch.rows + b;
          if (observed[t]) {
            all[slot].served[t].add(served[at_number], label[t], group);
            if (has_base) all[slot].base[t].add(base[at_number], label[t], group);
          }
          if (tasks[t].parent < 0) continue;
          // The whole path happened only where every event along it did. It did not where an earlier event is known not to have
          // happened; it is unknown where the label is missing although the parent happened.
          const int32_t parent = tasks[t].parent;
          bool known = observed[t];
          for (int32_t p = parent; !known && p >= 0; p = tasks[p].parent) known = observed[p] && !label[p];
          if (!known) continue;
          const uint8_t happened = observed[t] && label[t];
          all[slot].path[t].add(path[at_number], happened, group);
          if (has_base) all[slot].base_path[t].add(base_paths[at_number], happened, group);
        }
      }
    }
    progress.update(done += batch.rows);
  });
  if (options.show_progress) progress.finish();

  EvaluationResult result;
  result.model = model_name;
  result.split = split;
  const bool with_groups = network.info().has_group;
  for (int64_t slot = 0; slot < slots; ++slot) {
    const std::string scenario = slot == 0 ? "" : scenarios[slot - 1];
    auto add = [&](int64_t t, const char* quantity, const std::string& rows, const char* head, const BinaryAccumulator& values) {
      result.results.push_back({tasks[t].name, rows, quantity, head, scenario, values.compute(with_groups)});
    };
    for (int64_t t = 0; t < count; ++t) {
      const bool root = tasks[t].parent < 0;
      const std::string where = root ? "all rows" : "rows where " + tasks[tasks[t].parent].name + " = 1";
      const char* quantity = root ? "ctr" : "cvr";
      add(t, quantity, where, "served", all[slot].served[t]);
      // A root's base head is its only head, unless no task is a conversion.
      const bool two_heads = has_base && (!root || std::all_of(tasks.begin(), tasks.end(), [](const TaskInfo& i) { return i.parent < 0; }));
      if (two_heads) add(t, quantity, where, "base", all[slot].base[t]);
      if (root) continue;
      add(t, "ctcvr", "all rows", "served", all[slot].path[t]);
      if (has_base) add(t, "ctcvr", "all rows", "base", all[slot].base_path[t]);
    }
  }
  return result;
}

ValidationResult validate_network(Network& network, const Dataset& dataset, int64_t batch_rows) {
  const auto& tasks = network.info().tasks;
  const int64_t count = static_cast<int64_t>(tasks.size());
  at::Tensor choice = network.model().head_choice();
  if (choice.defined()) choice.fill_(1);
  std::vector<BinaryAccumulator> values(count), base(count);
  for_each_batch(dataset, batch_rows, [&](const Batch& batch) {
    const Network::Scores scores = network.score(batch);
    const auto add = [&](const at::Tensor& of_heads, std::vector<BinaryAccumulator>& to) {
      const float* score = of_heads.const_data_ptr<float>();
      for (int64_t b = 0; b < batch.rows; ++b)
        for (int64_t t = 0; t < count; ++t)
          if (batch.observed[b * count + t]) to[t].add(score[t * batch.rows + b], batch.labels[b * count + t]);
    };
    add(scores.served, values);
    if (choice.defined()) add(scores.base, base);
  });
  ValidationResult result;
  for (int64_t t = 0; t < count; ++t) {
    const auto& labels = values[t].labels();
    std::optional<double> auc = values[t].auc(), logloss = values[t].logloss();
    if (choice.defined())
      if (const auto other = base[t].auc(); other && *other > *auc) choice[t] = 0, auc = other, logloss = base[t].logloss();
    result.tasks.push_back({tasks[t].name, values[t].rows(), std::count(labels.begin(), labels.end(), 1), auc, logloss});
  }
  return result;
}

bool metric_is_better_when_larger(const std::string& metric) { return metric.find("logloss") == std::string::npos; }

double ValidationResult::selection(const EarlyStoppingConfig& config, const std::vector<TaskInfo>& infos) const {
  const std::string& metric = config.metric;
  const bool wants_auc = metric_is_better_when_larger(metric);
  const size_t dot = metric.find('.');
  std::vector<std::string> known = {"mean_auc", "mean_cvr_auc", "mean_logloss"};
  for (const auto& task : tasks) known.push_back("auc." + task.task), known.push_back("logloss." + task.task);
  if (std::find(known.begin(), known.end(), metric) == known.end())
    fail(ErrorKind::Config, "train.early_stopping.metric", "found '{}'; expected mean_auc, mean_cvr_auc, mean_logloss, auc.TASK or "
         "logloss.TASK.{}", metric, did_you_mean(metric, known));
  const bool has_conversions = std::any_of(infos.begin(), infos.end(), [](const TaskInfo& info) { return info.parent >= 0; });
  double sum = 0;
  int64_t used = 0;
  for (size_t t = 0; t < tasks.size(); ++t) {
    if (dot != std::string::npos ? tasks[t].task != metric.substr(dot + 1) : tasks[t].positives < config.min_positives) continue;
    if (metric == "mean_cvr_auc" && has_conversions && infos[t].parent < 0) continue;
    const auto& value = wants_auc ? tasks[t].auc : tasks[t].logloss;
    if (value) sum += *value, ++used;
  }
  if (used == 0)
    fail(ErrorKind::Data, "the validation split", "no task has at least {} positives and a negative, so '{}' cannot be computed. Give more "
         "validation rows, or lower train.early_stopping.min_positives.", config.min_positives, metric);
  return sum / static_cast<double>(used);
}

nlohmann::json inspect_network(const Network& network, const Dataset& dataset, int64_t max_rows) {
  const auto& info = network.info();
  std::map<std::string, at::Tensor> sums;
  int64_t rows = 0;
  Batch batch;
  std::vector<int64_t> numbers;
  while (rows < std::min(max_rows, dataset.rows())) {
    const int64_t count = std::min<int64_t>(4096, std::min(max_rows, dataset.rows()) - rows);
    numbers.resize(count);
    for (int64_t i = 0; i < count; ++i) numbers[i] = rows + i;
    dataset.gather(numbers.data(), count, batch);
    for (const auto& [name, value] : network.score(batch, true).diagnostics) {
      at::Tensor weighted = value.to(at::kDouble) * static_cast<double>(count);
      sums[name] = sums.count(name) ? sums[name] + weighted : weighted;
    }
    rows += count;
  }

  std::vector<std::string> all, conversions;
  for (const auto& task : info.tasks) {
    all.push_back(task.name);
    if (task.parent >= 0) conversions.push_back(task.name);
  }
  if (conversions.empty()) conversions = all;
  auto matrix = [&](const at::Tensor& sum) {
    at::Tensor mean = sum / static_cast<double>(rows);
    nlohmann::json lines = nlohmann::json::array();
    for (int64_t i = 0; i < mean.size(0); ++i) {
      lines.push_back(nlohmann::json::array());
      for (int64_t j = 0; j < mean.size(1); ++j) lines.back().push_back(mean[i][j].item<double>());
    }
    return lines;
  };
  nlohmann::json json;
  json["rows"] = rows;
  std::map<std::string, int64_t> parts;
  for (const auto& entry : network.parameters().entries())
    if (entry.trainable) parts[entry.name.substr(0, entry.name.find('.'))] += entry.tensor.numel();
  json["parameters"] = nlohmann::json::array();
  json["parameters"].push_back({{"part", "embedding"}, {"count", network.embeddings().weights().numel()}});
  for (const auto& [part, count] : parts) json["parameters"].push_back({{"part", part}, {"count", count}});
  json["tables"] = nlohmann::json::array();
  for (const auto& table : info.tables)
    json["tables"].push_back({{"name", table.name}, {"rows", table.rows}, {"width", network.embeddings().width()}});
  if (rows > 0 && sums.count("similarity")) json["similarity"] = {{"tasks", conversions}, {"matrix", matrix(sums["similarity"])}};
  if (rows > 0 && sums.count("mix")) json["mix"] = {{"tasks", conversions}, {"columns", all}, {"matrix", matrix(sums["mix"])}};
  if (rows > 0 && sums.count("expert_gates")) json["expert_gates"] = {{"tasks", all}, {"matrix", matrix(sums["expert_gates"])}};
  for (const auto& [name, key] : {std::pair{"gate_opening", "gates"}, {"clipped_propensities", "clipped_propensities"}}) {
    if (rows == 0 || !sums.count(name)) continue;
    at::Tensor mean = sums[name] / static_cast<double>(rows);
    for (size_t i = 0; i < conversions.size(); ++i) json[key][conversions[i]] = mean[static_cast<int64_t>(i)].item<double>();
  }
  if (const at::Tensor choice = network.model().head_choice(); choice.defined())
    for (size_t t = 0; t < all.size(); ++t)
      if (std::find(conversions.begin(), conversions.end(), all[t]) != conversions.end())
        json["heads"][all[t]] = choice[static_cast<int64_t>(t)].item<double>() > 0 ? "enhanced" : "base";
  return json;
}

}  // namespace ektm
