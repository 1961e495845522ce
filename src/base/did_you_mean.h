#pragma once
#include <string>
#include <vector>

namespace ektm {

// The end of a message: " Did you mean 'NEAREST'?" of the candidates (nearest_name of error.h), or "" when none is near.
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace ektm
