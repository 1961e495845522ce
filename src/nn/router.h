#pragma once
#include <ATen/ATen.h>

#include <utility>

namespace ektm::ops {

// EKTM's router: F_i = (roots + sum_j s^_ij f_j) / parts over T features f [T,B,d]; roots [1,B,d] or undefined.
struct Router {
  enum class Similarity { Dot, Cosine, Fixed };
  enum class Normalize { Softmax, Sigmoid, None };
  Similarity similarity = Similarity::Dot;
  Normalize normalize = Normalize::Softmax;
  bool to_sources = true;  // gradients of F_i reach f_j, j != i, as source and as key
  bool to_own = true;      // ... reach f_i, as query, as source and as key
  double parts = 1;
};
// query, key [d,w] for Dot; fixed [T,T] for Fixed; else undefined. Returns F [T,B,d] and s^ [B,T,T], which carries no gradient.
std::pair<at::Tensor, at::Tensor> route(const at::Tensor& features, const at::Tensor& roots, const at::Tensor& query, const at::Tensor& key,
                                        const at::Tensor& fixed, const Router& router);

}  // namespace ektm::ops
