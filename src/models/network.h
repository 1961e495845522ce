#pragma once
// Embeddings and model together: what is trained, saved and served.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/run_config.h"
#include "nn/attention.h"
#include "nn/embedding.h"
#include "nn/model.h"

namespace ektm {

class Network {
 public:
  // Initial weights depend on config.seed alone. `labels` may be left out when the weights are loaded next.
  Network(const RunConfig& config, const DatasetInfo& info, LabelStatistics labels = {});

  struct Pass {
    at::Tensor x;  // [G,B,D], a leaf whose gradient goes to the embeddings; so do those of
    std::vector<at::Tensor> values, queries;  // sequences under attention: [N,G*dim] and [G,B,dim] each
    std::vector<int64_t> pooled;              // the first of the dim columns of x that each of them replaces: x's gradient there means nothing
    ModelOutput output;
  };
  Pass forward(const Batch& batch, Context& context) const;
  // After backward, once a pass: hands its gradients to the embeddings, as EmbeddingStore::collect.
  double collect(const Batch& batch, const Pass& pass);

  // Probabilities of a batch, without gradients.
  struct Scores {
    at::Tensor served;  // [K,B] conditional on the `after` event
    at::Tensor base;    // [K,B] of EKTM's base heads; undefined for other models
    at::Tensor path;    // [K,B] product along the chain (pCTCVR)
    std::vector<std::pair<std::string, at::Tensor>> diagnostics;
  };
  Scores score(const Batch& batch, bool diagnose = false) const;

  // Weights by name, embeddings included; with `optimizer_state` also what the embeddings' optimiser keeps. Shared storage.
  std::vector<std::pair<std::string, at::Tensor>> state(bool optimizer_state) const;

  const DatasetInfo& info() const { return info_; }
  Model& model() { return *model_; }
  const Model& model() const { return *model_; }
  EmbeddingStore& embeddings() { return *embeddings_; }
  const EmbeddingStore& embeddings() const { return *embeddings_; }
  ParameterStore& parameters() { return parameters_; }
  const ParameterStore& parameters() const { return parameters_; }

 private:
  struct Sequence {  // under attention
    int64_t bag, column, target_column;  // columns of x: the first of the pooled sequence, and of its target
    TargetAttention attention;
  };
  std::vector<Sequence> sequences_;  // by bag, ascending
  DatasetInfo info_;
  ParameterStore parameters_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<EmbeddingStore> embeddings_;
};

}  // namespace ektm
