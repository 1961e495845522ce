#pragma once
// The area under the ROC curve of scores, exact, with ties counted as one half.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace ektm {

// The chance that a positive's score is above a negative's (Mann-Whitney). Absent without both classes. Sorts `scored` by score;
// no score may be NaN.
inline std::optional<double> tie_aware_auc(std::vector<std::pair<double, bool>>& scored) {
  std::sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  double wins = 0, positives = 0, negatives = 0;
  for (size_t i = 0; i < scored.size();) {
    double tied_positives = 0, tied_negatives = 0;
    const double score = scored[i].first;
    for (; i < scored.size() && scored[i].first == score; ++i) ++(scored[i].second ? tied_positives : tied_negatives);
    wins += tied_positives * (negatives + 0.5 * tied_negatives);
    positives += tied_positives;
    negatives += tied_negatives;
  }
  if (positives == 0 || negatives == 0) return std::nullopt;
  return wins / (positives * negatives);
}

}  // namespace ektm
