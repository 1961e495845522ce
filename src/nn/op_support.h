#pragma once
// What the operations of nn/ops.h and nn/transfer.h are written with.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "base/threads.h"
#include "nn/kernels.h"
#include "nn/parameters.h"

namespace ektm::ops {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using kernels::Rows;

#define EKTM_DISPATCH(tensor, ...) AT_DISPATCH_FLOATING_TYPES((tensor).scalar_type(), "ektm", __VA_ARGS__)

// Rows that a thread takes at a time: enough for an efficient product, few enough that what follows finds them in the cache.
struct Blocks {
  int64_t total, rows, count;
  Blocks(int64_t total_rows, int64_t width, int64_t largest = 512) : total(total_rows) {
    const int64_t share = (total + threads() - 1) / threads();
    const int64_t worth_a_thread = 1 + 16384 / width;  // less is done sooner than another thread wakes up
    rows = std::max(worth_a_thread, std::min(largest, share));
    count = (total + rows - 1) / rows;
  }
  int64_t begin(int64_t block) const { return block * rows; }
  int64_t size(int64_t block) const { return std::min(rows, total - block * rows); }
  // body(block) for each, on all threads.
  template <class Body>
  void parallel(Body body) const {
    parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) body(b);
    });
  }
};

// Sums of parameters' gradients over blocks of rows, added up in the order of the blocks.
template <class T>
struct Partial {
  int64_t size;
  std::vector<T> sums;
  Partial(int64_t blocks, int64_t size_in) : size(size_in), sums(static_cast<size_t>(blocks * size_in)) {}
  T* at(int64_t block) { return sums.data() + block * size; }
  void add_up(T* out) const {
    std::fill_n(out, size, T(0));
    for (const T* block = sums.data(); block < sums.data() + sums.size(); block += size)
      for (int64_t i = 0; i < size; ++i) out[i] += block[i];
  }
};

// For a share of `rate` of the numbers; none outside training.
kernels::Dropout draw_dropout(double rate, const Context& context);

inline bool stack_like(const at::Tensor& x) { return x.stride(x.dim() - 1) == 1 || x.size(x.dim() - 1) == 1; }
inline at::Tensor as_stack(const at::Tensor& x) { return stack_like(x) ? x : x.contiguous(); }

template <class T>
Rows<const T> const_rows(const at::Tensor& stack) {
  return {stack.const_data_ptr<T>(), stack.stride(1), stack.stride(0)};
}
template <class T>
Rows<T> mutable_rows(const at::Tensor& stack) {
  return {stack.data_ptr<T>(), stack.stride(1), stack.stride(0)};
}

// [E,B,n] with the memory of [B,E,n].
inline at::Tensor empty_stack(int64_t count, int64_t rows, int64_t width, const at::TensorOptions& options) {
  return at::empty_strided({count, rows, width}, {width, count * width, 1}, options);
}

// For the roofline and the trace: the products of an operation.
struct ProductScope {
  struct Shape {
    int64_t count, m, n, k;  // count times [m,k] x [k,n]
  };
  at::RecordFunction guard{at::RecordScope::USER_SCOPE};
  ProductScope(const char* name, int64_t count, int64_t m, int64_t n, int64_t k) : ProductScope(name, std::vector<Shape>{{count, m, n, k}}) {}
  ProductScope(const char* name, const std::vector<Shape>& products) {
    if (!guard.isActive()) return;
    if (guard.needsInputs()) {
      std::vector<c10::IValue> shapes;
      for (const Shape& s : products) shapes.insert(shapes.end(), {s.count, s.m, s.n, s.k});
      guard.before(name, &shapes);
    } else {
      guard.before(name);
    }
  }
};

inline at::Tensor optional(const std::optional<at::Tensor>& tensor) { return tensor.value_or(at::Tensor()); }
inline std::optional<at::Tensor> optional(const at::Tensor& tensor) { return tensor.defined() ? std::optional(tensor) : std::nullopt; }

}  // namespace ektm::ops
