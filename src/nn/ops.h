#pragma once
// The differentiable operations that models are made of: products fused with what follows them, forward and backward, over all tasks
// or experts at once. float32, and double for finite differences.
//
// A *stack* [E,B,n] holds one [B,n] for each of E tasks or experts. Results lie in memory as [B,E,n], so that a row's numbers are side
// by side; arguments may have any strides but for the last dimension, which must be contiguous (else it is copied).
// Same inputs, same number of threads: same bits.
#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "nn/kernels.h"
#include "nn/parameters.h"

namespace ektm::ops {

// relu(x W + b) of E maps of one input, then dropout. x [B,in], weight [in,E,out], bias [E,out] or undefined -> stack [E,B,out].
// `dropout` is the share of dropped numbers; it needs relu.
at::Tensor fan_out(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool relu, double dropout, Context& context);

// The same for E maps of inputs of their own: x [E/r,B,in], each input seen by r maps in a row; `x2` [E,B,in2], if defined, is as if
// concatenated to x. weight [E,in+in2,out], bias [E,1,out] or undefined -> stack [E,B,out].
at::Tensor stacked(const at::Tensor& x, const at::Tensor& x2, const at::Tensor& weight, const at::Tensor& bias, bool relu, double dropout,
                   Context& context);

// sum_j softmax(logits)[k,b,j] * inputs[index[k*n+j]][b,:]. logits [K,B,n]; inputs: stacks of width H that count as one, numbered one
// after the other; -> stack [K,B,H]. `reached` [K*n], if given, has a 0 where the input is behind a stop-gradient for this gate.
at::Tensor softmax_mix(const at::Tensor& logits, const std::vector<at::Tensor>& inputs, const std::vector<int32_t>& index,
                       const std::vector<uint8_t>& reached = {});

// One number a row: x_e . w_e + b_e. x [E,B,n], weight [E,n,1], bias [E,1,1] or undefined -> [E,B].
at::Tensor heads(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
// sum_i w_i sigmoid(gate)_i message_i. gate, message [E,B,n], weight [E,n,1] -> [E,B].
at::Tensor gated_heads(const at::Tensor& gate, const at::Tensor& message, const at::Tensor& weight);

// Inverted dropout on a contiguous tensor or stack; the identity outside training.
at::Tensor dropout(const at::Tensor& x, double rate, Context& context);

}  // namespace ektm::ops
