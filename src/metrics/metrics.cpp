#include "metrics/metrics.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "metrics/text_table.h"

namespace ektm {
namespace {

constexpr int kReliabilityBins = 20;
constexpr double kLoglossClip = 1e-7;
constexpr double kNormal975 = 1.959963984540054;  // the 97.5 % quantile of the standard normal

// A row in 31 bits. Floats of [0,1] are ordered as their bits are, and 1.0f is 0x3f800000: the label fits below.
uint32_t pack(float prediction, uint8_t label) {
  return std::bit_cast<uint32_t>(prediction) << 1 | label;
}
uint32_t prediction_bits(uint32_t key) {
  return key >> 1;
}
double prediction_of(uint32_t key) {
  return std::bit_cast<float>(key >> 1);
}

// Radix sort from the lowest digit, 3 digits of 11 bits.
void sort_keys(std::vector<uint32_t>& keys) {
  constexpr int kDigitBits = 11;
  constexpr uint32_t kDigits = 1u << kDigitBits;
  std::vector<uint32_t> other(keys.size());
  for (int shift = 0; shift < 32; shift += kDigitBits) {
    std::array<size_t, kDigits> begin{};
    for (uint32_t key : keys) ++begin[key >> shift & (kDigits - 1)];
    size_t sum = 0;
    for (size_t& slot : begin) sum += std::exchange(slot, sum);
    for (uint32_t key : keys) other[begin[key >> shift & (kDigits - 1)]++] = key;
    keys.swap(other);
  }
}

std::vector<uint32_t> sorted_keys(const std::vector<float>& predictions, const std::vector<uint8_t>& labels) {
  std::vector<uint32_t> keys(predictions.size());
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = pack(predictions[i], labels[i]);
  sort_keys(keys);
  return keys;
}

// Calls visit(prediction, positives, negatives) for every run of equal predictions in [begin, end), lowest first. Everything
// below rests on these runs: what it sums depends neither on the order of the rows nor on how ties were broken.
template <class Iterator, class Key, class Visit>
void for_each_run(Iterator begin, Iterator end, Key key_of, Visit visit) {
  while (begin != end) {
    const uint32_t first = key_of(*begin);
    int64_t positives = 0, rows = 0;
    for (; begin != end && prediction_bits(key_of(*begin)) == prediction_bits(first); ++begin, ++rows)
      positives += key_of(*begin) & 1;
    visit(prediction_of(first), positives, rows - positives);
  }
}

uint32_t same_key(uint32_t key) {
  return key;
}

// Twice the Mann-Whitney statistic in integers (exact below 2^32 rows): a pair in the right order counts 2, a tie 1.
struct PairCount {
  uint64_t twice_wins = 0, positives = 0, negatives = 0;
  void run(int64_t run_positives, int64_t run_negatives) {
    twice_wins += static_cast<uint64_t>(run_positives) * (2 * negatives + static_cast<uint64_t>(run_negatives));
    positives += static_cast<uint64_t>(run_positives);
    negatives += static_cast<uint64_t>(run_negatives);
  }
  std::optional<double> auc() const {
    if (positives == 0 || negatives == 0) return std::nullopt;
    return static_cast<double>(twice_wins) / 2 / (static_cast<double>(positives) * static_cast<double>(negatives));
  }
};

PairCount count_pairs(const std::vector<uint32_t>& keys) {
  PairCount pairs;
  for_each_run(keys.begin(), keys.end(), same_key, [&](double, int64_t p, int64_t n) { pairs.run(p, n); });
  return pairs;
}

// DeLong's variance from midranks: for a positive, the share of negatives below it (ties 1/2); for a negative, the share of
// positives above it. The variances of both kinds of shares, each over its own count, add up.
std::optional<Interval> delong_interval(const std::vector<uint32_t>& keys, const PairCount& pairs) {
  if (pairs.positives < 2 || pairs.negatives < 2) return std::nullopt;
  const double m = static_cast<double>(pairs.positives), n = static_cast<double>(pairs.negatives), auc = *pairs.auc();
  double negatives_below = 0, positives_above = m, positive_squares = 0, negative_squares = 0;
  for_each_run(keys.begin(), keys.end(), same_key, [&](double, int64_t run_positives, int64_t run_negatives) {
    const double p = static_cast<double>(run_positives), q = static_cast<double>(run_negatives);
    positives_above -= p;
    const double of_positive = (negatives_below + q / 2) / n - auc, of_negative = (positives_above + p / 2) / m - auc;
    positive_squares += p * of_positive * of_positive;
    negative_squares += q * of_negative * of_negative;
    negatives_below += q;
  });
  const double half = kNormal975 * std::sqrt(positive_squares / (m - 1) / m + negative_squares / (n - 1) / n);
  return Interval{std::max(0.0, auc - half), std::min(1.0, auc + half)};
}

std::optional<double> mean_logloss(const std::vector<uint32_t>& keys) {
  if (keys.empty()) return std::nullopt;
  double sum = 0;
  for_each_run(keys.begin(), keys.end(), same_key, [&](double prediction, int64_t positives, int64_t negatives) {
    const double p = std::clamp(prediction, kLoglossClip, 1 - kLoglossClip);
    if (positives > 0) sum -= static_cast<double>(positives) * std::log(p);
    if (negatives > 0) sum -= static_cast<double>(negatives) * std::log1p(-p);
  });
  return sum / static_cast<double>(keys.size());
}

std::vector<ReliabilityBin> reliability_bins(const std::vector<uint32_t>& keys) {
  const int64_t rows = static_cast<int64_t>(keys.size()), count = std::min<int64_t>(kReliabilityBins, rows);
  std::vector<ReliabilityBin> bins(count);
  int64_t bin = 0, row = 0;
  for_each_run(keys.begin(), keys.end(), same_key, [&](double prediction, int64_t positives, int64_t negatives) {
    const double rate = static_cast<double>(positives) / static_cast<double>(positives + negatives);
    for (int64_t left = positives + negatives; left > 0;) {
      const int64_t bin_end = rows * (bin + 1) / count, taken = std::min(left, bin_end - row);
      bins[bin].mean_prediction += static_cast<double>(taken) * prediction;
      bins[bin].positive_rate += static_cast<double>(taken) * rate;
      bins[bin].rows += taken;
      left -= taken;
      row += taken;
      if (row == bin_end) ++bin;
    }
  });
  for (auto& b : bins) b.mean_prediction /= static_cast<double>(b.rows), b.positive_rate /= static_cast<double>(b.rows);
  return bins;
}

struct GroupRow {
  uint64_t group;
  uint32_t key;
  auto operator<=>(const GroupRow&) const = default;
};

void add_group_metrics(std::vector<GroupRow>& rows, BinaryMetrics& metrics) {
  std::sort(rows.begin(), rows.end());
  double weighted = 0;
  uint64_t used_rows = 0;
  for (auto begin = rows.begin(); begin != rows.end();) {
    const auto end = std::find_if(begin, rows.end(), [&](const GroupRow& row) { return row.group != begin->group; });
    PairCount pairs;
    for_each_run(begin, end, [](const GroupRow& row) { return row.key; }, [&](double, int64_t p, int64_t n) { pairs.run(p, n); });
    ++metrics.groups;
    if (const auto auc = pairs.auc()) {
      weighted += *auc * static_cast<double>(end - begin);
      used_rows += static_cast<uint64_t>(end - begin);
    } else {
      ++metrics.groups_left_out;
    }
    begin = end;
  }
  if (used_rows > 0) metrics.gauc = weighted / static_cast<double>(used_rows);
}

nlohmann::json json_or_null(const std::optional<double>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}

const nlohmann::json& field(const nlohmann::json& json, const char* name) {
  if (!json.is_object() || !json.contains(name))
    fail(ErrorKind::Data, fmt::format("metrics, field {}", name),
         "the field is missing. Write the file again with ektm evaluate.");
  return json[name];
}

template <class T>
T get(const nlohmann::json& json, const char* name) {
  const auto& value = field(json, name);
  try {
    return value.get<T>();
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::Data, fmt::format("metrics, field {}", name), "found {}: {}. Write the file again with ektm evaluate.",
         value.dump(), error.what());
  }
}

std::optional<double> get_optional(const nlohmann::json& json, const char* name) {
  if (field(json, name).is_null()) return std::nullopt;
  return get<double>(json, name);
}

}  // namespace

void BinaryAccumulator::add(float prediction, uint8_t label, uint64_t group) {
  if (!(prediction >= 0 && prediction <= 1))
    fail(ErrorKind::Model, fmt::format("prediction of row {}", predictions_.size()),
         "found {}; expected a probability in [0, 1]. The model's weights are likely not finite: train with a lower learning "
         "rate.",
         prediction);
  EKTM_CHECK(label <= 1);
  if (group != 0 || !groups_.empty()) {
    groups_.resize(predictions_.size(), 0);
    groups_.push_back(group);
  }
  predictions_.push_back(prediction + 0.0f);  // -0 becomes 0: its bits are sorted
  labels_.push_back(label);
}

void BinaryAccumulator::merge(const BinaryAccumulator& other) {
  EKTM_CHECK(&other != this);
  if (!groups_.empty() || !other.groups_.empty()) {
    groups_.resize(predictions_.size(), 0);
    groups_.insert(groups_.end(), other.groups_.begin(), other.groups_.end());
    groups_.resize(predictions_.size() + other.predictions_.size(), 0);
  }
  predictions_.insert(predictions_.end(), other.predictions_.begin(), other.predictions_.end());
  labels_.insert(labels_.end(), other.labels_.begin(), other.labels_.end());
}

BinaryMetrics BinaryAccumulator::compute(bool with_groups) const {
  BinaryMetrics metrics;
  const std::vector<uint32_t> keys = sorted_keys(predictions_, labels_);
  const PairCount pairs = count_pairs(keys);
  metrics.rows = rows();
  metrics.positives = static_cast<int64_t>(pairs.positives);
  metrics.auc = pairs.auc();
  metrics.auc_95 = delong_interval(keys, pairs);
  metrics.logloss = mean_logloss(keys);
  if (metrics.positives > 0) {
    double sum = 0;
    for (uint32_t key : keys) sum += prediction_of(key);
    metrics.pcoc = sum / static_cast<double>(metrics.positives);
  }
  metrics.reliability = reliability_bins(keys);
  if (metrics.rows > 0) {
    double error = 0;
    for (const auto& bin : metrics.reliability)
      error += static_cast<double>(bin.rows) * std::abs(bin.mean_prediction - bin.positive_rate);
    metrics.ece = error / static_cast<double>(metrics.rows);
  }
  if (with_groups) {
    std::vector<GroupRow> rows(predictions_.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = {groups_.empty() ? 0 : groups_[i], pack(predictions_[i], labels_[i])};
    add_group_metrics(rows, metrics);
  }
  return metrics;
}

std::optional<double> BinaryAccumulator::auc() const {
  return count_pairs(sorted_keys(predictions_, labels_)).auc();
}

std::optional<double> BinaryAccumulator::logloss() const {
  return mean_logloss(sorted_keys(predictions_, labels_));
}

nlohmann::json to_json(const BinaryMetrics& metrics) {
  nlohmann::json json = {{"rows", metrics.rows},
                         {"positives", metrics.positives},
                         {"auc", json_or_null(metrics.auc)},
                         {"auc_95", nullptr},
                         {"gauc", json_or_null(metrics.gauc)},
                         {"groups", metrics.groups},
                         {"groups_left_out", metrics.groups_left_out},
                         {"logloss", json_or_null(metrics.logloss)},
                         {"pcoc", json_or_null(metrics.pcoc)},
                         {"ece", json_or_null(metrics.ece)},
                         {"reliability", nlohmann::json::array()}};
  if (metrics.auc_95) json["auc_95"] = {metrics.auc_95->low, metrics.auc_95->high};
  for (const auto& bin : metrics.reliability)
    json["reliability"].push_back(
        {{"mean_prediction", bin.mean_prediction}, {"positive_rate", bin.positive_rate}, {"rows", bin.rows}});
  return json;
}

BinaryMetrics binary_metrics_from_json(const nlohmann::json& json) {
  BinaryMetrics metrics;
  metrics.rows = get<int64_t>(json, "rows");
  metrics.positives = get<int64_t>(json, "positives");
  metrics.auc = get_optional(json, "auc");
  if (!field(json, "auc_95").is_null()) {
    const auto bounds = get<std::array<double, 2>>(json, "auc_95");
    metrics.auc_95 = Interval{bounds[0], bounds[1]};
  }
  metrics.gauc = get_optional(json, "gauc");
  metrics.groups = get<int64_t>(json, "groups");
  metrics.groups_left_out = get<int64_t>(json, "groups_left_out");
  metrics.logloss = get_optional(json, "logloss");
  metrics.pcoc = get_optional(json, "pcoc");
  metrics.ece = get_optional(json, "ece");
  for (const auto& bin : field(json, "reliability"))
    metrics.reliability.push_back(
        {get<double>(bin, "mean_prediction"), get<double>(bin, "positive_rate"), get<int64_t>(bin, "rows")});
  return metrics;
}

nlohmann::json EvaluationResult::to_json() const {
  nlohmann::json json = {{"model", model}, {"split", split}, {"results", nlohmann::json::array()}};
  for (const auto& result : results) {
    nlohmann::json line = ektm::to_json(result.metrics);
    line["task"] = result.task;
    line["rows_covered"] = result.rows_covered;
    line["quantity"] = result.quantity;
    line["head"] = result.head;
    line["scenario"] = result.scenario;
    json["results"].push_back(std::move(line));
  }
  return json;
}

EvaluationResult EvaluationResult::from_json(const nlohmann::json& json) {
  EvaluationResult result;
  result.model = get<std::string>(json, "model");
  result.split = get<std::string>(json, "split");
  for (const auto& line : field(json, "results"))
    result.results.push_back({get<std::string>(line, "task"), get<std::string>(line, "rows_covered"),
                              get<std::string>(line, "quantity"), get<std::string>(line, "head"),
                              get<std::string>(line, "scenario"), binary_metrics_from_json(line)});
  return result;
}

std::string EvaluationResult::to_text() const {
  using enum TextTable::Align;
  TextTable table({Left, Left, Left, Right, Right, Right, Left, Right, Right, Right, Right});
  std::vector<std::string> scenarios = {""};  // overall first, then in the order of the results
  for (const auto& result : results)
    if (std::find(scenarios.begin(), scenarios.end(), result.scenario) == scenarios.end()) scenarios.push_back(result.scenario);
  for (const auto& scenario : scenarios) {
    table.line(scenario.empty() ? fmt::format("{}, split {}", model, split) : fmt::format("\nscenario {}", scenario));
    table.row({"task", "quantity", "head", "rows", "positives", "AUC", "95 % interval", "GAUC", "LogLoss", "PCOC", "ECE"});
    for (const auto& result : results) {
      if (result.scenario != scenario) continue;
      const auto& m = result.metrics;
      table.row({result.task, result.quantity, result.head, with_commas(m.rows), with_commas(m.positives),
                 number_or_dash(m.auc, 4), m.auc_95 ? fmt::format("{:.4f} .. {:.4f}", m.auc_95->low, m.auc_95->high) : "-",
                 number_or_dash(m.gauc, 4), number_or_dash(m.logloss, 4), number_or_dash(m.pcoc, 3), number_or_dash(m.ece, 4)});
    }
  }
  return table.to_string();
}

}  // namespace ektm
