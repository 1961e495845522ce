#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "nn/parameters.h"

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
  at::Tensor query, key;              // [d,w] for Dot
  at::Tensor fixed;                   // [T,T] for Fixed
};

// Of T transmitters whose MLP has one hidden layer of h numbers.
struct Transmitter {
  at::Tensor hidden_weight, hidden_bias;  // [T,d,h], [T,1,h]
  at::Tensor out_weight, out_bias;        // [T,h,d], [T,1,d]
  at::Tensor gate_weight, gate_bias;      // [T,2d,d]: of f, then of F; [T,1,d]
  at::Tensor head;                        // [T,d,1]
  double dropout = 0;                     // of the hidden layer
};

// What comes out more than once is for as many uses: their gradients then meet in the backward of route, in the cache, instead of in
// passes of their own.
struct Routed {
  at::Tensor features;              // as they came in [K,B,d]
  at::Tensor own;                   // f [T,B,d]
  at::Tensor packet, packet_again;  // F [T,B,d]
  at::Tensor similarity;            // s^ [B,T,T], carries no gradient
};

// features [K,B,d].
Routed route(const at::Tensor& features, const Router& router);

struct Transferred {
  at::Tensor features;    // as they came in [K,B,d]
  at::Tensor logits;      // head . (sigmoid(G [f ; F]) * MLP(F)) [T,B]
  at::Tensor packet;      // F [T,B,d], carries no gradient
  at::Tensor similarity;  // s^ [B,T,T], carries no gradient
};

// route() and what the transmitters make of it, as the operations of nn/ops.h would, but by blocks of rows that stay in the cache. Their
// gradient reaches f_i with router.to_own only.
Transferred transfer(const at::Tensor& features, const Router& router, const Transmitter& transmitter, Context& context);

}  // namespace ektm::ops
