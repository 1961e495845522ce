#include "nn/attention.h"

#include "base/error.h"
#include "nn/gemm.h"
#include "nn/op_support.h"

namespace ektm {
namespace ops {
namespace {

constexpr int64_t kBlockPositions = 512;  // values that the network is computed for at once: its hidden numbers stay in the cache

// Sizes of the layers' outputs, and where the parameters of one group stand in a list of all their gradients.
struct Layout {
  int64_t dim = 0;
  std::vector<int64_t> sizes;           // [L], the last is 1
  std::vector<int64_t> weights, biases;  // first number of each; weights[0] stands for `first` and `query` of Folded
  int64_t total = 0;

  Layout(int64_t dim_in, const std::vector<at::Tensor>& layers) : dim(dim_in) {
    int64_t in = 3 * dim;
    for (const at::Tensor& layer : layers) {
      sizes.push_back(layer.size(2));
      weights.push_back(total);
      biases.push_back(total += in * layer.size(2));
      in = layer.size(2);
      total += in;
    }
  }
  size_t layers() const { return sizes.size(); }
  bool relu(size_t layer) const { return layer + 1 < layers(); }
};

// The network of one group. Its first layer is folded,
//   W [e; q; e - q; e * q] = [Wa + Wc; Wd] [e; e * q] + (Wb - Wc) q,
// so that the product over all positions is half as wide, and what is the query's own is computed once a sample.
template <class T>
struct Folded {
  std::vector<T> first, query;           // [2d,n0], [d,n0]
  std::vector<const T*> weights, biases;  // [L]; weights[0] unused, a bias may be null

  Folded(const Layout& layout, const std::vector<at::Tensor>& layers, const std::vector<at::Tensor>& layer_biases, int64_t group) {
    const int64_t d = layout.dim, n = layout.sizes[0], part = d * n;
    for (const at::Tensor& layer : layers) weights.push_back(layer.const_data_ptr<T>() + group * layer.stride(0));
    for (const at::Tensor& bias : layer_biases) biases.push_back(bias.const_data_ptr<T>() + group * bias.stride(0));
    biases.resize(layers.size(), nullptr);
    const T* w = weights[0];
    first.resize(static_cast<size_t>(2 * part));
    query.resize(static_cast<size_t>(part));
    for (int64_t i = 0; i < part; ++i) {
      first[i] = w[i] + w[2 * part + i];
      first[part + i] = w[3 * part + i];
      query[i] = w[part + i] - w[2 * part + i];
    }
  }
  // The gradient of the unfolded weight [4d,n0] from those of `first` and `query`, which follow each other in `sums`.
  static void unfold(const Layout& layout, const T* sums, T* out) {
    const int64_t part = layout.dim * layout.sizes[0];
    const T *of_query = sums + 2 * part;
    for (int64_t i = 0; i < part; ++i) {
      out[i] = sums[i];
      out[part + i] = of_query[i];
      out[2 * part + i] = sums[i] - of_query[i];
      out[3 * part + i] = sums[part + i];
    }
  }
};

// Values and query of one group, as the samples [begin, end) see them.
template <class T>
struct Group {
  const T* values;
  int64_t values_stride;
  const T* query;
  int64_t query_stride;
  const int32_t* offsets;
};

// Scratch of one thread for blocks of samples, and the passes through the network.
template <class T>
class Pass {
 public:
  explicit Pass(const Layout& layout) : layout_(layout), hidden_(layout.layers()), grads_(layout.layers()), masked_(layout.layers()) {}

  // Scores of the values of the samples [begin, end), without normalisation.
  T* scores(const Folded<T>& network, const Group<T>& group, int64_t begin, int64_t end) {
    const int64_t d = layout_.dim, n = layout_.sizes[0], samples = end - begin, first = group.offsets[begin];
    positions_ = group.offsets[end] - first;
    T* input = room(input_, positions_ * 2 * d);
    T* query = room(query_, samples * n);
    for (int64_t s = begin; s < end; ++s)
      kernels::pair_inputs(count(group, s), d, group.values + group.offsets[s] * group.values_stride, group.values_stride,
                           group.query + s * group.query_stride, input + (group.offsets[s] - first) * 2 * d);
    gemm(false, false, samples, n, d, group.query + begin * group.query_stride, group.query_stride, network.query.data(), n, T(0), query, n);
    kernels::finish_linear(samples, n, n, 0, 0, network.biases[0], false, {}, query);
    T* y = room(hidden_[0], positions_ * n);
    gemm(false, false, positions_, n, 2 * d, input, 2 * d, network.first.data(), n, T(0), y, n);
    for (int64_t s = begin; s < end; ++s)
      kernels::finish_linear(count(group, s), n, n, 0, 0, query + (s - begin) * n, layout_.relu(0), {}, y + (group.offsets[s] - first) * n);
    for (size_t l = 1; l < layout_.layers(); ++l) {
      const int64_t in = layout_.sizes[l - 1], out = layout_.sizes[l];
      const T* x = y;
      y = room(hidden_[l], positions_ * out);
      gemm(false, false, positions_, out, in, x, in, network.weights[l], out, T(0), y, out);
      kernels::finish_linear(positions_, out, out, 0, 0, network.biases[l], layout_.relu(l), {}, y);
    }
    return y;
  }

  // After scores() for the same samples. score_grad: of the scores. Adds to `sums` (see Layout); query_grad [samples,d] =. Returns the gradient of
  // the network's input [positions,2d].
  const T* backward(const Folded<T>& network, const Group<T>& group, int64_t begin, int64_t end, const T* score_grad, T* sums, T* query_grad,
                    int64_t query_grad_stride) {
    const int64_t d = layout_.dim, n = layout_.sizes[0], samples = end - begin, first = group.offsets[begin];
    const T* up = score_grad;
    for (size_t l = layout_.layers() - 1; l > 0; --l) {
      const int64_t in = layout_.sizes[l - 1], out = layout_.sizes[l];
      const T* pre = up;  // the last layer has no relu
      if (layout_.relu(l)) {
        T* masked = room(masked_[l], positions_ * out);
        kernels::finish_linear_grad(positions_, 1, out, true, 1, hidden_[l].data(), Rows<const T>{up, out, out}, masked, sums + layout_.biases[l]);
        pre = masked;
      } else {
        kernels::column_sums(positions_, out, up, out, sums + layout_.biases[l]);
      }
      gemm(true, false, in, out, positions_, hidden_[l - 1].data(), in, pre, out, T(1), sums + layout_.weights[l], out);
      T* down = room(grads_[l - 1], positions_ * in);
      gemm(false, true, positions_, in, out, pre, out, network.weights[l], out, T(0), down, in);
      up = down;
    }
    // The first layer: its sum over a sample's values is what the query's part gets.
    T* pre = room(masked_[0], positions_ * n);
    T* by_sample = room(query_, samples * n);
    std::fill_n(by_sample, samples * n, T(0));
    for (int64_t s = begin; s < end; ++s) {
      const int64_t at = (group.offsets[s] - first) * n;
      kernels::finish_linear_grad(count(group, s), 1, n, layout_.relu(0), 1, hidden_[0].data() + at, Rows<const T>{up + at, n, n}, pre + at,
                                  by_sample + (s - begin) * n);
    }
    T* weight_sums = sums + layout_.weights[0];
    gemm(true, false, 2 * d, n, positions_, input_.data(), 2 * d, pre, n, T(1), weight_sums, n);
    gemm(true, false, d, n, samples, group.query + begin * group.query_stride, group.query_stride, by_sample, n, T(1), weight_sums + 2 * d * n,
         n);
    kernels::column_sums(samples, n, by_sample, n, sums + layout_.biases[0]);
    gemm(false, true, samples, d, n, by_sample, n, network.query.data(), n, T(0), query_grad, query_grad_stride);
    T* input_grad = room(input_grad_, positions_ * 2 * d);
    gemm(false, true, positions_, 2 * d, n, pre, n, network.first.data(), n, T(0), input_grad, 2 * d);
    return input_grad;
  }

  static int64_t count(const Group<T>& group, int64_t sample) { return group.offsets[sample + 1] - group.offsets[sample]; }

 private:
  static T* room(std::vector<T>& memory, int64_t size) {
    if (memory.size() < static_cast<size_t>(size)) memory.resize(static_cast<size_t>(size));
    return memory.data();
  }

  const Layout& layout_;
  int64_t positions_ = 0;
  std::vector<T> input_, query_, input_grad_;
  std::vector<std::vector<T>> hidden_, grads_, masked_;
};

// Samples in runs of about as many values each, and runs in blocks of whole samples with at most kBlockPositions values, or one sample.
struct Runs {
  std::vector<int64_t> bounds;
  const int32_t* offsets;

  Runs(const int32_t* offsets_in, int64_t samples) : bounds{0}, offsets(offsets_in) {
    const int64_t total = offsets[samples] + samples, count = std::min<int64_t>(4 * threads(), 1 + total / kBlockPositions);
    int64_t b = 0;
    for (int64_t r = 1; r < count; ++r) {
      while (b < samples && offsets[b] + b < total * r / count) ++b;
      if (b > bounds.back()) bounds.push_back(b);
    }
    if (samples > bounds.back()) bounds.push_back(samples);
  }
  int64_t count() const { return static_cast<int64_t>(bounds.size()) - 1; }
  // body(run, begin, end) for each block of each run, runs side by side.
  template <class Start>
  void parallel(Start start) const {
    parallel_for(0, count(), 1, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        auto body = start(r);
        for (int64_t begin = bounds[r]; begin < bounds[r + 1];) {
          int64_t end = begin + 1;
          while (end < bounds[r + 1] && end - begin < kBlockPositions && offsets[end + 1] - offsets[begin] <= kBlockPositions) ++end;
          body(begin, end);
          begin = end;
        }
      }
    });
  }
};

struct Attend : Function<Attend> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& values, const at::Tensor& query_in, const at::Tensor& offsets, bool softmax,
                            int64_t layer_count, at::TensorList parameters) {
    const at::Tensor query = as_stack(query_in);
    const std::vector<at::Tensor> weights(parameters.begin(), parameters.begin() + layer_count), biases(parameters.begin() + layer_count, parameters.end());
    const int64_t groups = query.size(0), samples = query.size(1), dim = query.size(2), positions = values.size(0), width = groups * dim;
    at::Tensor pooled = empty_stack(groups, samples, dim, values.options()), shares = at::empty({groups, positions}, values.options());
    const Layout layout(dim, weights);
    RECORD_USER_SCOPE("attend");
    EKTM_DISPATCH(values, [&] {
      std::vector<Folded<scalar_t>> networks;
      for (int64_t g = 0; g < groups; ++g) networks.emplace_back(layout, weights, biases, g);
      const int32_t* starts = offsets.const_data_ptr<int32_t>();
      const Rows<const scalar_t> q = const_rows<scalar_t>(query);
      const Rows<scalar_t> out = mutable_rows<scalar_t>(pooled);
      Runs(starts, samples).parallel([&](int64_t) {
        return [&, pass = Pass<scalar_t>(layout)](int64_t begin, int64_t end) mutable {
          for (int64_t g = 0; g < groups; ++g) {
            const Group<scalar_t> group{values.const_data_ptr<scalar_t>() + g * dim, width, q.at(0, g), q.row_stride, starts};
            scalar_t* share = shares.data_ptr<scalar_t>() + g * positions + starts[begin];
            std::copy_n(pass.scores(networks[g], group, begin, end), starts[end] - starts[begin], share);
            for (int64_t s = begin; s < end; ++s) {
              const int64_t count = starts[s + 1] - starts[s];
              if (softmax && count > 0) kernels::softmax(1, count, share);
              kernels::weighted_sum(count, dim, share, group.values + starts[s] * width, width, out.at(s, g));
              share += count;
            }
          }
        };
      });
    });
    std::vector<at::Tensor> saved{values, query, offsets, shares};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["softmax"] = softmax;
    ctx->saved_data["layers"] = layer_count;
    return pooled;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &values = saved[0], &query = saved[1], &offsets = saved[2], &shares = saved[3], grad = as_stack(grads[0]);
    const bool softmax = ctx->saved_data["softmax"].toBool();
    const int64_t layer_count = ctx->saved_data["layers"].toInt();
    const std::vector<at::Tensor> weights(saved.begin() + 4, saved.begin() + 4 + layer_count), biases(saved.begin() + 4 + layer_count, saved.end());
    const int64_t groups = query.size(0), samples = query.size(1), dim = query.size(2), positions = values.size(0), width = groups * dim;
    at::Tensor dvalues = at::empty_like(values), dquery = empty_stack(groups, samples, dim, values.options());
    variable_list results{dvalues, dquery, {}, {}, {}};
    for (size_t i = 4; i < saved.size(); ++i) results.push_back(at::empty_like(saved[i]));
    const Layout layout(dim, weights);
    RECORD_USER_SCOPE("attend_grad");
    EKTM_DISPATCH(values, [&] {
      std::vector<Folded<scalar_t>> networks;
      for (int64_t g = 0; g < groups; ++g) networks.emplace_back(layout, weights, biases, g);
      const int32_t* starts = offsets.const_data_ptr<int32_t>();
      const Rows<const scalar_t> q = const_rows<scalar_t>(query), up = const_rows<scalar_t>(grad);
      const Rows<scalar_t> to_query = mutable_rows<scalar_t>(dquery);
      const Runs runs(starts, samples);
      Partial<scalar_t> sums(runs.count(), groups * layout.total);
      runs.parallel([&](int64_t run) {
        return [&, run, pass = Pass<scalar_t>(layout), score_grad = std::vector<scalar_t>()](int64_t begin, int64_t end) mutable {
          const int64_t first = starts[begin];
          score_grad.resize(static_cast<size_t>(starts[end] - first));
          for (int64_t g = 0; g < groups; ++g) {
            const Group<scalar_t> group{values.const_data_ptr<scalar_t>() + g * dim, width, q.at(0, g), q.row_stride, starts};
            const scalar_t* share = shares.const_data_ptr<scalar_t>() + g * positions;
            pass.scores(networks[g], group, begin, end);
            for (int64_t s = begin; s < end; ++s) {
              const int64_t count = starts[s + 1] - starts[s];
              scalar_t* d = score_grad.data() + (starts[s] - first);
              kernels::dots(count, dim, group.values + starts[s] * width, width, up.at(s, g), scalar_t(0), d);
              if (softmax) kernels::softmax_grad(1, count, share + starts[s], d);
            }
            const scalar_t* input_grad = pass.backward(networks[g], group, begin, end, score_grad.data(), sums.at(run) + g * layout.total,
                                                       to_query.at(begin, g), to_query.row_stride);
            for (int64_t s = begin; s < end; ++s)
              kernels::pair_inputs_grad(starts[s + 1] - starts[s], dim, group.values + starts[s] * width, width, q.at(s, g),
                                        input_grad + (starts[s] - first) * 2 * dim, share + starts[s], up.at(s, g),
                                        dvalues.data_ptr<scalar_t>() + starts[s] * width + g * dim, width, to_query.at(s, g));
          }
        };
      });
      std::vector<scalar_t> total(static_cast<size_t>(groups * layout.total));
      sums.add_up(total.data());
      for (int64_t g = 0; g < groups; ++g) {
        const scalar_t* own = total.data() + g * layout.total;
        for (int64_t l = 0; l < layer_count; ++l) {
          const at::Tensor& dw = results[static_cast<size_t>(5 + l)];
          scalar_t* to = dw.data_ptr<scalar_t>() + g * dw.stride(0);
          if (l == 0)
            Folded<scalar_t>::unfold(layout, own, to);
          else
            std::copy_n(own + layout.weights[l], dw.stride(0), to);
        }
        for (size_t l = 0; l < biases.size(); ++l) {
          const at::Tensor& db = results[5 + static_cast<size_t>(layer_count) + l];
          std::copy_n(own + layout.biases[l], db.stride(0), db.data_ptr<scalar_t>() + g * db.stride(0));
        }
      }
    });
    return results;
  }
};

struct PutColumns : Function<PutColumns> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& columns, int64_t first) {
    ctx->saved_data["first"] = first;
    ctx->saved_data["count"] = columns.size(2);
    // Of a version of its own: what the queries, on x's memory too, were used for does not read these columns.
    at::Tensor y = x.variable_data();
    y.narrow(2, first, columns.size(2)).copy_(columns);
    return y;
  }
  // x's gradient at the replaced columns is not 0 as it should be: who reads it there, as balancing does, must pass over them.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {grads[0], grads[0].narrow(2, ctx->saved_data["first"].toInt(), ctx->saved_data["count"].toInt()), {}};
  }
};

}  // namespace

at::Tensor attend(const at::Tensor& values, const at::Tensor& query, const at::Tensor& offsets, const std::vector<at::Tensor>& weights,
                  const std::vector<at::Tensor>& biases, bool softmax) {
  const int64_t groups = query.size(0), dim = query.size(2);
  EKTM_CHECK(values.is_contiguous() && values.size(1) == groups * dim && offsets.numel() == query.size(1) + 1);
  EKTM_CHECK(!weights.empty() && weights.front().size(1) == 4 * dim && weights.back().size(2) == 1 && biases.size() + 1 >= weights.size());
  std::vector<at::Tensor> parameters;
  for (const auto* list : {&weights, &biases})
    for (const at::Tensor& tensor : *list) {
      EKTM_CHECK(tensor.is_contiguous() && tensor.size(0) == groups);
      parameters.push_back(tensor);
    }
  return Attend::apply(values, query, offsets, softmax, static_cast<int64_t>(weights.size()), at::TensorList(parameters));
}

at::Tensor put_columns(const at::Tensor& x, const at::Tensor& columns, int64_t first) { return PutColumns::apply(x, columns, first); }

}  // namespace ops

TargetAttention::TargetAttention(ParameterStore& store, const std::string& name, int64_t groups, int64_t dim, const AttentionConfig& config)
    : softmax_(config.normalize == "softmax") {
  int64_t in = 4 * dim;
  for (size_t l = 0; l < config.hidden.size(); ++l) {
    const std::string layer = name + "." + std::to_string(l);
    weights_.push_back(store.add(layer + ".weight", {groups, in, config.hidden[l]}, Init::Xavier));
    biases_.push_back(store.add(layer + ".bias", {groups, 1, config.hidden[l]}, Init::Zero));
    in = config.hidden[l];
  }
  weights_.push_back(store.add(name + ".score.weight", {groups, in, 1}, Init::Xavier));
  // Embeddings start small, and the network's answer with them: weights near 0 would let next to no gradient through to the embeddings.
  // Softmax does not see a bias.
  if (!softmax_) biases_.push_back(store.add(name + ".score.bias", {groups, 1, 1}, Init::One));
}

at::Tensor TargetAttention::forward(const at::Tensor& values, const at::Tensor& query, const at::Tensor& offsets) const {
  return ops::attend(values, query, offsets, weights_, biases_, softmax_);
}

}  // namespace ektm
