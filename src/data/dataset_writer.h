#pragma once
// One split of an encoded data set as Arrow IPC files part-00000.arrow, part-00001.arrow, ...
//
// Columns (those that the data set has): `ids` FixedSizeList<int32>[F], `bag.<name>` List<int32> a bag, `numbers`
// FixedSizeList<float>[N], `labels` and `observed` FixedSizeList<uint8>[K], `weight` float, `group` uint64, `scenario` int32.
// Uncompressed, so that a memory map is the data. Every record batch of a split but its last has the same number of rows.
#include <arrow/api.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/batch.h"

namespace ektm {

// The columns of a part.
std::shared_ptr<arrow::Schema> part_schema(const DatasetInfo& info);

class DatasetWriter {
 public:
  static constexpr int64_t kMaxBatchRows = 1 << 16;
  static constexpr int64_t kPartBytes = int64_t{1} << 30;
  // `folder` of the split is created. A part ends once it has `part_bytes`.
  DatasetWriter(std::filesystem::path folder, const DatasetInfo& info, int64_t part_bytes = kPartBytes);
  ~DatasetWriter();
  // Error Io when the disk is full etc.
  void append(const Batch& batch);
  void finish();
  int64_t rows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Writes DIR/manifest.json, the last file of an encoded data set: `info`, the rows of each split (a folder of parts below `dir`),
// and the checksum of every file that lies in `dir` by now.
void write_manifest(const std::filesystem::path& dir, const DatasetInfo& info,
                    const std::vector<std::pair<std::string, int64_t>>& split_rows);

}  // namespace ektm
