#pragma once
// AUC in bounded memory, for logs that do not fit: predictions fall into bins of relative width 2^-11, ties count 1/2.
#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

namespace ektm {

class HistogramAuc {
 public:
  HistogramAuc() : negatives_(kBins), positives_(kBins) {}
  // 0 <= probability <= 1.
  void add(float probability, bool positive) { ++(positive ? positives_ : negatives_)[bin(probability)]; }
  std::optional<double> auc() const {  // absent without both classes
    double below = 0, wins = 0, positives = 0;
    for (size_t i = 0; i < kBins; ++i) {
      wins += positives_[i] * (below + 0.5 * negatives_[i]);
      below += negatives_[i];
      positives += positives_[i];
    }
    if (positives == 0 || below == 0) return std::nullopt;
    return wins / (positives * below);
  }

 private:
  // The upper bits of a positive float grow with its value.
  static constexpr int kDroppedBits = 12;
  static constexpr uint32_t kLowest = std::bit_cast<uint32_t>(0x1p-40f) >> kDroppedBits;
  static constexpr size_t kBins = (std::bit_cast<uint32_t>(1.0f) >> kDroppedBits) - kLowest + 1;
  static size_t bin(float probability) {
    uint32_t bits = std::bit_cast<uint32_t>(probability) >> kDroppedBits;
    return bits < kLowest ? 0 : bits - kLowest;
  }
  std::vector<int64_t> negatives_, positives_;
};

}  // namespace ektm
