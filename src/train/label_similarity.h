#pragma once
// EKTM's static similarity: the correlation of the tasks' labels on the training split.
#include <ATen/ATen.h>

#include "data/dataset.h"
#include "models/run_config.h"

namespace ektm {

bool needs_label_similarity(const RunConfig& config);

// [K,K] Pearson (phi) correlation over the rows where both labels are observed; 0 where one of them does not vary; 1 on the diagonal.
at::Tensor label_similarity(const Dataset& train);

}  // namespace ektm
