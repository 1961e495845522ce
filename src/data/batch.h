#pragma once
// Rows as the models see them: row-major, reused from step to step.
#include <cstdint>
#include <string>
#include <vector>

namespace ektm {

struct TableInfo {   // an embedding table. Row 0 = missing, row 1 = OOV (unseen or rare), then the vocabulary or the hash buckets
  std::string name;
  int64_t rows = 0;
};
inline constexpr int32_t kMissingRow = 0, kOovRow = 1, kFirstValueRow = 2;

struct FieldInfo {   // one feature that is embedded
  std::string name;
  int32_t table = 0;        // index into DatasetInfo::tables
  bool sum_pooling = false; // bags only
};

struct TaskInfo {
  std::string name;
  int32_t parent = -1;      // index of the `after` task, -1 for a root; always smaller than the own index
};

// What a model must know of a data set; the same for every split.
struct DatasetInfo {
  std::vector<TableInfo> tables;
  std::vector<FieldInfo> fields;  // F single-valued: Id, and Number with bins
  std::vector<FieldInfo> bags;    // Ids and Sequence
  std::vector<std::string> numbers;  // N normalised numbers
  std::vector<TaskInfo> tasks;       // T+1 (or T when no task is a root that others follow)
  std::vector<std::string> scenarios;  // names by code; empty = none
  bool has_group = false, has_weight = false;
  std::string schema_hash;
};

struct Bag {                     // values of row b: values[offsets[b] .. offsets[b+1])
  std::vector<int32_t> offsets;  // [B+1], offsets[0] = 0
  std::vector<int32_t> values;   // rows of the field's table; an empty bag is a missing value: {kMissingRow}
};

struct Batch {
  int64_t rows = 0;               // B
  std::vector<int32_t> ids;       // [B,F] rows of each field's table
  std::vector<Bag> bags;          // one a bag field
  std::vector<float> numbers;     // [B,N]; a missing number is 0 after normalisation (the mean)
  std::vector<uint8_t> labels;    // [B,K]; 0 where unobserved
  std::vector<uint8_t> observed;  // [B,K]
  std::vector<float> weights;     // [B], empty = 1
  std::vector<uint64_t> groups;   // [B], hash of the group column; empty = none
  std::vector<int32_t> scenarios; // [B], empty = none
};

}  // namespace ektm
