#include "base/error.h"

#include <algorithm>
#include <numeric>

namespace ektm {

const char* to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Config: return "Config";
    case ErrorKind::Data: return "Data";
    case ErrorKind::Io: return "Io";
    case ErrorKind::Model: return "Model";
    case ErrorKind::Comm: return "Comm";
    case ErrorKind::Internal: return "Internal";
  }
  return "Unknown";
}

Error::Error(ErrorKind kind, std::string where, std::string message)
    : kind_(kind), where_(std::move(where)), message_(std::move(message)),
      text_(fmt::format("{} error in {}: {}", to_string(kind_), where_, message_)) {}

std::string nearest_name(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    std::vector<size_t> row(candidate.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= candidate.size(); ++j) {
        size_t substituted = diagonal + (word[i - 1] != candidate[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
      }
    }
    if (row.back() < best_distance) best_distance = row.back(), best = candidate;
  }
  return best;
}

}  // namespace ektm
