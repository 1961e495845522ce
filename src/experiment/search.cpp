#include "experiment/search.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace ektm {
namespace {

// An index, by the probabilities exp(logs).
size_t draw(const std::vector<double>& logs, Rng& rng) {
  double left = rng.uniform();
  for (size_t i = 0; i + 1 < logs.size(); ++i) {
    left -= std::exp(logs[i]);
    if (left < 0) return i;
  }
  return logs.size() - 1;
}

// The first combination that was not tried, counted on from `from` as a number with a digit a key; null when all were.
std::optional<TrialChoices> next_untried(TrialChoices from, const std::vector<size_t>& sizes, const std::vector<std::optional<size_t>>& fixed,
                                         const std::set<TrialChoices>& tried) {
  const TrialChoices first = from;
  while (tried.count(from)) {  // at most tried.size() steps
    size_t key = 0;
    for (; key < sizes.size(); ++key) {
      if (fixed[key]) continue;
      from[key] = (from[key] + 1) % sizes[key];
      if (from[key] != 0) break;
    }
    if (from == first) return std::nullopt;
  }
  return from;
}

}  // namespace

std::vector<double> log_parzen(const std::vector<const TriedChoices*>& trials, size_t key, size_t choices, double prior) {
  std::vector<double> weights(choices, prior / static_cast<double>(choices));
  for (const auto* trial : trials) weights[trial->choices[key]] += 1;
  for (double& weight : weights) weight = std::log(weight / (static_cast<double>(trials.size()) + prior));
  return weights;
}

TrialChoices propose_tpe(const std::vector<size_t>& sizes, const std::vector<std::optional<size_t>>& fixed, const std::vector<TriedChoices>& history,
                         const TpeOptions& options, Rng& rng) {
  std::vector<const TriedChoices*> ranked, others;
  for (const auto& trial : history) (trial.value && !std::isnan(*trial.value) ? ranked : others).push_back(&trial);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto* a, const auto* b) { return *a->value > *b->value; });  // of equal ones the earlier
  const size_t good = std::min(ranked.size(), static_cast<size_t>(std::ceil(options.gamma * static_cast<double>(history.size()))));
  others.insert(others.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(good), ranked.end());
  ranked.resize(good);

  std::vector<std::vector<double>> l, g;  // [keys][choices]
  for (size_t key = 0; key < sizes.size(); ++key) {
    l.push_back(log_parzen(ranked, key, sizes[key], options.prior));
    g.push_back(log_parzen(others, key, sizes[key], options.prior));
  }
  std::set<TrialChoices> tried;
  for (const auto& trial : history) tried.insert(trial.choices);

  std::optional<TrialChoices> best;
  double best_score = 0;
  int found = 0;
  for (int i = 0; i < options.candidates * options.draws_each && found < options.candidates; ++i) {
    TrialChoices candidate(sizes.size());
    double score = 0;  // log l/g
    for (size_t key = 0; key < sizes.size(); ++key) {
      candidate[key] = fixed[key] ? *fixed[key] : draw(l[key], rng);
      if (!fixed[key]) score += l[key][candidate[key]] - g[key][candidate[key]];
    }
    if (tried.count(candidate)) continue;
    ++found;
    if (!best || score > best_score) best = candidate, best_score = score;
  }
  if (best) return *best;

  // l lies on combinations that were tried: any other one, else any.
  TrialChoices any(sizes.size());
  for (size_t key = 0; key < sizes.size(); ++key) any[key] = fixed[key] ? *fixed[key] : rng.below(sizes[key]);
  return next_untried(any, sizes, fixed, tried).value_or(any);
}

}  // namespace ektm
