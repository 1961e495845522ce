#pragma once
// All embedding tables in one arena, one gather for all fields, and an optimiser that touches only the rows of the batch.
//
// A row holds `groups` embeddings of `dim` numbers side by side: groups = 1 for shared embeddings, one a task where every task has
// its own. So task-specific tables cost one look-up, not one a task.
#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "config/fields.h"
#include "data/batch.h"

namespace ektm {

struct EmbeddingConfig {
  int64_t dim = 8;
  double init_std = 0.01;
  std::string optimizer = "adam";
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double l2 = 0;
  void fields(FieldVisitor& v) {
    v.field("dim", dim, {1, 1024}, "numbers in an embedding");
    v.field("init_std", init_std, {0, 10}, "standard deviation of the initial embeddings");
    v.field("optimizer", optimizer, {"adam", "adagrad", "rowwise_adagrad", "sgd"},
            "on the rows that a batch touches; adam keeps two numbers per number, rowwise_adagrad one per row");
    v.field("learning_rate", learning_rate, {0, 100}, "step size of embedding rows; follows optimizer.schedule");
    v.field("beta1", beta1, {0, 0.999999}, "adam: decay of the first moment");
    v.field("beta2", beta2, {0, 0.9999999}, "adam: decay of the second moment");
    v.field("epsilon", epsilon, {1e-16, 1}, "adam, adagrad: added to the denominator");
    v.field("l2", l2, {0, 100}, "l2 * row is added to the gradient of each touched row");
  }
};

class EmbeddingStore {
 public:
  // `unpooled`: indices of bags, ascending, whose values are handed out one by one (look_up) instead of pooled.
  EmbeddingStore(const DatasetInfo& info, EmbeddingConfig config, int64_t groups, uint64_t seed, std::vector<int64_t> unpooled = {});

  int64_t groups() const { return groups_; }
  int64_t dim() const { return config_.dim; }
  int64_t width() const { return groups_ * config_.dim; }  // numbers in a row, W
  int64_t rows() const { return offsets_.back(); }
  // D = (fields + bags) * dim + numbers.
  int64_t features() const { return features_; }

  // x [G,B,D] float32: per group the embeddings of all fields, then of all bags (pooled; 0 for unpooled ones), then the numbers. A leaf
  // that requires a gradient when `training`.
  at::Tensor gather(const Batch& batch, bool training) const;
  // [N,W] float32: the embeddings of all groups of each of a bag's N values, in their order. Such a leaf, too.
  at::Tensor look_up(const Batch& batch, int64_t bag, bool training) const;

  // Adds the rows' gradients of a batch (x_grad [G,B,D], and for each unpooled bag [N,W]) into a deduplicated list. Returns the sum of
  // their squares (L2 term included). apply() must follow, for the same batch, before the next collect().
  double collect(const Batch& batch, const at::Tensor& x_grad, const std::vector<at::Tensor>& value_grads = {});
  // One optimiser step on the collected rows: gradient * grad_scale, learning rate * rate_scale.
  void apply(double grad_scale, double rate_scale);

  // For tests and parity: the collected list. row_grads [U,W], unique_rows [U] ascending.
  const std::vector<int64_t>& unique_rows() const { return unique_rows_; }
  at::Tensor row_grads() const { return row_grads_.narrow(0, 0, static_cast<int64_t>(unique_rows_.size())); }

  const at::Tensor& weights() const { return weights_; }  // [R,W]
  int64_t table_offset(int64_t table) const { return offsets_[table]; }

  // Everything a checkpoint must hold. names: "embedding.weights", and with `optimizer_state` "embedding.m" etc.
  std::vector<std::pair<std::string, at::Tensor>> state(bool optimizer_state) const;
  int64_t step() const { return step_; }
  void set_step(int64_t step) { step_ = step; }

 private:
  struct Lookup {
    uint32_t row;
    uint32_t source;  // index into sources_
  };
  struct Source {
    int32_t sample, slot;  // slot: position among fields + bags; or ~u of the u-th unpooled bag, and `sample` the number of its value
    float scale;           // 1, or 1 / length for mean-pooled bags
  };
  void sort_lookups();

  EmbeddingConfig config_;
  int64_t groups_, field_count_, number_count_, features_;
  std::vector<FieldInfo> fields_, bags_;
  std::vector<int64_t> unpooled_;
  std::vector<int64_t> offsets_;  // first row of each table, and the total
  at::Tensor weights_, m_, v_;
  int64_t step_ = 0;

  std::vector<Lookup> lookups_, scratch_;
  std::vector<Source> sources_;
  std::vector<int64_t> unique_rows_, starts_;  // starts_[u]: first lookup of unique row u; one more at the end
  at::Tensor row_grads_;
};

}  // namespace ektm
