#pragma once
// Loss balancing: how the tasks' gradients become one, in what the tasks share. Equations and sources: docs/balancing.md.
//
// A *map* is what a single task or expert would have as a tensor of its own: a slice of a stacked parameter (ParameterStore::Entry),
// any other parameter as a whole, one embedding group of x. A map is shared in a step when two or more tasks have a gradient there that
// is not zero. So what tasks share is found in every model without its help, also where a loss reaches another task's tower.
#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/run_config.h"
#include "nn/losses.h"
#include "nn/parameters.h"

namespace ektm {

// What a method knows of a step. K tasks, M maps. A task without an observed row has loss 0 and no gradient.
struct BalanceInput {
  int64_t step = 0;            // from 0
  std::vector<double> losses;  // [K], task weights included
  // [M,K,K]: inner products of the tasks' gradients in each map; [M]: whether it is shared. For methods with uses_gradients().
  at::Tensor products, shared;
};

class BalancingMethod {
 public:
  virtual ~BalancingMethod() = default;
  // false: weights of losses; one backward pass does.
  virtual bool uses_gradients() const { return true; }
  // The factor of each task's gradient in this step, in double: [K], the same in all maps, or [M,K].
  virtual at::Tensor weigh(const BalanceInput& input) = 0;
  // What the next step depends on; shared storage.
  virtual std::vector<std::pair<std::string, at::Tensor>> state() const { return {}; }
};

class Balancer {
 public:
  // `leaf_maps`: maps of the leaves together. Error Config for a target that is no task. config.balance is not "fixed".
  Balancer(const LossConfig& config, const std::vector<std::string>& tasks, ParameterStore& parameters, int64_t leaf_maps, uint64_t seed);

  // What the model was given, whose gradients go to the embeddings: x [G,...], each group a map; or with `columns` [N,G*dim], each group's
  // columns a map. The gradient at `meaningless`, (first, count) of the last dimension, is taken for 0.
  struct Leaf {
    at::Tensor tensor;
    int64_t columns = 0;  // of a group
    std::vector<std::pair<int64_t, int64_t>> meaningless = {};
  };
  // In place of total.backward(): fills parameters.grads() and the gradients of the leaves for step number `step`. zero_grad() went before.
  void backward(const LossTerms& loss, const std::vector<Leaf>& leaves, int64_t step);

  // [K]: by what the gradients of the last step were multiplied in shared maps; where factors differ by map, the ratio of norms.
  const std::vector<double>& weights() const { return weights_; }
  std::vector<std::pair<std::string, at::Tensor>> state() const { return method_->state(); }

 private:
  // The gradients of all tasks for one tensor, [K,...] like it, and the place for their weighted sum.
  struct Part {
    at::Tensor rows, sum;
    int64_t map_dim;
    at::Tensor maps() const;  // rows as [E,K,n]
  };
  void backward_of_each(const LossTerms& loss, const std::vector<Leaf>& leaves, BalanceInput input);

  std::unique_ptr<BalancingMethod> method_;
  ParameterStore& parameters_;
  at::Tensor rows_;  // [K,P]
  std::vector<double> weights_;
};

}  // namespace ektm
