#include "nn/parameters.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/threads.h"

namespace ektm {

at::Tensor ParameterStore::add(const std::string& name, std::vector<int64_t> shape, Init init, int64_t fan_in, int64_t fan_out,
                               int64_t map_dim) {
  EKTM_CHECK(!values_.defined());
  for (const auto& entry : entries_) EKTM_CHECK(entry.name != name);
  auto options = at::TensorOptions().dtype(dtype_);
  at::Tensor tensor = init == Init::One ? at::ones(shape, options) : at::zeros(shape, options);
  if (init == Init::Xavier) {
    EKTM_CHECK(shape.size() >= 2);
    if (fan_in == 0) fan_in = shape[shape.size() - 2];
    if (fan_out == 0) fan_out = shape.back();
    double bound = std::sqrt(6.0 / static_cast<double>(fan_in + fan_out));
    // Drawn in float32 for every dtype, so that a double-precision copy starts from the same values.
    auto generator = at::make_generator<at::CPUGeneratorImpl>(mix64(seed_ ^ hash64(name)));
    tensor = at::empty(shape).uniform_(-bound, bound, generator).to(dtype_);
  }
  tensor.set_requires_grad(true);
  entries_.push_back({name, tensor, true, map_dim != kMapDim ? map_dim : shape.size() == 3 ? 0 : -1});
  return tensor;
}

at::Tensor ParameterStore::add_buffer(const std::string& name, const at::Tensor& value) {
  entries_.push_back({name, value.to(dtype_).contiguous(), false, -1});
  return entries_.back().tensor;
}

int64_t ParameterStore::count() const {
  int64_t total = 0;
  for (const auto& entry : entries_)
    if (entry.trainable) total += entry.tensor.numel();
  return total;
}

void ParameterStore::flatten() {
  EKTM_CHECK(!values_.defined());
  auto options = at::TensorOptions().dtype(dtype_);
  values_ = at::empty({count()}, options);
  grads_ = at::zeros({count()}, options);
  int64_t at_number = 0;
  for (auto& entry : entries_) {
    if (!entry.trainable) continue;
    int64_t size = entry.tensor.numel();
    at::Tensor view = values_.narrow(0, at_number, size).view(entry.tensor.sizes());
    view.copy_(entry.tensor.detach());
    entry.tensor.set_data(view);
    at_number += size;
  }
}

void ParameterStore::zero_grad() {
  for (auto& entry : entries_)
    if (entry.trainable) entry.tensor.mutable_grad() = at::Tensor();
}

void ParameterStore::collect_grads(const at::Tensor& into) const {
  EKTM_CHECK(into.is_contiguous() && into.numel() == values_.numel());
  int64_t at_number = 0;
  for (const auto& entry : entries_) {
    if (!entry.trainable) continue;
    const int64_t size = entry.tensor.numel();
    const at::Tensor& grad = entry.tensor.grad();
    at::Tensor to = into.narrow(0, at_number, size);
    if (!grad.defined()) {
      to.zero_();
    } else if (grad.is_contiguous()) {
      const char* from = static_cast<const char*>(grad.const_data_ptr());
      char* target = static_cast<char*>(to.data_ptr());
      parallel_for(0, static_cast<int64_t>(to.nbytes()), 1 << 18,
                   [&](int64_t begin, int64_t end) { std::memcpy(target + begin, from + begin, static_cast<size_t>(end - begin)); });
    } else {
      to.view(grad.sizes()).copy_(grad);
    }
    at_number += size;
  }
}

}  // namespace ektm
