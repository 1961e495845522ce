#include "data/raw_source.h"

#include <algorithm>

#include "base/error.h"

namespace ektm {

int64_t rows_for(int64_t chunk_bytes, int64_t total_bytes, int64_t total_rows) {
  constexpr int64_t kMaxRows = 1 << 16;
  int64_t row_bytes = std::max<int64_t>(1, total_bytes / std::max<int64_t>(1, total_rows));
  return std::clamp<int64_t>(chunk_bytes / row_bytes, 1, kMaxRows);
}

std::unique_ptr<Source> open_source(const InputFile& file, int64_t chunk_bytes, BadRows& bad_rows) {
  switch (file.format) {
    case Format::Csv: return open_csv(file, chunk_bytes, bad_rows);
    case Format::Parquet: return open_parquet(file, chunk_bytes);
    case Format::Arrow: return open_arrow(file, chunk_bytes);
  }
  return nullptr;
}

}  // namespace ektm
