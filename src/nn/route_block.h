#pragma once
// The router's formula and its gradient for a block of rows, of which nn/transfer.cpp makes an operation.
#include <cmath>
#include <vector>

#include "nn/gemm.h"
#include "nn/op_support.h"
#include "nn/transfer.h"

namespace ektm::ops {

struct RouteShape {
  int64_t count, width, key_width;  // T, d, w
  const Router& router;
  bool dot() const { return router.similarity == Router::Similarity::Dot; }
  bool cosine() const { return router.similarity == Router::Similarity::Cosine; }
  double scale() const { return dot() ? 1 / std::sqrt(static_cast<double>(key_width)) : 1; }
  int64_t projected_width() const { return dot() ? 2 * key_width : 0; }  // key | query
  int64_t map_size() const { return width * projected_width(); }
};

// For all blocks of a pass, shared by its threads. T: float or double.
template <class T>
class RouteBlocks {
 public:
  // features: [rows,d] for each of all tasks. query, key [d,w]; fixed [T,T]; where the similarity has none, null.
  RouteBlocks(const RouteShape& shape, Rows<const T> features, const T* query, const T* key, const T* fixed)
      : s_(shape), features_(features), fixed_(fixed) {
    const int64_t w = s_.key_width, n = s_.count;
    if (s_.dot()) {
      maps_.resize(static_cast<size_t>(s_.width * 3 * w));  // key | query | key, so that one product has any two side by side
      for (int64_t i = 0; i < s_.width; ++i) {
        T* to = maps_.data() + i * 3 * w;
        std::copy_n(key + i * w, w, to);
        std::copy_n(query + i * w, w, to + w);
        std::copy_n(key + i * w, w, to + 2 * w);
      }
      forward_.emplace(false, 2 * w, s_.width, maps_.data(), 3 * w);
      if (s_.router.to_own) backward_.emplace(true, s_.width, 2 * w, maps_.data() + w, 3 * w);
      else if (s_.router.to_sources) backward_.emplace(true, s_.width, w, maps_.data() + 2 * w, 3 * w);
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        sources_.push_back(static_cast<int32_t>(j));
        reached_.push_back(i == j ? s_.router.to_own : s_.router.to_sources);
      }
  }

  // Rows [first, first + size). weights [size,T,T] and projected [size,T,2w] are for backward(); packets [size,T,d], all without gaps.
  void forward(int64_t first, int64_t size, T* weights, T* projected, T* packets) const {
    const int64_t n = s_.count, d = s_.width, w = s_.key_width;
    Room& room = Room::of_this_thread();
    if (s_.router.similarity == Router::Similarity::Fixed)
      for (int64_t r = 0; r < size; ++r) std::copy_n(fixed_, n * n, weights + r * n * n);
    if (s_.cosine()) {
      make_unit(first, size, room);
      kernels::scores(size, n, d, room.unit.data(), room.unit.data(), d, T(1), weights);
    }
    if (s_.dot()) {
      for (int64_t t = 0; t < n; ++t) forward_->multiply(size, own(first, t), features_.row_stride, T(0), projected + t * 2 * w, n * 2 * w);
      kernels::scores(size, n, w, projected + w, projected, 2 * w, static_cast<T>(s_.scale()), weights);
    }
    if (s_.router.normalize == Router::Normalize::Softmax) kernels::softmax(size * n, n, weights);
    if (s_.router.normalize == Router::Normalize::Sigmoid) kernels::sigmoid(size * n * n, weights);
    const std::vector<int64_t>& roots = s_.router.roots;
    const T* add = nullptr;
    int64_t add_stride = d;
    if (roots.size() == 1) {
      add = features_.at(first, roots[0]), add_stride = features_.row_stride;
    } else if (!roots.empty()) {
      room.roots.assign(size * d, T(0));
      for (int64_t root : roots)
        for (int64_t r = 0; r < size; ++r) add_to(features_.at(first + r, root), T(1), room.roots.data() + r * d);
      add = room.roots.data();
    }
    std::vector<const T*> inputs;
    for (int64_t t = 0; t < n; ++t) inputs.push_back(own(first, t));
    const std::vector<int64_t> strides(n, features_.row_stride);
    kernels::mix(size, n, n, d, weights, inputs.data(), strides.data(), sources_.data(), add, add_stride, over_parts(), packets);
  }

  // up: the gradient of the packets, its first row that of `first`. Adds to `into`, all tasks' features' gradient, numbered like them, and
  // to map_sums [d,2w], of key | query.
  void backward(int64_t first, int64_t size, const T* weights, const T* projected, Rows<const T> up, Rows<T> into, T* map_sums) const {
    const int64_t n = s_.count, d = s_.width, w = s_.key_width, rows = size * n;
    const Router& router = s_.router;
    Room& room = Room::of_this_thread();
    if (router.to_sources)
      for (int64_t root : router.roots)
        for (int64_t r = 0; r < size; ++r)
          for (int64_t t = 0; t < n; ++t) add_to(up.at(r, t), over_parts(), into.at(first + r, root));
    std::vector<const T*> inputs;
    std::vector<T*> grads;
    for (int64_t t = 0; t < n; ++t) inputs.push_back(own(first, t)), grads.push_back(into.at(first, router.tasks[t]));
    const std::vector<int64_t> strides(n, features_.row_stride), grad_strides(n, into.row_stride);
    room.scores.resize(rows * n);
    T* const scores = room.scores.data();
    kernels::mix_grad(size, n, n, d, weights, inputs.data(), strides.data(), sources_.data(), up, over_parts(), reached_.data(), scores, grads.data(),
                      grad_strides.data());
    if (!s_.dot() && !s_.cosine()) return;
    if (router.normalize == Router::Normalize::Softmax) kernels::softmax_grad(rows, n, weights, scores);
    if (router.normalize == Router::Normalize::Sigmoid)
      for (int64_t i = 0; i < rows * n; ++i) scores[i] *= weights[i] * (1 - weights[i]);
    // Of keys, of queries, and the part of the keys' that reaches features.
    const int64_t key_width = s_.dot() ? w : d, stride = 3 * key_width;
    room.grads.resize(rows * stride);
    T *to_keys = room.grads.data(), *to_queries = to_keys + key_width, *to_sources = to_queries + key_width;
    if (s_.dot()) {
      kernels::scores_grad(size, n, w, scores, projected + w, projected, 2 * w, static_cast<T>(s_.scale()), reached_.data(), to_queries, to_keys, to_sources,
                           stride);
      for (int64_t t = 0; t < n; ++t) {
        gemm(true, false, d, 2 * w, size, own(first, t), features_.row_stride, to_keys + t * stride, n * stride, T(1), map_sums, 2 * w);
        if (backward_) backward_->multiply(size, (router.to_own ? to_queries : to_sources) + t * stride, n * stride, T(1), grads[t], into.row_stride);
      }
      return;
    }
    // The cosine of a feature with itself is the constant 1.
    for (int64_t r = 0; r < size; ++r)
      for (int64_t t = 0; t < n; ++t) scores[(r * n + t) * n + t] = 0;
    make_unit(first, size, room);
    kernels::scores_grad(size, n, d, scores, room.unit.data(), room.unit.data(), d, T(1), reached_.data(), to_queries, to_keys, to_sources, stride);
    for (int64_t i = 0; i < rows; ++i) {
      const T* unit = room.unit.data() + i * d;
      T* to = into.at(first + i / n, router.tasks[i % n]);
      T along = 0;
      auto total = [&](int64_t c) { return (router.to_own ? to_queries[i * stride + c] : T(0)) + to_sources[i * stride + c]; };
      for (int64_t c = 0; c < d; ++c) along += unit[c] * total(c);
      for (int64_t c = 0; c < d; ++c) to[c] += (total(c) - unit[c] * along) * room.inverse_norm[i];
    }
  }

 private:
  // For a block of rows. One a thread, kept: fresh memory would cost more than the work.
  struct Room {
    std::vector<T> unit, inverse_norm, roots, scores, grads;  // [size,T,..]
    static Room& of_this_thread() {
      thread_local Room room;
      return room;
    }
  };

  const T* own(int64_t row, int64_t task) const { return features_.at(row, s_.router.tasks[task]); }
  T over_parts() const { return static_cast<T>(1 / s_.router.parts); }
  void add_to(const T* from, T scale, T* to) const {
    for (int64_t i = 0; i < s_.width; ++i) to[i] += scale * from[i];
  }
  void make_unit(int64_t first, int64_t size, Room& room) const {
    const int64_t d = s_.width;
    room.unit.resize(size * s_.count * d);
    room.inverse_norm.resize(size * s_.count);
    for (int64_t i = 0; i < size * s_.count; ++i) {
      const T* x = own(first + i / s_.count, i % s_.count);
      T sum = 0;
      for (int64_t c = 0; c < d; ++c) sum += x[c] * x[c];
      room.inverse_norm[i] = 1 / std::max(std::sqrt(sum), T(1e-8));
      for (int64_t c = 0; c < d; ++c) room.unit[i * d + c] = x[c] * room.inverse_norm[i];
    }
  }

  RouteShape s_;
  Rows<const T> features_;
  const T* fixed_;
  std::vector<T> maps_;
  std::optional<RightFactor<T>> forward_, backward_;
  std::vector<int32_t> sources_;  // for mix: of each task all tasks
  std::vector<uint8_t> reached_;  // pairs (i, j) whose gradient reaches f_j
};

}  // namespace ektm::ops
