#include "models/feature_columns.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/did_you_mean.h"
#include "base/error.h"
#include "base/log.h"
#include "config/fields.h"

namespace ektm {

std::vector<int64_t> feature_columns(const std::string& where, std::vector<std::string> names, size_t otherwise, const std::vector<ColumnInfo>& columns) {
  std::vector<std::string> known;
  for (const ColumnInfo& column : columns) known.push_back(column.name);
  if (names.empty()) {
    names.assign(known.begin(), known.begin() + std::min(otherwise, known.size()));
    log_info("{}: not given, so the data set's first {} taken: {}", where, names.size() == 1 ? "feature is" : "features are", fmt::join(names, ", "));
  }
  std::vector<int64_t> numbers;
  for (const std::string& name : names) {
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end())
      fail(ErrorKind::Config, where, "found '{}'; no feature has this name. The data set's features are: {}.{}", name,
           fmt::join(known, ", "), did_you_mean(name, known));
    const ColumnInfo& column = columns[found - known.begin()];
    for (int64_t i = 0; i < column.width; ++i) numbers.push_back(column.first + i);
  }
  return numbers;
}

}  // namespace ektm
