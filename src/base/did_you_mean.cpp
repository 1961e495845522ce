#include "base/did_you_mean.h"

#include "base/error.h"

namespace ektm {

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string near = nearest_name(word, candidates);
  return near.empty() ? "" : " Did you mean '" + near + "'?";
}

}  // namespace ektm
