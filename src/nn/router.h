#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace ektm::ops {

// EKTM's router: F_i = (sum of the roots' features + sum_j s^_ij f_j) / parts, of T tasks.
struct Router {
  enum class Similarity { Dot, Cosine, Fixed };
  enum class Normalize { Softmax, Sigmoid, None };
  Similarity similarity = Similarity::Dot;
  Normalize normalize = Normalize::Softmax;
  bool to_sources = true;  // gradients of F_i reach f_j, j != i, as source and as key, and the roots' features
  bool to_own = true;      // ... reach f_i, as query, as source and as key
  double parts = 1;
  std::vector<int64_t> roots, tasks;  // of `features`: who gives only, and who gives and receives
};

// What comes out more than once is for as many uses: their gradients then meet in the backward of route, in the cache, instead of in
// passes of their own.
struct Routed {
  at::Tensor features;              // as they came in [K,B,d]
  at::Tensor own;                   // f [T,B,d]
  at::Tensor packet, packet_again;  // F [T,B,d]
  at::Tensor similarity;            // s^ [B,T,T], carries no gradient
};

// features [K,B,d]; query, key [d,w] for Dot; fixed [T,T] for Fixed; else undefined.
Routed route(const at::Tensor& features, const at::Tensor& query, const at::Tensor& key, const at::Tensor& fixed, const Router& router);

}  // namespace ektm::ops
