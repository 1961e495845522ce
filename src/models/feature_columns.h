#pragma once
// Features that a model's config names, as columns of x.
#include <cstdint>
#include <string>
#include <vector>

#include "nn/model.h"

namespace ektm {

// Numbers of x's columns that belong to the named features; without names to the first `otherwise` ones, which the terminal is told. Error
// Config, in `where`, names the nearest feature.
std::vector<int64_t> feature_columns(const std::string& where, std::vector<std::string> names, size_t otherwise, const std::vector<ColumnInfo>& columns);

}  // namespace ektm
