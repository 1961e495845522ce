#pragma once
// XXH3 of texts.
#include <cstdint>
#include <string_view>

namespace ektm {

uint64_t hash64(std::string_view bytes);

}  // namespace ektm
