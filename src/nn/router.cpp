#include "nn/router.h"

#include <cmath>

#include "nn/gemm.h"
#include "nn/op_support.h"

namespace ektm::ops {
namespace {

template <class T>
void unit_rows(int64_t rows, int64_t width, const T* x, T* unit, T* inverse_norm) {
  for (int64_t r = 0; r < rows; ++r, x += width, unit += width) {
    T sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    inverse_norm[r] = 1 / std::max(std::sqrt(sum), T(1e-8));
    for (int64_t i = 0; i < width; ++i) unit[i] = x[i] * inverse_norm[r];
  }
}

struct RouteShape {
  int64_t count, rows, width, key_width;
  Router router;
  bool dot() const { return router.similarity == Router::Similarity::Dot; }
  bool cosine() const { return router.similarity == Router::Similarity::Cosine; }
  double scale() const { return dot() ? 1 / std::sqrt(static_cast<double>(key_width)) : 1; }
  // Few enough rows that what a block makes stays in the cache until it is used.
  Blocks blocks() const { return {rows, count * width, 128}; }
  // Pairs (i, j) whose gradient reaches f_j.
  std::vector<uint8_t> mask() const {
    std::vector<uint8_t> pairs(count * count);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < count; ++j) pairs[i * count + j] = i == j ? router.to_own : router.to_sources;
    return pairs;
  }
  // For mix: of each task all tasks are sources.
  std::vector<int32_t> sources() const {
    std::vector<int32_t> index;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < count; ++j) index.push_back(static_cast<int32_t>(j));
    return index;
  }
};

// Queries and keys side by side, so that one product makes both, and another the gradients of both: [key | query | key] of [d,w] each.
template <class T>
std::vector<T> side_by_side(const RouteShape& shape, const T* query, const T* key) {
  if (shape.router.similarity != Router::Similarity::Dot) return {};
  const int64_t w = shape.key_width;
  std::vector<T> all(static_cast<size_t>(shape.width * 3 * w));
  for (int64_t i = 0; i < shape.width; ++i) {
    T* to = all.data() + i * 3 * w;
    std::copy_n(key + i * w, w, to);
    std::copy_n(query + i * w, w, to + w);
    std::copy_n(key + i * w, w, to + 2 * w);
  }
  return all;
}

// Room for a block of rows. One a thread, kept: fresh memory would cost more than the work.
template <class T>
struct RouteBlock {
  std::vector<T> unit, inverse_norm, roots, d, up, grads;  // [size,T,..]
  static RouteBlock& of_this_thread() {
    thread_local RouteBlock block;
    return block;
  }
  void make_unit(const RouteShape& shape, int64_t size, const T* own) {
    const int64_t rows = size * shape.count, d = shape.width;
    unit.resize(rows * d);
    inverse_norm.resize(rows);
    unit_rows(rows, d, own, unit.data(), inverse_norm.data());
  }
};

struct Route : Function<Route> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& features_in, const std::optional<at::Tensor>& query,
                               const std::optional<at::Tensor>& key, const std::optional<at::Tensor>& fixed, const Router& router) {
    const at::Tensor features = as_stack(features_in);
    const int64_t count = static_cast<int64_t>(router.tasks.size()), rows = features.size(1), width = features.size(2);
    const RouteShape shape{count, rows, width, query ? query->size(1) : width, router};
    at::Tensor own = empty_stack(count, rows, width, features.options()), packets = empty_stack(count, rows, width, features.options());
    at::Tensor s = at::empty({rows, count, count}, features.options()), projected;  // [B,T,2w]: keys and queries
    if (shape.dot()) projected = at::empty({rows, count, 2 * shape.key_width}, features.options());
    RECORD_USER_SCOPE("route");
    EKTM_DISPATCH(features, [&] {
      const Rows<const scalar_t> from = const_rows<scalar_t>(features);
      const std::vector<int32_t> index = shape.sources();
      const int64_t w = shape.key_width;
      const auto maps = side_by_side<scalar_t>(shape, query ? query->const_data_ptr<scalar_t>() : nullptr, key ? key->const_data_ptr<scalar_t>() : nullptr);
      const Blocks blocks = shape.blocks();
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block);
        auto& part = RouteBlock<scalar_t>::of_this_thread();
        scalar_t* f = own.data_ptr<scalar_t>() + first * count * width;
        for (int64_t r = 0; r < size; ++r)
          for (int64_t t = 0; t < count; ++t) std::copy_n(from.at(first + r, router.tasks[t]), width, f + (r * count + t) * width);
        scalar_t* weights = s.data_ptr<scalar_t>() + first * count * count;
        if (router.similarity == Router::Similarity::Fixed)
          for (int64_t r = 0; r < size; ++r) std::copy_n(fixed->const_data_ptr<scalar_t>(), count * count, weights + r * count * count);
        if (shape.cosine()) {
          part.make_unit(shape, size, f);
          kernels::scores(size, count, w, part.unit.data(), part.unit.data(), w, scalar_t(1), weights);
        }
        if (shape.dot()) {
          scalar_t* keys = projected.data_ptr<scalar_t>() + first * count * 2 * w;
          gemm(false, false, size * count, 2 * w, width, f, width, maps.data(), 3 * w, scalar_t(0), keys, 2 * w);
          kernels::scores(size, count, w, keys + w, keys, 2 * w, static_cast<scalar_t>(shape.scale()), weights);
        }
        if (router.normalize == Router::Normalize::Softmax) kernels::softmax(size * count, count, weights);
        if (router.normalize == Router::Normalize::Sigmoid) kernels::sigmoid(size * count * count, weights);
        const scalar_t* roots = nullptr;
        int64_t root_stride = width;
        if (router.roots.size() == 1) {
          roots = from.at(first, router.roots[0]), root_stride = from.row_stride;
        } else if (!router.roots.empty()) {
          part.roots.assign(size * width, scalar_t(0));
          for (int64_t root : router.roots)
            for (int64_t r = 0; r < size; ++r)
              for (int64_t i = 0; i < width; ++i) part.roots[r * width + i] += from.at(first + r, root)[i];
          roots = part.roots.data();
        }
        std::vector<const scalar_t*> inputs;
        for (int64_t t = 0; t < count; ++t) inputs.push_back(f + t * width);
        const std::vector<int64_t> strides(count, count * width);
        kernels::mix(size, count, count, width, weights, inputs.data(), strides.data(), index.data(), roots, root_stride,
                     static_cast<scalar_t>(1 / router.parts), packets.data_ptr<scalar_t>() + first * count * width);
      });
    });
    ctx->save_for_backward({own, optional(query), optional(key), s, projected});
    ctx->saved_data["router"] =
        std::vector<int64_t>{static_cast<int64_t>(router.similarity), static_cast<int64_t>(router.normalize), router.to_sources, router.to_own};
    ctx->saved_data["parts"] = router.parts;
    ctx->saved_data["roots"] = router.roots;
    ctx->saved_data["tasks"] = router.tasks;
    ctx->saved_data["features"] = features.size(0);
    ctx->mark_non_differentiable({s});
    return {own, packets, packets.view_as(packets), features_in.view_as(features_in), s};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &own = saved[0], &query = saved[1], &key = saved[2], &s = saved[3], &projected = saved[4];
    const auto keys = ctx->saved_data["router"].toIntVector();
    const Router router{static_cast<Router::Similarity>(keys[0]), static_cast<Router::Normalize>(keys[1]), keys[2] != 0, keys[3] != 0,
                        ctx->saved_data["parts"].toDouble(), ctx->saved_data["roots"].toIntVector(), ctx->saved_data["tasks"].toIntVector()};
    const int64_t count = own.size(0), rows = own.size(1), width = own.size(2), w = query.defined() ? query.size(1) : width;
    const RouteShape shape{count, rows, width, w, router};
    auto given = [&](size_t i) { return grads[i].defined() ? as_stack(grads[i]) : at::Tensor(); };
    const at::Tensor own_grad = given(0), features_grad = given(3);
    std::vector<at::Tensor> packet_grads;
    for (size_t i : {1, 2})
      if (grads[i].defined()) packet_grads.push_back(as_stack(grads[i]));
    const int64_t features = ctx->saved_data["features"].toInt();
    at::Tensor df = empty_stack(features, rows, width, own.options()), dq, dk;
    if (shape.dot()) dq = at::empty_like(query), dk = at::empty_like(key);
    const std::vector<uint8_t> mask = shape.mask();
    RECORD_USER_SCOPE("route_grad");
    EKTM_DISPATCH(own, [&] {
      std::vector<Rows<const scalar_t>> packets_from;
      for (const auto& grad : packet_grads) packets_from.push_back(const_rows<scalar_t>(grad));
      Rows<const scalar_t> own_from{}, features_from{};
      if (own_grad.defined()) own_from = const_rows<scalar_t>(own_grad);
      if (features_grad.defined()) features_from = const_rows<scalar_t>(features_grad);
      const auto maps =
          side_by_side<scalar_t>(shape, shape.dot() ? query.const_data_ptr<scalar_t>() : nullptr, shape.dot() ? key.const_data_ptr<scalar_t>() : nullptr);
      const std::vector<int32_t> index = shape.sources();
      const scalar_t over_parts = static_cast<scalar_t>(1 / router.parts), scale = static_cast<scalar_t>(shape.scale());
      const Rows<scalar_t> into = mutable_rows<scalar_t>(df);
      const Blocks blocks = shape.blocks();
      Partial<scalar_t> map_sums(shape.dot() ? blocks.count : 0, width * 2 * w);  // [key | query]
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block), tasks = size * count;
        auto& part = RouteBlock<scalar_t>::of_this_thread();
        const scalar_t* f = own.const_data_ptr<scalar_t>() + first * count * width;
        const scalar_t* weights = s.const_data_ptr<scalar_t>() + first * count * count;
        // What arrives: the sum over the uses of F in `up`, the other uses' as the start of the result.
        auto add = [&](const scalar_t* from, scalar_t* to) {
          for (int64_t i = 0; i < width; ++i) to[i] += from[i];
        };
        part.up.resize(tasks * width);
        for (int64_t r = 0; r < size; ++r) {
          for (int64_t k = 0; k < features; ++k) {
            scalar_t* to = into.at(first + r, k);
            if (features_grad.defined())
              std::copy_n(features_from.at(first + r, k), width, to);
            else
              std::fill_n(to, width, scalar_t(0));
          }
          for (int64_t t = 0; t < count; ++t) {
            scalar_t* up = part.up.data() + (r * count + t) * width;
            if (packets_from.empty()) std::fill_n(up, width, scalar_t(0));
            if (packets_from.size() > 0) std::copy_n(packets_from[0].at(first + r, t), width, up);
            if (packets_from.size() > 1) add(packets_from[1].at(first + r, t), up);
            if (own_grad.defined()) add(own_from.at(first + r, t), into.at(first + r, router.tasks[t]));
          }
          if (!router.to_sources) continue;
          for (int64_t root : router.roots)
            for (int64_t t = 0; t < count; ++t)
              for (int64_t i = 0; i < width; ++i) into.at(first + r, root)[i] += part.up[(r * count + t) * width + i] * over_parts;
        }
        auto& d = part.d;
        d.resize(tasks * count);
        std::vector<const scalar_t*> inputs;
        std::vector<scalar_t*> input_grads;
        for (int64_t t = 0; t < count; ++t) inputs.push_back(f + t * width), input_grads.push_back(into.at(first, router.tasks[t]));
        const std::vector<int64_t> strides(count, count * width), grad_strides(count, into.row_stride);
        kernels::mix_grad(size, count, count, width, weights, inputs.data(), strides.data(), index.data(),
                          Rows<const scalar_t>{part.up.data(), count * width, width}, over_parts, mask.data(), d.data(), input_grads.data(),
                          grad_strides.data());
        if (!shape.dot() && !shape.cosine()) return;
        if (router.normalize == Router::Normalize::Softmax) kernels::softmax_grad(tasks, count, weights, d.data());
        if (router.normalize == Router::Normalize::Sigmoid)
          for (int64_t i = 0; i < tasks * count; ++i) d[i] *= weights[i] * (1 - weights[i]);
        // The cosine of a feature with itself is the constant 1.
        if (shape.cosine())
          for (int64_t r = 0; r < size; ++r)
            for (int64_t t = 0; t < count; ++t) d[(r * count + t) * count + t] = 0;
        // Of keys, of queries, and the part of the keys' that reaches features.
        part.grads.resize(tasks * 3 * w);
        scalar_t *to_keys = part.grads.data(), *to_queries = to_keys + w, *to_sources = to_keys + 2 * w;
        if (shape.dot()) {
          const scalar_t* keys_here = projected.const_data_ptr<scalar_t>() + first * count * 2 * w;
          kernels::scores_grad(size, count, w, d.data(), keys_here + w, keys_here, 2 * w, scale, mask.data(), to_queries, to_keys, to_sources, 3 * w);
          gemm(true, false, width, 2 * w, tasks, f, width, to_keys, 3 * w, scalar_t(0), map_sums.at(block), 2 * w);
          if (!router.to_own && !router.to_sources) return;
          // Into the room of `up`, which is used: rows of `into` may lie further apart than a product allows.
          if (router.to_own)
            gemm(false, true, tasks, width, 2 * w, to_queries, 3 * w, maps.data() + w, 3 * w, scalar_t(0), part.up.data(), width);
          else
            gemm(false, true, tasks, width, w, to_sources, 3 * w, maps.data() + 2 * w, 3 * w, scalar_t(0), part.up.data(), width);
          for (int64_t t = 0; t < tasks; ++t) add(part.up.data() + t * width, into.at(first + t / count, router.tasks[t % count]));
        } else {
          part.make_unit(shape, size, f);
          kernels::scores_grad(size, count, w, d.data(), part.unit.data(), part.unit.data(), w, scale, mask.data(), to_queries, to_keys, to_sources, 3 * w);
          for (int64_t t = 0; t < tasks; ++t) {
            const scalar_t* unit = part.unit.data() + t * width;
            scalar_t* to = into.at(first + t / count, router.tasks[t % count]);
            scalar_t along = 0;
            auto total = [&](int64_t i) { return (router.to_own ? to_queries[t * 3 * w + i] : scalar_t(0)) + to_sources[t * 3 * w + i]; };
            for (int64_t i = 0; i < width; ++i) along += unit[i] * total(i);
            for (int64_t i = 0; i < width; ++i) to[i] += (total(i) - unit[i] * along) * part.inverse_norm[t];
          }
        }
      });
      if (shape.dot()) {
        std::vector<scalar_t> sums(static_cast<size_t>(width * 2 * w));
        map_sums.add_up(sums.data());
        for (int64_t i = 0; i < width; ++i) {
          std::copy_n(sums.data() + i * 2 * w, w, dk.data_ptr<scalar_t>() + i * w);
          std::copy_n(sums.data() + i * 2 * w + w, w, dq.data_ptr<scalar_t>() + i * w);
        }
      }
    });
    return {df, dq, dk, {}, {}};
  }
};

}  // namespace

Routed route(const at::Tensor& features, const at::Tensor& query, const at::Tensor& key, const at::Tensor& fixed, const Router& router) {
  const variable_list results = Route::apply(features, optional(query), optional(key), optional(fixed), router);
  return {results[3], results[0], results[1], results[2], results[4]};
}

}  // namespace ektm::ops
