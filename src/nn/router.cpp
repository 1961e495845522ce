#include "nn/router.h"

#include <cmath>

#include "nn/gemm.h"
#include "nn/op_support.h"

namespace ektm::ops {
namespace {

// Copies rows [first, first + size) of a stack [T,B,d] to [size,T,d].
template <class T>
void take_rows(const Rows<const T>& from, int64_t first, int64_t size, int64_t count, int64_t width, T* to) {
  for (int64_t r = 0; r < size; ++r)
    for (int64_t t = 0; t < count; ++t, to += width) std::copy_n(from.at(first + r, t), width, to);
}

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
  double scale() const { return router.similarity == Router::Similarity::Dot ? 1 / std::sqrt(static_cast<double>(key_width)) : 1; }
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
  std::vector<T> f, unit, inverse_norm, d, grads;  // [size,T,..]
  static RouteBlock& of_this_thread() {
    thread_local RouteBlock block;
    return block;
  }
  void load(const RouteShape& shape, int64_t first, int64_t size, const Rows<const T>& features) {
    const int64_t rows = size * shape.count, d = shape.width;
    f.resize(rows * d);
    take_rows(features, first, size, shape.count, d, f.data());
    if (shape.router.similarity != Router::Similarity::Cosine) return;
    unit.resize(rows * d);
    inverse_norm.resize(rows);
    unit_rows(rows, d, f.data(), unit.data(), inverse_norm.data());
  }
};

struct Route : Function<Route> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& features_in, const std::optional<at::Tensor>& roots_in,
                               const std::optional<at::Tensor>& query, const std::optional<at::Tensor>& key, const std::optional<at::Tensor>& fixed,
                               const Router& router) {
    const at::Tensor features = as_stack(features_in), roots = roots_in ? as_stack(*roots_in) : at::Tensor();
    const int64_t count = features.size(0), rows = features.size(1), width = features.size(2);
    const RouteShape shape{count, rows, width, query ? query->size(1) : width, router};
    at::Tensor packets = empty_stack(count, rows, width, features.options()), s = at::empty({rows, count, count}, features.options());
    const bool dot = router.similarity == Router::Similarity::Dot;
    at::Tensor projected;  // [B,T,2w]: keys and queries
    if (dot) projected = at::empty({rows, count, 2 * shape.key_width}, features.options());
    RECORD_USER_SCOPE("route");
    EKTM_DISPATCH(features, [&] {
      const Rows<const scalar_t> from = const_rows<scalar_t>(features);
      const std::vector<int32_t> index = all_sources(count);
      const int64_t w = shape.key_width;
      const auto maps = side_by_side<scalar_t>(shape, query ? query->const_data_ptr<scalar_t>() : nullptr, key ? key->const_data_ptr<scalar_t>() : nullptr);
      const Blocks blocks(rows, count * width);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block);
        auto& part = RouteBlock<scalar_t>::of_this_thread();
        part.load(shape, first, size, from);
        scalar_t* weights = s.data_ptr<scalar_t>() + first * count * count;
        if (router.similarity == Router::Similarity::Fixed)
          for (int64_t r = 0; r < size; ++r) std::copy_n(fixed->const_data_ptr<scalar_t>(), count * count, weights + r * count * count);
        if (router.similarity == Router::Similarity::Cosine) kernels::scores(size, count, w, part.unit.data(), part.unit.data(), w, scalar_t(1), weights);
        if (dot) {
          scalar_t* keys = projected.data_ptr<scalar_t>() + first * count * 2 * w;
          gemm(false, false, size * count, 2 * w, width, part.f.data(), width, maps.data(), 3 * w, scalar_t(0), keys, 2 * w);
          kernels::scores(size, count, w, keys + w, keys, 2 * w, static_cast<scalar_t>(shape.scale()), weights);
        }
        if (router.normalize == Router::Normalize::Softmax) kernels::softmax(size * count, count, weights);
        if (router.normalize == Router::Normalize::Sigmoid) kernels::sigmoid(size * count * count, weights);
        std::vector<const scalar_t*> inputs;
        for (int64_t t = 0; t < count; ++t) inputs.push_back(part.f.data() + t * width);
        const std::vector<int64_t> strides(count, count * width);
        kernels::mix(size, count, count, width, weights, inputs.data(), strides.data(), index.data(),
                     roots.defined() ? roots.const_data_ptr<scalar_t>() + first * roots.stride(1) : nullptr, roots.defined() ? roots.stride(1) : 0,
                     static_cast<scalar_t>(1 / router.parts), packets.data_ptr<scalar_t>() + first * count * width);
      });
    });
    ctx->save_for_backward({features, optional(query), optional(key), s, projected});
    ctx->saved_data["router"] = std::vector<int64_t>{static_cast<int64_t>(router.similarity), static_cast<int64_t>(router.normalize), router.to_sources,
                                                     router.to_own};
    ctx->saved_data["parts"] = router.parts;
    ctx->saved_data["roots"] = roots.defined();
    ctx->mark_non_differentiable({s});
    return {packets, s};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &features = saved[0], &query = saved[1], &key = saved[2], &s = saved[3], &projected = saved[4], grad = as_stack(grads[0]);
    const auto keys = ctx->saved_data["router"].toIntVector();
    Router router{static_cast<Router::Similarity>(keys[0]), static_cast<Router::Normalize>(keys[1]), keys[2] != 0, keys[3] != 0,
                  ctx->saved_data["parts"].toDouble()};
    const int64_t count = features.size(0), rows = features.size(1), width = features.size(2), w = query.defined() ? query.size(1) : width;
    const RouteShape shape{count, rows, width, w, router};
    const bool dot = router.similarity == Router::Similarity::Dot, cosine = router.similarity == Router::Similarity::Cosine;
    at::Tensor df = empty_stack(count, rows, width, features.options()), droots, dq, dk;
    if (ctx->saved_data["roots"].toBool()) droots = at::empty({1, rows, width}, features.options());
    if (dot) dq = at::empty_like(query), dk = at::empty_like(key);
    // Pairs (i, j) whose gradient reaches f_j.
    std::vector<uint8_t> mask(count * count);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < count; ++j) mask[i * count + j] = i == j ? router.to_own : router.to_sources;
    RECORD_USER_SCOPE("route_grad");
    EKTM_DISPATCH(features, [&] {
      const Rows<const scalar_t> from = const_rows<scalar_t>(features), up = const_rows<scalar_t>(grad);
      const auto maps = side_by_side<scalar_t>(shape, dot ? query.const_data_ptr<scalar_t>() : nullptr, dot ? key.const_data_ptr<scalar_t>() : nullptr);
      const std::vector<int32_t> index = all_sources(count);
      const scalar_t over_parts = static_cast<scalar_t>(1 / router.parts), scale = static_cast<scalar_t>(shape.scale());
      const Blocks blocks(rows, count * width);
      Partial<scalar_t> map_sums(dot ? blocks.count : 0, width * 2 * w);  // [key | query]
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block), tasks = size * count;
        auto& part = RouteBlock<scalar_t>::of_this_thread();
        part.load(shape, first, size, from);
        const scalar_t* weights = s.const_data_ptr<scalar_t>() + first * count * count;
        scalar_t* to = df.data_ptr<scalar_t>() + first * count * width;
        std::fill_n(to, tasks * width, scalar_t(0));
        auto& d = part.d;
        d.resize(tasks * count);
        std::vector<const scalar_t*> inputs;
        std::vector<scalar_t*> input_grads;
        for (int64_t t = 0; t < count; ++t) inputs.push_back(part.f.data() + t * width), input_grads.push_back(to + t * width);
        const std::vector<int64_t> strides(count, count * width);
        Rows<const scalar_t> here = up;
        here.data += first * here.row_stride;
        kernels::mix_grad(size, count, count, width, weights, inputs.data(), strides.data(), index.data(), here, over_parts, mask.data(), d.data(),
                          input_grads.data(), strides.data());
        if (droots.defined()) {
          scalar_t* root = droots.data_ptr<scalar_t>() + first * width;
          std::fill_n(root, size * width, scalar_t(0));
          for (int64_t r = 0; r < size; ++r)
            for (int64_t t = 0; t < count; ++t)
              for (int64_t i = 0; i < width; ++i) root[r * width + i] += here.at(r, t)[i] * over_parts;
        }
        if (!dot && !cosine) return;
        if (router.normalize == Router::Normalize::Softmax) kernels::softmax_grad(tasks, count, weights, d.data());
        if (router.normalize == Router::Normalize::Sigmoid)
          for (int64_t i = 0; i < tasks * count; ++i) d[i] *= weights[i] * (1 - weights[i]);
        // The cosine of a feature with itself is the constant 1.
        if (cosine)
          for (int64_t r = 0; r < size; ++r)
            for (int64_t t = 0; t < count; ++t) d[(r * count + t) * count + t] = 0;
        // Of keys, of queries, and the part of the keys' that reaches features.
        part.grads.resize(tasks * 3 * w);
        scalar_t *to_keys = part.grads.data(), *to_queries = to_keys + w, *to_sources = to_keys + 2 * w;
        if (dot) {
          const scalar_t* keys = projected.const_data_ptr<scalar_t>() + first * count * 2 * w;
          kernels::scores_grad(size, count, w, d.data(), keys + w, keys, 2 * w, scale, mask.data(), to_queries, to_keys, to_sources, 3 * w);
          if (router.to_own)
            gemm(false, true, tasks, width, 2 * w, to_queries, 3 * w, maps.data() + w, 3 * w, scalar_t(1), to, width);
          else if (router.to_sources)
            gemm(false, true, tasks, width, w, to_sources, 3 * w, maps.data() + 2 * w, 3 * w, scalar_t(1), to, width);
          gemm(true, false, width, 2 * w, tasks, part.f.data(), width, to_keys, 3 * w, scalar_t(0), map_sums.at(block), 2 * w);
        } else {
          kernels::scores_grad(size, count, w, d.data(), part.unit.data(), part.unit.data(), w, scale, mask.data(), to_queries, to_keys, to_sources, 3 * w);
          for (int64_t t = 0; t < tasks; ++t) {
            const scalar_t* unit = part.unit.data() + t * width;
            scalar_t along = 0;
            auto total = [&](int64_t i) { return (router.to_own ? to_queries[t * 3 * w + i] : scalar_t(0)) + to_sources[t * 3 * w + i]; };
            for (int64_t i = 0; i < width; ++i) along += unit[i] * total(i);
            for (int64_t i = 0; i < width; ++i) to[t * width + i] += (total(i) - unit[i] * along) * part.inverse_norm[t];
          }
        }
      });
      if (dot) {
        std::vector<scalar_t> sums(static_cast<size_t>(width * 2 * w));
        map_sums.add_up(sums.data());
        for (int64_t i = 0; i < width; ++i) {
          std::copy_n(sums.data() + i * 2 * w, w, dk.data_ptr<scalar_t>() + i * w);
          std::copy_n(sums.data() + i * 2 * w + w, w, dq.data_ptr<scalar_t>() + i * w);
        }
      }
    });
    return {df, droots, dq, dk, {}, {}};
  }

  static std::vector<int32_t> all_sources(int64_t count) {
    std::vector<int32_t> index;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < count; ++j) index.push_back(static_cast<int32_t>(j));
    return index;
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> route(const at::Tensor& features, const at::Tensor& roots, const at::Tensor& query, const at::Tensor& key,
                                        const at::Tensor& fixed, const Router& router) {
  variable_list results = Route::apply(features, optional(roots), optional(query), optional(key), optional(fixed), router);
  return {results[0], results[1]};
}

}  // namespace ektm::ops
