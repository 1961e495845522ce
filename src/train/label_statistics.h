#pragma once
// What models are told of the labels of the training split.
#include "data/dataset.h"
#include "models/run_config.h"
#include "nn/model.h"

namespace ektm {

bool needs_label_statistics(const RunConfig& config, const DatasetInfo& info);

// One pass over the labels that training sees: `loader`.label_shares and seed count. The correlation is Pearson's (phi); 0 where one of
// the two does not vary; 1 on the diagonal. `known` is 1 where the event before never happened.
LabelStatistics label_statistics(const Dataset& train, LoaderConfig loader = {});

}  // namespace ektm
