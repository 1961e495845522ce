#pragma once
// Losses over the observed rows of each task.
#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

namespace ektm {

// Labels of a batch as tensors. `weight` already holds observed * sample weight, so an unobserved row counts nothing.
struct Targets {
  at::Tensor labels;    // [K,B]
  at::Tensor weight;    // [K,B], 0 where unobserved
};

// Binary cross entropy of logits, element-wise, without a division or a logarithm of 0:
// max(z,0) - z*y + log(1 + exp(-|z|)).  [K,B] x [K,B] -> [K,B]
at::Tensor bce(const at::Tensor& logits, const at::Tensor& labels);

// sum_b weight * loss / sum_b weight for each task, [K,B] -> [K]; 0 (with a zero gradient) for a task without an observed row.
at::Tensor masked_mean(const at::Tensor& loss, const at::Tensor& weight);

struct LossTerms {
  at::Tensor task_losses;           // [K], differentiable: what each task adds to the total, weights included
  at::Tensor total;                 // their sum
  std::vector<std::string> names;   // "click", "pay", "pay.enhanced"
  at::Tensor values;                // [names], detached
};

}  // namespace ektm
