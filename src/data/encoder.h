#pragma once
// Raw rows -> encoded rows. The one code path of `prepare`, `predict` and the server: no skew.
#include <arrow/api.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/raw_reader.h"
#include "data/schema.h"

namespace ektm {

// Fitted on the training split only. Copied into each run folder (`encoders/`).
class Encoders {
 public:
  virtual ~Encoders() = default;
  virtual const DatasetInfo& info() const = 0;
  virtual const Schema& schema() const = 0;
};

// `dir`: an encoded data set's or a run folder's `encoders/` + `schema.yaml`. Error Io / Data when absent or damaged.
std::unique_ptr<Encoders> load_encoders(const std::filesystem::path& dir);

// Streams raw files through joins and encoders, for prediction: labels are not needed (observed = 0 where they are absent).
// Calls `consume(batch, raw)` for each chunk in order; `raw` holds the chunk's raw columns as read (before joins), so that
// predictions can be written beside the rows' own keys. Memory stays bounded by the chunk.
void encode_raw(const Encoders& encoders, const RawInput& input,
                const std::function<void(const Batch& batch, const std::shared_ptr<arrow::RecordBatch>& raw)>& consume);

}  // namespace ektm
