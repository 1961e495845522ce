#include "nn/layers.h"

#include "base/error.h"
#include "nn/ops.h"

namespace ektm {
namespace {

at::Tensor activate(const at::Tensor& x, const std::string& activation) {
  if (activation == "silu") return at::silu(x);
  if (activation == "gelu") return at::gelu(x);
  EKTM_CHECK(activation == "tanh");
  return at::tanh(x);
}

}  // namespace

FanOutLinear::FanOutLinear(ParameterStore& store, const std::string& name, int64_t count, int64_t in, int64_t out, bool bias)
    : weight_(store.add(name + ".weight", {in, count, out}, Init::Xavier, in, out, 1)) {
  if (bias) bias_ = store.add(name + ".bias", {count, out}, Init::Zero, 0, 0, 0);
}

at::Tensor FanOutLinear::forward(const at::Tensor& x, Context& context) const { return ops::fan_out(x, weight_, bias_, false, 0, context); }

at::Tensor FanOutLinear::forward(const at::Tensor& x, const std::string& activation, double dropout, Context& context) const {
  if (activation == "relu") return ops::fan_out(x, weight_, bias_, true, dropout, context);
  return ops::dropout(activate(forward(x, context), activation), dropout, context);
}

BatchedLinear::BatchedLinear(ParameterStore& store, const std::string& name, int64_t count, int64_t in, int64_t out, bool bias, Init init)
    : weight_(store.add(name + ".weight", {count, in, out}, init)) {
  if (bias) bias_ = store.add(name + ".bias", {count, 1, out}, Init::Zero);
}

at::Tensor BatchedLinear::forward(const at::Tensor& x, Context& context, const at::Tensor& x2) const {
  return ops::stacked(x, x2, weight_, bias_, false, 0, context);
}

at::Tensor BatchedLinear::forward(const at::Tensor& x, const std::string& activation, double dropout, Context& context) const {
  if (activation == "relu") return ops::stacked(x, {}, weight_, bias_, true, dropout, context);
  return ops::dropout(activate(forward(x, context), activation), dropout, context);
}

BatchedMlp::BatchedMlp(ParameterStore& store, const std::string& name, int64_t count, int64_t in, MlpConfig config, bool shared_input)
    : config_(std::move(config)), count_(count), out_(in), shared_input_(shared_input) {
  for (size_t i = 0; i < config_.hidden.size(); ++i) {
    std::string layer = name + "." + std::to_string(i);
    if (i == 0 && shared_input)
      first_.emplace_back(store, layer, count, out_, config_.hidden[i]);
    else
      rest_.emplace_back(store, layer, count, out_, config_.hidden[i]);
    out_ = config_.hidden[i];
  }
}

at::Tensor BatchedMlp::forward(at::Tensor x, Context& context) const {
  if (config_.hidden.empty()) {
    if (shared_input_) return x.unsqueeze(0).expand({count_, -1, -1});
    return x.size(0) == count_ ? x : x.repeat_interleave(count_ / x.size(0), 0);
  }
  for (const auto& layer : first_) x = layer.forward(x, config_.activation, config_.dropout, context);
  for (const auto& layer : rest_) x = layer.forward(x, config_.activation, config_.dropout, context);
  return x;
}

at::Tensor mix_experts(const at::Tensor& logits, const at::Tensor& experts) {
  std::vector<int32_t> index;
  for (int64_t k = 0; k < logits.size(0); ++k)
    for (int64_t e = 0; e < experts.size(0); ++e) index.push_back(static_cast<int32_t>(e));
  return ops::softmax_mix(logits, {experts}, index);
}

}  // namespace ektm
