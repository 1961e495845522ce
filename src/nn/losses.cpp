#include "nn/losses.h"

namespace ektm {

at::Tensor bce(const at::Tensor& logits, const at::Tensor& labels) {
  return at::binary_cross_entropy_with_logits(logits, labels, {}, {}, at::Reduction::None);
}

at::Tensor masked_mean(const at::Tensor& loss, const at::Tensor& weight) {
  at::Tensor total = weight.sum(1);
  // A task without weight has a zero numerator; its denominator becomes 1.
  return (loss * weight).sum(1) / at::where(total > 0, total, at::ones_like(total));
}

}  // namespace ektm
