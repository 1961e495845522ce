#include "nn/ops.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <mutex>

#include "base/error.h"
#include "nn/gemm.h"
#include "nn/op_support.h"

namespace ektm::ops {

kernels::Dropout draw_dropout(double rate, const Context& context) {
  kernels::Dropout dropout;
  if (!context.training || rate == 0) return dropout;
  auto* generator = at::check_generator<at::CPUGeneratorImpl>(context.generator);
  std::lock_guard lock(generator->mutex_);
  dropout.seed = static_cast<uint32_t>(generator->random());
  dropout.drop_below = static_cast<uint32_t>(std::lround(rate * 0x1p24));
  dropout.scale = static_cast<float>(0x1p24 / (0x1p24 - dropout.drop_below));
  return dropout;
}

namespace {

// The gradient before bias and activation as [B,E*out] without gaps, made block by block; where there is no activation and `grad`
// lies like that already, it is the same.
class LinearGrad {
 public:
  LinearGrad(const at::Tensor& grad_in, int64_t count, int64_t rows, int64_t out, const at::Tensor& y)
      : grad_(as_stack(grad_in)), y_(y), count_(count), out_(out) {
    const bool same = !y.defined() && grad_.stride(1) == count * out && (count == 1 || grad_.stride(0) == out);
    if (!same) room_ = at::empty({rows, count * out}, grad_.options());
  }
  template <class T>
  const T* data() const {
    return (room_.defined() ? room_ : grad_).const_data_ptr<T>();
  }
  // Rows [first, first + size); bias_sums [count*out] += their sum, unless null. `scale`: of dropout, for y that is relu's.
  template <class T>
  void make(int64_t first, int64_t size, float scale, T* bias_sums) const {
    const int64_t n = count_ * out_;
    Rows<const T> from = const_rows<T>(grad_);
    from.data += first * from.row_stride;
    if (room_.defined())
      kernels::finish_linear_grad(size, count_, out_, y_.defined(), scale, y_.defined() ? y_.const_data_ptr<T>() + first * n : nullptr, from,
                                  room_.data_ptr<T>() + first * n, bias_sums);
    else if (bias_sums)
      kernels::column_sums(size, n, from.data, n, bias_sums);
  }

 private:
  at::Tensor grad_, y_, room_;
  int64_t count_, out_;
};

// --- fan_out ----------------------------------------------------------------------------------------------------------

struct FanOut : Function<FanOut> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const at::Tensor& weight, const std::optional<at::Tensor>& bias, bool relu,
                            int64_t seed, int64_t drop_below, double scale) {
    const at::Tensor x = as_stack(x_in);
    const int64_t rows = x.size(0), in = x.size(1), count = weight.size(1), out = weight.size(2), n = count * out;
    at::Tensor y = empty_stack(count, rows, out, x.options());
    const kernels::Dropout dropout{static_cast<uint32_t>(seed), static_cast<uint32_t>(drop_below), static_cast<float>(scale)};
    ProductScope scope("fan_out", 1, rows, n, in);
    EKTM_DISPATCH(x, [&] {
      const scalar_t* from = x.const_data_ptr<scalar_t>();
      const scalar_t* w = weight.const_data_ptr<scalar_t>();
      const scalar_t* b = bias ? bias->const_data_ptr<scalar_t>() : nullptr;
      scalar_t* to = y.data_ptr<scalar_t>();
      const RightFactor<scalar_t> map(false, n, in, w, n);
      const Blocks blocks(rows, n);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block);
        map.multiply(size, from + first * x.stride(0), x.stride(0), scalar_t(0), to + first * n, n);
        kernels::finish_linear(size, n, n, first, 0, b, relu, dropout, to + first * n);
      });
    });
    ctx->save_for_backward({x, weight, relu ? y : at::Tensor()});
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["scale"] = scale;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &y = saved[2];
    const bool has_bias = ctx->saved_data["bias"].toBool();
    const float scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    const int64_t rows = x.size(0), in = x.size(1), count = weight.size(1), out = weight.size(2), n = count * out;
    const bool want_x = ctx->needs_input_grad(0), want_weight = ctx->needs_input_grad(1);
    const LinearGrad g(grads[0], count, rows, out, y);
    at::Tensor dx, dw, db;
    if (want_x) dx = at::empty({rows, in}, x.options());
    if (want_weight) dw = at::empty_like(weight);
    if (has_bias) db = at::empty({count, out}, x.options());
    EKTM_DISPATCH(x, [&] {
      const scalar_t* pre = g.data<scalar_t>();
      const Blocks blocks(rows, n);
      Partial<scalar_t> bias_sums(has_bias ? blocks.count : 0, n);
      {
        ProductScope scope("fan_out_input_grad", 1, rows, in, n);
        std::optional<RightFactor<scalar_t>> map;
        if (want_x) map.emplace(true, in, n, weight.const_data_ptr<scalar_t>(), n);
        blocks.parallel([&](int64_t block) {
          const int64_t first = blocks.begin(block), size = blocks.size(block);
          g.make<scalar_t>(first, size, scale, has_bias ? bias_sums.at(block) : nullptr);
          if (want_x) map->multiply(size, pre + first * n, n, scalar_t(0), dx.data_ptr<scalar_t>() + first * in, in);
        });
      }
      if (has_bias) bias_sums.add_up(db.data_ptr<scalar_t>());
      if (want_weight) {
        ProductScope scope("fan_out_weight_grad", 1, in, n, rows);
        const scalar_t* from = x.const_data_ptr<scalar_t>();
        scalar_t* to = dw.data_ptr<scalar_t>();
        // A share of the columns for each thread, in whole lines of the cache.
        const int64_t slice = (n + 16 * threads() - 1) / (16 * threads()) * 16;
        parallel_for(0, threads(), 1, [&](int64_t first, int64_t last) {
          for (int64_t j = first * slice; j < std::min(n, last * slice); j += slice)
            gemm(true, false, in, std::min(slice, n - j), rows, from, x.stride(0), pre + j, n, scalar_t(0), to + j, n);
        });
      }
    });
    return {dx, dw, db, {}, {}, {}, {}};
  }
};

// --- stacked ----------------------------------------------------------------------------------------------------------

// The maps of a stack of [in+in2,out] weights: those of x, or their transposes, and likewise those of x2.
template <class T>
struct StackedMaps {
  std::vector<RightFactor<T>> first, second;
  StackedMaps(bool transposed, int64_t count, int64_t in, int64_t in2, int64_t out, const T* weight) {
    auto map = [&](int64_t k, const T* from) { return transposed ? RightFactor<T>(true, k, out, from, out) : RightFactor<T>(false, out, k, from, out); };
    for (int64_t e = 0; e < count; ++e, weight += (in + in2) * out) {
      first.push_back(map(in, weight));
      if (in2 > 0) second.push_back(map(in2, weight + in * out));
    }
  }
};

struct Stacked : Function<Stacked> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const std::optional<at::Tensor>& x2_in, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, bool relu, int64_t seed, int64_t drop_below, double scale) {
    const at::Tensor x = as_stack(x_in), x2 = x2_in ? as_stack(*x2_in) : at::Tensor();
    const int64_t count = weight.size(0), rows = x.size(1), in = x.size(2), in2 = x2_in ? x2.size(2) : 0, out = weight.size(2), n = count * out;
    const int64_t repeat = count / x.size(0);
    EKTM_CHECK(repeat * x.size(0) == count && weight.size(1) == in + in2);
    at::Tensor y = empty_stack(count, rows, out, x.options());
    const kernels::Dropout dropout{static_cast<uint32_t>(seed), static_cast<uint32_t>(drop_below), static_cast<float>(scale)};
    ProductScope scope("stacked", count, rows, out, in + in2);
    EKTM_DISPATCH(x, [&] {
      const scalar_t* b = bias ? bias->const_data_ptr<scalar_t>() : nullptr;
      scalar_t* to = y.data_ptr<scalar_t>();
      const Rows<const scalar_t> from = const_rows<scalar_t>(x), from2 = x2_in ? const_rows<scalar_t>(x2) : from;
      const StackedMaps<scalar_t> maps(false, count, in, in2, out, weight.const_data_ptr<scalar_t>());
      const Blocks blocks(rows, n);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block);
        for (int64_t e = 0; e < count; ++e) {
          scalar_t* result = to + first * n + e * out;
          maps.first[e].multiply(size, from.at(first, e / repeat), from.row_stride, scalar_t(0), result, n);
          if (in2 > 0) maps.second[e].multiply(size, from2.at(first, e), from2.row_stride, scalar_t(1), result, n);
        }
        kernels::finish_linear(size, n, n, first, 0, b, relu, dropout, to + first * n);
      });
    });
    ctx->save_for_backward({x, x2, weight, relu ? y : at::Tensor()});
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["scale"] = scale;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &x2 = saved[1], &weight = saved[2], &y = saved[3];
    const bool has_bias = ctx->saved_data["bias"].toBool();
    const float scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    const int64_t count = weight.size(0), rows = x.size(1), in = x.size(2), in2 = x2.defined() ? x2.size(2) : 0, out = weight.size(2), n = count * out;
    const int64_t inputs = x.size(0), repeat = count / inputs;
    const bool want_x = ctx->needs_input_grad(0), want_x2 = x2.defined() && ctx->needs_input_grad(1);
    const LinearGrad g(grads[0], count, rows, out, y);
    at::Tensor dx, dx2, dw = at::empty_like(weight), db;
    // A gradient takes the layout of its input, so that whatever made the input finds it as it left it.
    if (want_x) dx = x.stride(1) >= x.stride(0) ? empty_stack(inputs, rows, in, x.options()) : at::empty({inputs, rows, in}, x.options());
    if (want_x2) dx2 = empty_stack(count, rows, in2, x.options());
    if (has_bias) db = at::empty({count, 1, out}, x.options());
    EKTM_DISPATCH(x, [&] {
      const scalar_t* pre = g.data<scalar_t>();
      const Blocks blocks(rows, n);
      Partial<scalar_t> bias_sums(has_bias ? blocks.count : 0, n);
      {
        ProductScope scope("stacked_input_grad", count, rows, in + in2, out);
        const StackedMaps<scalar_t> maps(true, count, in, in2, out, weight.const_data_ptr<scalar_t>());
        blocks.parallel([&](int64_t block) {
          const int64_t first = blocks.begin(block), size = blocks.size(block);
          g.make<scalar_t>(first, size, scale, has_bias ? bias_sums.at(block) : nullptr);
          for (int64_t e = 0; e < count; ++e) {
            const scalar_t* up = pre + first * n + e * out;
            if (want_x) {
              const Rows<scalar_t> to = mutable_rows<scalar_t>(dx);
              maps.first[e].multiply(size, up, n, scalar_t(e % repeat ? 1 : 0), to.at(first, e / repeat), to.row_stride);
            }
            if (want_x2) {
              const Rows<scalar_t> to = mutable_rows<scalar_t>(dx2);
              maps.second[e].multiply(size, up, n, scalar_t(0), to.at(first, e), to.row_stride);
            }
          }
        });
      }
      if (has_bias) bias_sums.add_up(db.data_ptr<scalar_t>());
      ProductScope scope("stacked_weight_grad", count, in + in2, out, rows);
      const Rows<const scalar_t> from = const_rows<scalar_t>(x), from2 = x2.defined() ? const_rows<scalar_t>(x2) : from;
      scalar_t* to = dw.data_ptr<scalar_t>();
      // As many pieces as maps, or more if there are fewer maps than threads.
      const int64_t slices = (threads() + count - 1) / count;
      parallel_for(0, count * slices, 1, [&](int64_t first, int64_t last) {
        for (int64_t piece = first; piece < last; ++piece) {
          const int64_t e = piece / slices;
          auto slice = [&](const Rows<const scalar_t>& input, int64_t owner, int64_t size, scalar_t* result) {
            const int64_t begin = size * (piece % slices) / slices, end = size * (piece % slices + 1) / slices;
            gemm(true, false, end - begin, out, rows, input.at(0, owner) + begin, input.row_stride, pre + e * out, n, scalar_t(0), result + begin * out,
                 out);
          };
          slice(from, e / repeat, in, to + e * (in + in2) * out);
          if (in2 > 0) slice(from2, e, in2, to + (e * (in + in2) + in) * out);
        }
      });
    });
    return {dx, dx2, dw, db, {}, {}, {}, {}};
  }
};

// --- softmax_mix ------------------------------------------------------------------------------------------------------

// The stacks as one list of [B,H] pieces.
template <class T>
struct Pieces {
  std::vector<T*> data;
  std::vector<int64_t> strides;
  // `first`: the row that the pointers stand at.
  Pieces at(int64_t first) const {
    Pieces moved = *this;
    for (size_t e = 0; e < data.size(); ++e) moved.data[e] += first * strides[e];
    return moved;
  }
  void add(const at::Tensor& stack) {
    for (int64_t e = 0; e < stack.size(0); ++e) {
      if constexpr (std::is_const_v<T>)
        data.push_back(stack.const_data_ptr<std::remove_const_t<T>>() + e * stack.stride(0));
      else
        data.push_back(stack.data_ptr<T>() + e * stack.stride(0));
      strides.push_back(stack.stride(1));
    }
  }
};

struct SoftmaxMix : Function<SoftmaxMix> {
  // reached: empty, or a byte for each of index.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits, const at::Tensor& index, const at::Tensor& reached,
                            at::TensorList inputs_in) {
    std::vector<at::Tensor> inputs;
    for (const at::Tensor& input : inputs_in) inputs.push_back(as_stack(input));
    const int64_t count = logits.size(0), rows = logits.size(1), n = logits.size(2), width = inputs[0].size(2);
    at::Tensor gates = empty_stack(count, rows, n, logits.options()), y = empty_stack(count, rows, width, logits.options());
    gates.copy_(logits);
    RECORD_USER_SCOPE("softmax_mix");
    EKTM_DISPATCH(logits, [&] {
      Pieces<const scalar_t> pieces;
      for (const at::Tensor& input : inputs) pieces.add(input);
      const int32_t* chosen = index.const_data_ptr<int32_t>();
      const Blocks blocks(rows, count * width);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block);
        scalar_t* g = gates.data_ptr<scalar_t>() + first * count * n;
        kernels::softmax(size * count, n, g);
        const auto here = pieces.at(first);
        kernels::mix(size, count, n, width, g, here.data.data(), here.strides.data(), chosen, nullptr, 0, scalar_t(1),
                     y.data_ptr<scalar_t>() + first * count * width);
      });
    });
    std::vector<at::Tensor> saved{gates, index, reached};
    saved.insert(saved.end(), inputs.begin(), inputs.end());
    ctx->save_for_backward(saved);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &gates = saved[0], &index = saved[1], &reached = saved[2], grad = as_stack(grads[0]);
    const uint8_t* mask = reached.numel() > 0 ? reached.const_data_ptr<uint8_t>() : nullptr;
    const size_t first_input = 3;
    const int64_t count = gates.size(0), rows = gates.size(1), n = gates.size(2), width = grad.size(2);
    at::Tensor dlogits = at::empty_like(gates);
    variable_list results{dlogits, {}, {}};
    for (size_t i = first_input; i < saved.size(); ++i) results.push_back(empty_stack(saved[i].size(0), rows, width, gates.options()));
    RECORD_USER_SCOPE("softmax_mix_grad");
    EKTM_DISPATCH(gates, [&] {
      Pieces<const scalar_t> pieces;
      Pieces<scalar_t> to;
      for (size_t i = first_input; i < saved.size(); ++i) pieces.add(saved[i]), to.add(results[i]);
      const Blocks blocks(rows, count * width);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block);
        for (size_t i = first_input; i < saved.size(); ++i)
          std::fill_n(results[i].template data_ptr<scalar_t>() + first * results[i].stride(1), size * results[i].stride(1), scalar_t(0));
        Rows<const scalar_t> up = const_rows<scalar_t>(grad);
        up.data += first * up.row_stride;
        const auto from = pieces.at(first);
        const auto into = to.at(first);
        scalar_t* d = dlogits.data_ptr<scalar_t>() + first * count * n;
        const scalar_t* g = gates.const_data_ptr<scalar_t>() + first * count * n;
        kernels::mix_grad(size, count, n, width, g, from.data.data(), from.strides.data(), index.const_data_ptr<int32_t>(), up, scalar_t(1), mask, d,
                          into.data.data(), into.strides.data());
        kernels::softmax_grad(size * count, n, g, d);
      });
    });
    return results;
  }
};

// --- heads ------------------------------------------------------------------------------------------------------------

struct Heads : Function<Heads> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    const at::Tensor x = as_stack(x_in);
    const int64_t count = x.size(0), rows = x.size(1), n = x.size(2);
    at::Tensor y = at::empty({count, rows}, x.options());
    RECORD_USER_SCOPE("heads");
    EKTM_DISPATCH(x, [&] {
      const Rows<const scalar_t> from = const_rows<scalar_t>(x);
      const Blocks blocks(rows, count * n);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block);
        for (int64_t e = 0; e < count; ++e)
          kernels::dots(blocks.size(block), n, from.at(first, e), from.row_stride, weight.const_data_ptr<scalar_t>() + e * n,
                        bias ? bias->const_data_ptr<scalar_t>()[e] : scalar_t(0), y.data_ptr<scalar_t>() + e * rows + first);
      });
    });
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], grad = grads[0].contiguous();
    const int64_t count = x.size(0), rows = x.size(1), n = x.size(2);
    at::Tensor dx = empty_stack(count, rows, n, x.options()), dw = at::empty_like(weight), db = at::empty({count, 1, 1}, x.options());
    RECORD_USER_SCOPE("heads_grad");
    EKTM_DISPATCH(x, [&] {
      const Rows<const scalar_t> from = const_rows<scalar_t>(x);
      const Rows<scalar_t> to = mutable_rows<scalar_t>(dx);
      const Blocks blocks(rows, count * n);
      Partial<scalar_t> weights(blocks.count, count * n), biases(blocks.count, count);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block);
        for (int64_t e = 0; e < count; ++e)
          kernels::dots_grad(blocks.size(block), n, from.at(first, e), from.row_stride, weight.const_data_ptr<scalar_t>() + e * n,
                             grad.const_data_ptr<scalar_t>() + e * rows + first, to.at(first, e), to.row_stride, weights.at(block) + e * n,
                             biases.at(block) + e);
      });
      weights.add_up(dw.data_ptr<scalar_t>());
      biases.add_up(db.data_ptr<scalar_t>());
    });
    return {dx, dw, ctx->saved_data["bias"].toBool() ? db : at::Tensor()};
  }
};

struct GatedHeads : Function<GatedHeads> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& message_in, const at::Tensor& weight) {
    const at::Tensor message = as_stack(message_in);
    const int64_t count = gate.size(0), rows = gate.size(1), n = gate.size(2);
    at::Tensor y = at::empty({count, rows}, gate.options()), open = empty_stack(count, rows, n, gate.options());
    open.copy_(gate);
    RECORD_USER_SCOPE("gated_heads");
    EKTM_DISPATCH(gate, [&] {
      const Rows<const scalar_t> m = const_rows<scalar_t>(message);
      const Rows<scalar_t> s = mutable_rows<scalar_t>(open);
      const Blocks blocks(rows, count * n);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block);
        for (int64_t e = 0; e < count; ++e)
          kernels::gated_dots(blocks.size(block), n, s.at(first, e), s.row_stride, m.at(first, e), m.row_stride,
                              weight.const_data_ptr<scalar_t>() + e * n, y.data_ptr<scalar_t>() + e * rows + first);
      });
    });
    ctx->save_for_backward({open, message, weight});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &open = saved[0], &message = saved[1], &weight = saved[2], grad = grads[0].contiguous();
    const int64_t count = open.size(0), rows = open.size(1), n = open.size(2);
    at::Tensor dgate = empty_stack(count, rows, n, open.options()), dmessage = empty_stack(count, rows, n, open.options());
    at::Tensor dw = at::empty_like(weight);
    RECORD_USER_SCOPE("gated_heads_grad");
    EKTM_DISPATCH(open, [&] {
      const Rows<const scalar_t> s = const_rows<scalar_t>(open), m = const_rows<scalar_t>(message);
      const Rows<scalar_t> to_gate = mutable_rows<scalar_t>(dgate), to_message = mutable_rows<scalar_t>(dmessage);
      const Blocks blocks(rows, count * n);
      Partial<scalar_t> weights(blocks.count, count * n);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block);
        for (int64_t e = 0; e < count; ++e)
          kernels::gated_dots_grad(blocks.size(block), n, s.at(first, e), s.row_stride, m.at(first, e), m.row_stride,
                                   weight.const_data_ptr<scalar_t>() + e * n, grad.const_data_ptr<scalar_t>() + e * rows + first,
                                   to_gate.at(first, e), to_gate.row_stride, to_message.at(first, e), to_message.row_stride, weights.at(block) + e * n);
      });
      weights.add_up(dw.data_ptr<scalar_t>());
    });
    return {dgate, dmessage, dw};
  }
};

// --- dropout ----------------------------------------------------------------------------------------------------------

// x as rows of its last dimension in memory order: [rows,n] contiguous, or a copy of it.
at::Tensor dense(const at::Tensor& x) { return x.is_non_overlapping_and_dense() ? x : x.contiguous(); }

at::Tensor drop_dense(const at::Tensor& x_in, const kernels::Dropout& dropout) {
  const at::Tensor x = dense(x_in);
  at::Tensor y = at::empty_like(x);
  const int64_t n = x.size(x.dim() - 1), rows = x.numel() / n;
  EKTM_DISPATCH(x, [&] {
    const Blocks blocks(rows, n);
    blocks.parallel([&](int64_t block) {
      const int64_t first = blocks.begin(block);
      kernels::drop(blocks.size(block), n, first, dropout, x.const_data_ptr<scalar_t>() + first * n, y.data_ptr<scalar_t>() + first * n);
    });
  });
  return y;
}

struct Drop : Function<Drop> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, int64_t seed, int64_t drop_below, double scale) {
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["drop_below"] = drop_below;
    ctx->saved_data["scale"] = scale;
    at::Tensor y = drop_dense(x, {static_cast<uint32_t>(seed), static_cast<uint32_t>(drop_below), static_cast<float>(scale)});
    ctx->saved_data["strides"] = y.strides().vec();
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    // The mask goes by the place in memory, so the gradient must lie as the result lay.
    const auto strides = ctx->saved_data["strides"].toIntVector();
    at::Tensor grad = grads[0];
    if (grad.strides() != at::IntArrayRef(strides)) {
      grad = at::empty_strided(grads[0].sizes(), strides, grads[0].options());
      grad.copy_(grads[0]);
    }
    return {drop_dense(grad, {static_cast<uint32_t>(ctx->saved_data["seed"].toInt()), static_cast<uint32_t>(ctx->saved_data["drop_below"].toInt()),
                              static_cast<float>(ctx->saved_data["scale"].toDouble())}),
            {}, {}, {}};
  }
};

}  // namespace

at::Tensor fan_out(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool relu, double dropout, Context& context) {
  const kernels::Dropout drop = draw_dropout(dropout, context);
  EKTM_CHECK(relu || drop.drop_below == 0);
  return FanOut::apply(x, weight, optional(bias), relu, static_cast<int64_t>(drop.seed), static_cast<int64_t>(drop.drop_below),
                       static_cast<double>(drop.scale));
}

at::Tensor stacked(const at::Tensor& x, const at::Tensor& x2, const at::Tensor& weight, const at::Tensor& bias, bool relu, double dropout,
                   Context& context) {
  const kernels::Dropout drop = draw_dropout(dropout, context);
  EKTM_CHECK(relu || drop.drop_below == 0);
  return Stacked::apply(x, optional(x2), weight, optional(bias), relu, static_cast<int64_t>(drop.seed), static_cast<int64_t>(drop.drop_below),
                        static_cast<double>(drop.scale));
}

at::Tensor softmax_mix(const at::Tensor& logits, const std::vector<at::Tensor>& inputs, const std::vector<int32_t>& index,
                       const std::vector<uint8_t>& reached) {
  EKTM_CHECK(static_cast<int64_t>(index.size()) == logits.size(0) * logits.size(2));
  EKTM_CHECK(reached.empty() || reached.size() == index.size());
  return SoftmaxMix::apply(logits, at::tensor(index, at::kInt), at::tensor(reached, at::kByte), at::TensorList(inputs));
}

at::Tensor heads(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) { return Heads::apply(x, weight, optional(bias)); }

at::Tensor gated_heads(const at::Tensor& gate, const at::Tensor& message, const at::Tensor& weight) { return GatedHeads::apply(gate, message, weight); }

at::Tensor dropout(const at::Tensor& x, double rate, Context& context) {
  const kernels::Dropout drop = draw_dropout(rate, context);
  if (drop.drop_below == 0) return x;
  return Drop::apply(x, static_cast<int64_t>(drop.seed), static_cast<int64_t>(drop.drop_below), static_cast<double>(drop.scale));
}

}  // namespace ektm::ops
