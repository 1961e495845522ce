#pragma once
// The transmitters' formula and its gradient for a block of rows, of which nn/transfer.cpp makes an operation.
#include <utility>
#include <vector>

#include "nn/gemm.h"
#include "nn/op_support.h"

namespace ektm::ops {

struct TransmitShape {
  int64_t count, d, h;  // T, width of features, hidden layer
  // What F goes through first lies side by side, so that one product makes it: hidden layer [d,h] and F's part of the gate [d,d].
  int64_t both() const { return h + d; }
};

// Where a task's sums of gradients begin, among `size` numbers.
struct TransmitSums {
  int64_t packet, own, out, hidden_bias, out_bias, gate_bias, head, size;  // [d,h+d], [d,d], [h,d], [h], [d], [d], [d]
  explicit TransmitSums(const TransmitShape& s) {
    size = 0;
    auto place = [&](int64_t count) { return std::exchange(size, size + count); };
    packet = place(s.d * s.both()), own = place(s.d * s.d), out = place(s.h * s.d);
    hidden_bias = place(s.h), out_bias = place(s.d), gate_bias = place(s.d), head = place(s.d);
  }
};

template <class T>
struct TransmitWeights {  // as in ops::Transmitter; biases for forward() only
  const T *hidden, *out, *gate, *head, *hidden_bias = nullptr, *out_bias = nullptr, *gate_bias = nullptr;
};

// For all blocks of a pass, shared by its threads. T: float or double.
template <class T>
class TransmitBlocks {
 public:
  // `backward`: for calls of backward() only, else of forward().
  TransmitBlocks(const TransmitShape& shape, const TransmitWeights<T>& weights, bool backward) : s_(shape), w_(weights) {
    both_.resize(static_cast<size_t>(s_.count * s_.d * s_.both()));
    auto factor = [&](int64_t from, int64_t to, const T* map) { return backward ? RightFactor<T>(true, from, to, map, to) : RightFactor<T>(false, to, from, map, to); };
    for (int64_t e = 0; e < s_.count; ++e) {
      T* packet = both_.data() + e * s_.d * s_.both();
      for (int64_t i = 0; i < s_.d; ++i) {
        std::copy_n(w_.hidden + (e * s_.d + i) * s_.h, s_.h, packet + i * s_.both());
        std::copy_n(w_.gate + (e * 2 * s_.d + s_.d + i) * s_.d, s_.d, packet + i * s_.both() + s_.h);
      }
      packet_.push_back(factor(s_.d, s_.both(), packet));
      own_.push_back(factor(s_.d, s_.d, w_.gate + e * 2 * s_.d * s_.d));
      out_.push_back(factor(s_.h, s_.d, w_.out + e * s_.h * s_.d));
    }
  }

  // Task e, `size` rows, which dropout counts from first_row on. own, packet [size,d]. Into inner [size,h+d]: hidden layer | sigmoid of the
  // gate, message [size,d], y [size]. Rows lie row_stride apart.
  void forward(int64_t e, int64_t size, Rows<const T> own, Rows<const T> packet, int64_t first_row, const kernels::Dropout& dropout, Rows<T> inner,
               Rows<T> message, T* y) const {
    packet_[e].multiply(size, packet.data, packet.row_stride, T(0), inner.data, inner.row_stride);
    own_[e].multiply(size, own.data, own.row_stride, T(1), inner.data + s_.h, inner.row_stride);
    kernels::finish_linear(size, s_.h, inner.row_stride, first_row, e * s_.h, w_.hidden_bias + e * s_.h, true, dropout, inner.data);
    out_[e].multiply(size, inner.data, inner.row_stride, T(0), message.data, message.row_stride);
    kernels::finish_linear(size, s_.d, inner.row_stride, 0, 0, w_.gate_bias + e * s_.d, false, {}, inner.data + s_.h);
    kernels::finish_linear(size, s_.d, message.row_stride, 0, 0, w_.out_bias + e * s_.d, false, {}, message.data);
    kernels::gated_dots(size, s_.d, inner.data + s_.h, inner.row_stride, message.data, message.row_stride, w_.head + e * s_.d, y);
  }

  // up [size]: the gradient of y. packet_grad = ; own_grad, unless it has no data, and sums (see TransmitSums) +=.
  void backward(int64_t e, int64_t size, Rows<const T> own, Rows<const T> packet, float dropout_scale, Rows<const T> inner, Rows<const T> message,
                const T* up, Rows<T> packet_grad, Rows<T> own_grad, T* sums) const {
    const TransmitSums place(s_);
    const int64_t d = s_.d, h = s_.h, both = s_.both();
    thread_local std::vector<T> room;  // fresh memory would cost more than the work
    if (static_cast<int64_t>(room.size()) < size * (both + d)) room.resize(size * (both + d));
    T *pre = room.data(), *dmessage = pre + size * both;  // before the activations of hidden layer | gate; of the message
    kernels::gated_dots_grad(size, d, inner.data + h, inner.row_stride, message.data, message.row_stride, w_.head + e * d, up, pre + h, both, dmessage, d,
                             sums + place.head);
    kernels::column_sums(size, d, pre + h, both, sums + place.gate_bias);
    kernels::column_sums(size, d, dmessage, d, sums + place.out_bias);
    out_[e].multiply(size, dmessage, d, T(0), pre, both);
    kernels::relu_grad(size, h, inner.data, inner.row_stride, static_cast<T>(dropout_scale), pre, both, sums + place.hidden_bias);
    gemm(true, false, h, d, size, inner.data, inner.row_stride, dmessage, d, T(1), sums + place.out, d);
    gemm(true, false, d, both, size, packet.data, packet.row_stride, pre, both, T(1), sums + place.packet, both);
    gemm(true, false, d, d, size, own.data, own.row_stride, pre + h, both, T(1), sums + place.own, d);
    packet_[e].multiply(size, pre, both, T(0), packet_grad.data, packet_grad.row_stride);
    if (own_grad.data) own_[e].multiply(size, pre + h, both, T(1), own_grad.data, own_grad.row_stride);
  }

 private:
  TransmitShape s_;
  TransmitWeights<T> w_;
  std::vector<T> both_;                             // T times [d,h+d]
  std::vector<RightFactor<T>> packet_, own_, out_;  // of the products, or of those with the transposes, which the inputs' gradients take
};

}  // namespace ektm::ops
