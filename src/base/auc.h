#pragma once
// The area under the ROC curve of scores, exact, with ties counted as one half.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace ektm {

struct ScoredRows {  // of one score; several may have the same
  double score = 0;
  int64_t positives = 0, negatives = 0;
};

// The chance that a positive's score is above a negative's (Mann-Whitney). Absent without both classes. Sorts `rows` by score; no
// score may be NaN.
inline std::optional<double> tie_aware_auc(std::vector<ScoredRows>& rows) {
  auto is_below = [](const ScoredRows& a, const ScoredRows& b) { return a.score < b.score; };
  if (!std::is_sorted(rows.begin(), rows.end(), is_below)) std::sort(rows.begin(), rows.end(), is_below);
  double wins = 0, positives = 0, negatives = 0;
  for (size_t i = 0; i < rows.size();) {
    double tied_positives = 0, tied_negatives = 0;
    const double score = rows[i].score;
    for (; i < rows.size() && rows[i].score == score; ++i) {
      tied_positives += static_cast<double>(rows[i].positives);
      tied_negatives += static_cast<double>(rows[i].negatives);
    }
    wins += tied_positives * (negatives + 0.5 * tied_negatives);
    positives += tied_positives;
    negatives += tied_negatives;
  }
  if (positives == 0 || negatives == 0) return std::nullopt;
  return wins / (positives * negatives);
}

}  // namespace ektm
