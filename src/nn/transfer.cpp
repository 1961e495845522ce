#include "nn/transfer.h"

#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "nn/op_support.h"
#include "nn/route_block.h"
#include "nn/transmit_block.h"

namespace ektm::ops {
namespace {

// Few enough rows that what a block makes stays in the second cache until it is used.
constexpr int64_t kRows = 256;

template <class T>
const T* data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<T>() : nullptr;
}

template <class T>
Rows<T> at_rows(const Rows<T>& rows, int64_t first, int64_t e) {
  return {rows.data ? rows.at(first, e) : nullptr, rows.row_stride, rows.stride};
}

// One operation: the router, and the transmitters if there are any.
struct Transfer : Function<Transfer> {
  enum Output { kFeatures, kSimilarity, kPacket, kPacketAgain, kOwn, kLogits = kPacketAgain };  // with transmitters the last is their logits

  static variable_list forward(AutogradContext* ctx, const at::Tensor& features_in, const std::optional<at::Tensor>& query_in,
                               const std::optional<at::Tensor>& key_in, const std::optional<at::Tensor>& hidden_weight,
                               const std::optional<at::Tensor>& hidden_bias, const std::optional<at::Tensor>& out_weight,
                               const std::optional<at::Tensor>& out_bias, const std::optional<at::Tensor>& gate_weight,
                               const std::optional<at::Tensor>& gate_bias, const std::optional<at::Tensor>& head, const Router& router, int64_t seed,
                               int64_t drop_below, double scale, bool keep) {
    const at::Tensor features = as_stack(features_in), query = optional(query_in), key = optional(key_in);
    const bool transmits = head.has_value();
    const int64_t rows = features.size(1), count = static_cast<int64_t>(router.tasks.size()), d = features.size(2);
    const RouteShape shape{count, d, key.defined() ? key.size(1) : 0, router};
    const TransmitShape transmit{count, d, transmits ? out_weight->size(1) : 0};
    const kernels::Dropout dropout{static_cast<uint32_t>(seed), static_cast<uint32_t>(drop_below), static_cast<float>(scale)};
    const auto options = features.options();
    at::Tensor packets = empty_stack(count, rows, d, options), s = at::empty({rows, count, count}, options);
    at::Tensor projected = at::empty({rows, count, shape.projected_width()}, options), inner, message, y;
    if (transmits) y = at::empty({count, rows}, options);
    // Task by task: nobody else reads them.
    if (transmits && keep) inner = at::empty({count, rows, transmit.both()}, options), message = at::empty({count, rows, d}, options);
    ProductScope scope(transmits ? "transfer" : "route", products(shape, transmit, rows));
    EKTM_DISPATCH(features, [&] {
      const Rows<const scalar_t> f = const_rows<scalar_t>(features), packet = const_rows<scalar_t>(packets);
      const RouteBlocks<scalar_t> routes(shape, f, data<scalar_t>(query), data<scalar_t>(key), data<scalar_t>(router.fixed));
      std::optional<TransmitBlocks<scalar_t>> transmitters;
      if (transmits)
        transmitters.emplace(transmit,
                             TransmitWeights<scalar_t>{data<scalar_t>(*hidden_weight), data<scalar_t>(*out_weight), data<scalar_t>(*gate_weight),
                                                       data<scalar_t>(*head), data<scalar_t>(*hidden_bias), data<scalar_t>(*out_bias), data<scalar_t>(*gate_bias)},
                             false);
      const Blocks blocks(rows, count * (d + transmit.both()), kRows);
      blocks.parallel([&](int64_t block) {
        const int64_t first = blocks.begin(block), size = blocks.size(block), place = first * count;
        routes.forward(first, size, s.data_ptr<scalar_t>() + place * count, projected.data_ptr<scalar_t>() + place * shape.projected_width(),
                       packets.data_ptr<scalar_t>() + place * d);
        if (!transmitters) return;
        thread_local std::vector<scalar_t> room;
        if (!keep && static_cast<int64_t>(room.size()) < size * (transmit.both() + d)) room.resize(size * (transmit.both() + d));
        for (int64_t e = 0; e < count; ++e)
          transmitters->forward(e, size, at_rows(f, first, router.tasks[e]), at_rows(packet, first, e), first, dropout,
                                keep ? at_rows(mutable_rows<scalar_t>(inner), first, e) : Rows<scalar_t>{room.data(), transmit.both(), 0},
                                keep ? at_rows(mutable_rows<scalar_t>(message), first, e) : Rows<scalar_t>{room.data() + size * transmit.both(), d, 0},
                                y.data_ptr<scalar_t>() + e * rows + first);
      });
    });
    if (keep)
      ctx->save_for_backward({features, query, key, s, projected, packets, optional(hidden_weight), optional(out_weight), optional(gate_weight),
                              optional(head), inner, message});
    ctx->saved_data["router"] =
        std::vector<int64_t>{static_cast<int64_t>(router.similarity), static_cast<int64_t>(router.normalize), router.to_sources, router.to_own};
    ctx->saved_data["parts"] = router.parts;
    ctx->saved_data["roots"] = router.roots;
    ctx->saved_data["tasks"] = router.tasks;
    ctx->saved_data["scale"] = scale;
    ctx->set_materialize_grads(false);  // of outputs that nobody uses
    if (!transmits) {
      ctx->mark_non_differentiable({s});
      return {features_in.view_as(features_in), s, packets, packets.view_as(packets), features.index_select(0, at::tensor(router.tasks))};
    }
    ctx->mark_non_differentiable({s, packets});
    return {features_in.view_as(features_in), s, packets, y};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &features = saved[0], &query = saved[1], &key = saved[2], &s = saved[3], &projected = saved[4], &packets = saved[5],
                     &hidden_weight = saved[6], &out_weight = saved[7], &gate_weight = saved[8], &head = saved[9], &inner = saved[10], &message = saved[11];
    const auto keys = ctx->saved_data["router"].toIntVector();
    const Router router{static_cast<Router::Similarity>(keys[0]), static_cast<Router::Normalize>(keys[1]), keys[2] != 0, keys[3] != 0,
                        ctx->saved_data["parts"].toDouble(), ctx->saved_data["roots"].toIntVector(), ctx->saved_data["tasks"].toIntVector(), {}, {}, {}};
    const float scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    const bool transmits = head.defined();
    const int64_t all = features.size(0), rows = features.size(1), count = static_cast<int64_t>(router.tasks.size()), d = features.size(2);
    const RouteShape shape{count, d, key.defined() ? key.size(1) : 0, router};
    const TransmitShape transmit{count, d, transmits ? out_weight.size(1) : 0};
    const TransmitSums sums(transmit);
    auto given = [&](size_t i) { return i < grads.size() && grads[i].defined() ? as_stack(grads[i]) : at::Tensor(); };
    const at::Tensor features_grad = given(kFeatures);
    at::Tensor own_grad, logit_grad;
    std::vector<at::Tensor> packet_grads;
    if (!transmits) {
      own_grad = given(kOwn);
      for (size_t i : {kPacket, kPacketAgain})
        if (given(i).defined()) packet_grads.push_back(given(i));
    }
    if (transmits) logit_grad = grads[kLogits].defined() ? grads[kLogits].contiguous() : at::zeros({count, rows}, features.options());
    at::Tensor df = empty_stack(all, rows, d, features.options()), dq, dk, dhidden, dhidden_bias, dout, dout_bias, dgate, dgate_bias, dhead;
    if (shape.dot()) dq = at::empty_like(query), dk = at::empty_like(key);
    if (transmits) {
      auto bias = [&](int64_t n) { return at::empty({count, 1, n}, features.options()); };
      dhidden = at::empty_like(hidden_weight), dout = at::empty_like(out_weight), dgate = at::empty_like(gate_weight), dhead = at::empty_like(head);
      dhidden_bias = bias(transmit.h), dout_bias = bias(d), dgate_bias = bias(d);
    }
    ProductScope scope(transmits ? "transfer_grad" : "route_grad", gradient_products(shape, transmit, rows));
    EKTM_DISPATCH(features, [&] {
      const Rows<const scalar_t> f = const_rows<scalar_t>(features), packet = const_rows<scalar_t>(packets);
      const Rows<scalar_t> into = mutable_rows<scalar_t>(df);
      Rows<const scalar_t> features_from{}, own_from{}, kept{}, messages{};
      if (features_grad.defined()) features_from = const_rows<scalar_t>(features_grad);
      if (own_grad.defined()) own_from = const_rows<scalar_t>(own_grad);
      std::vector<Rows<const scalar_t>> packets_from;
      for (const auto& grad : packet_grads) packets_from.push_back(const_rows<scalar_t>(grad));
      const RouteBlocks<scalar_t> routes(shape, f, data<scalar_t>(query), data<scalar_t>(key), nullptr);
      std::optional<TransmitBlocks<scalar_t>> transmitters;
      if (transmits) {
        kept = const_rows<scalar_t>(inner), messages = const_rows<scalar_t>(message);
        transmitters.emplace(transmit, TransmitWeights<scalar_t>{data<scalar_t>(hidden_weight), data<scalar_t>(out_weight), data<scalar_t>(gate_weight),
                                                                 data<scalar_t>(head)}, true);
      }
      // A share of the rows for each thread, with sums of its own.
      const Blocks shares(rows, count * (d + transmit.both()), rows);
      const int64_t task_sums = transmits ? sums.size : 0;
      Partial<scalar_t> partial(shares.count, count * task_sums + shape.map_size());
      auto block = [&](int64_t first, int64_t size, scalar_t* sum) {
        for (int64_t r = first; r < first + size; ++r) {
          for (int64_t k = 0; k < all; ++k)
            if (features_from.data)
              std::copy_n(features_from.at(r, k), d, into.at(r, k));
            else
              std::fill_n(into.at(r, k), d, scalar_t(0));
          for (int64_t t = 0; own_from.data && t < count; ++t) {
            const scalar_t* from = own_from.at(r, t);
            scalar_t* to = into.at(r, router.tasks[t]);
            for (int64_t i = 0; i < d; ++i) to[i] += from[i];
          }
        }
        thread_local std::vector<scalar_t> room;
        if (static_cast<int64_t>(room.size()) < size * count * d) room.resize(size * count * d);
        const Rows<scalar_t> up{room.data(), count * d, d};  // of the packets
        if (!transmits) {
          std::fill_n(up.data, size * count * d, scalar_t(0));
          for (const auto& from : packets_from)
            for (int64_t i = 0; i < size * count; ++i) {
              const scalar_t* grad = from.at(first + i / count, i % count);
              for (int64_t c = 0; c < d; ++c) up.data[i * d + c] += grad[c];
            }
        }
        for (int64_t e = 0; transmits && e < count; ++e)
          transmitters->backward(e, size, at_rows(f, first, router.tasks[e]), at_rows(packet, first, e), scale, at_rows(kept, first, e),
                                 at_rows(messages, first, e), logit_grad.const_data_ptr<scalar_t>() + e * rows + first, at_rows(up, 0, e),
                                 router.to_own ? at_rows(into, first, router.tasks[e]) : Rows<scalar_t>{}, sum + e * task_sums);
        routes.backward(first, size, s.const_data_ptr<scalar_t>() + first * count * count,
                        projected.const_data_ptr<scalar_t>() + first * count * shape.projected_width(), {up.data, up.row_stride, up.stride}, into,
                        sum + count * task_sums);
      };
      shares.parallel([&](int64_t share) {
        const int64_t end = shares.begin(share) + shares.size(share);
        for (int64_t first = shares.begin(share); first < end; first += kRows) block(first, std::min(kRows, end - first), partial.at(share));
      });
      std::vector<scalar_t> total(static_cast<size_t>(partial.size));
      partial.add_up(total.data());
      // [rows, from | to] apart again.
      auto part = [](const scalar_t* from, int64_t parts, int64_t stride, int64_t size, scalar_t* to) {
        for (int64_t i = 0; i < parts; ++i) std::copy_n(from + i * stride, size, to + i * size);
      };
      for (int64_t e = 0; transmits && e < count; ++e) {
        const scalar_t* sum = total.data() + e * task_sums;
        auto give = [&](const at::Tensor& to, int64_t size, int64_t place) { std::copy_n(sum + place, size, to.data_ptr<scalar_t>() + e * size); };
        give(dout, transmit.h * d, sums.out);
        give(dhidden_bias, transmit.h, sums.hidden_bias), give(dout_bias, d, sums.out_bias), give(dgate_bias, d, sums.gate_bias), give(dhead, d, sums.head);
        part(sum + sums.packet, d, transmit.both(), transmit.h, dhidden.data_ptr<scalar_t>() + e * d * transmit.h);
        scalar_t* gate = dgate.data_ptr<scalar_t>() + e * 2 * d * d;
        std::copy_n(sum + sums.own, d * d, gate);
        part(sum + sums.packet + transmit.h, d, transmit.both(), d, gate + d * d);
      }
      if (shape.dot()) {
        const scalar_t* maps = total.data() + count * task_sums;
        part(maps, d, 2 * shape.key_width, shape.key_width, dk.data_ptr<scalar_t>());
        part(maps + shape.key_width, d, 2 * shape.key_width, shape.key_width, dq.data_ptr<scalar_t>());
      }
    });
    return {df, dq, dk, dhidden, dhidden_bias, dout, dout_bias, dgate, dgate_bias, dhead, {}, {}, {}, {}, {}};
  }

 private:
  using Products = std::vector<ProductScope::Shape>;
  static Products products(const RouteShape& route, const TransmitShape& t, int64_t rows) {
    Products result;
    if (route.dot()) result.push_back({t.count, rows, route.projected_width(), t.d});
    if (t.h > 0) result.insert(result.end(), {{t.count, rows, t.both(), t.d}, {t.count, rows, t.d, t.d}, {t.count, rows, t.d, t.h}});
    return result;
  }
  static Products gradient_products(const RouteShape& route, const TransmitShape& t, int64_t rows) {
    Products result;
    for (const auto& [count, m, n, k] : products(route, t, rows)) {
      result.push_back({count, m, k, n});  // of the input
      result.push_back({count, k, n, m});  // of the weight
    }
    return result;
  }
};

}  // namespace

Routed route(const at::Tensor& features, const Router& router) {
  const std::optional<at::Tensor> none;
  const variable_list results = Transfer::apply(features, optional(router.query), optional(router.key), none, none, none, none, none, none, none, router,
                                                int64_t{0}, int64_t{0}, 1.0, at::GradMode::is_enabled());
  return {results[Transfer::kFeatures], results[Transfer::kOwn], results[Transfer::kPacket], results[Transfer::kPacketAgain], results[Transfer::kSimilarity]};
}

Transferred transfer(const at::Tensor& features, const Router& router, const Transmitter& t, Context& context) {
  EKTM_CHECK(t.gate_weight.size(1) == 2 * features.size(2) && t.out_weight.size(2) == features.size(2));
  const kernels::Dropout drop = draw_dropout(t.dropout, context);
  auto given = [](const at::Tensor& tensor) { return std::optional<at::Tensor>(tensor); };
  const variable_list results = Transfer::apply(
      features, optional(router.query), optional(router.key), given(t.hidden_weight), given(t.hidden_bias), given(t.out_weight), given(t.out_bias),
      given(t.gate_weight), given(t.gate_bias), given(t.head), router, static_cast<int64_t>(drop.seed), static_cast<int64_t>(drop.drop_below),
      static_cast<double>(drop.scale), at::GradMode::is_enabled());
  return {results[Transfer::kFeatures], results[Transfer::kLogits], results[Transfer::kPacket], results[Transfer::kSimilarity]};
}

}  // namespace ektm::ops
