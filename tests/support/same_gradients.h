#pragma once
// For tests of operations: against a plain formula that autograd differentiates, in double.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

namespace ektm {

inline const at::TensorOptions kDouble = at::TensorOptions().dtype(at::kDouble);

inline at::Tensor leaf(at::IntArrayRef sizes) { return at::randn(sizes, kDouble).requires_grad_(true); }

// The value and every gradient of `ours` and of `plain`, functions of the same leaves, agree; the gradient that comes in is random and
// not contiguous.
template <class Ours, class Plain>
void expect_same(std::vector<at::Tensor> leaves, Ours ours, Plain plain) {
  at::Tensor a = ours(), b = plain();
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_TRUE(at::allclose(a, b, 1e-10, 1e-12)) << a << b;
  at::Tensor up = at::randn(a.sizes(), kDouble).transpose(0, a.dim() - 1).contiguous().transpose(0, a.dim() - 1);
  auto gradients = [&](const at::Tensor& result) {
    for (auto& x : leaves) x.mutable_grad() = at::Tensor();
    result.backward(up);
    std::vector<at::Tensor> all;
    for (auto& x : leaves) all.push_back(x.grad().defined() ? x.grad().clone() : at::zeros_like(x));
    return all;
  };
  const auto found = gradients(a), expected = gradients(b);
  for (size_t i = 0; i < leaves.size(); ++i) EXPECT_TRUE(at::allclose(found[i], expected[i], 1e-9, 1e-11)) << "leaf " << i << found[i] << expected[i];
}

}  // namespace ektm
