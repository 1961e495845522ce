#include "nn/layers.h"

#include "base/error.h"

namespace ektm {

at::Tensor activate(const at::Tensor& x, const std::string& activation) {
  if (activation == "relu") return at::relu(x);
  if (activation == "silu") return at::silu(x);
  if (activation == "gelu") return at::gelu(x);
  EKTM_CHECK(activation == "tanh");
  return at::tanh(x);
}

at::Tensor dropout(const at::Tensor& x, double rate, Context& context) {
  if (!context.training || rate == 0) return x;
  at::Tensor keep = at::empty_like(x).bernoulli_(1 - rate, context.generator).div_(1 - rate);
  return x * keep;
}

FanOutLinear::FanOutLinear(ParameterStore& store, const std::string& name, int64_t count, int64_t in, int64_t out, bool bias)
    : weight_(store.add(name + ".weight", {in, count, out}, Init::Xavier, in, out)) {
  if (bias) bias_ = store.add(name + ".bias", {count, out}, Init::Zero);
}

at::Tensor FanOutLinear::forward(const at::Tensor& x) const {
  const int64_t count = weight_.size(1), out = weight_.size(2);
  at::Tensor flat = weight_.view({weight_.size(0), count * out});
  at::Tensor y = bias_.defined() ? at::addmm(bias_.view({count * out}), x, flat) : at::mm(x, flat);
  return y.view({x.size(0), count, out}).transpose(0, 1);
}

BatchedLinear::BatchedLinear(ParameterStore& store, const std::string& name, int64_t count, int64_t in, int64_t out, bool bias, Init init)
    : weight_(store.add(name + ".weight", {count, in, out}, init)) {
  if (bias) bias_ = store.add(name + ".bias", {count, 1, out}, Init::Zero);
}

at::Tensor BatchedLinear::forward(const at::Tensor& x) const {
  return bias_.defined() ? at::baddbmm(bias_, x, weight_) : at::bmm(x, weight_);
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
  if (config_.hidden.empty()) return shared_input_ ? x.unsqueeze(0).expand({count_, -1, -1}) : x;
  for (const auto& layer : first_) x = dropout(activate(layer.forward(x), config_.activation), config_.dropout, context);
  for (const auto& layer : rest_) x = dropout(activate(layer.forward(x), config_.activation), config_.dropout, context);
  return x;
}

at::Tensor mix_experts(const at::Tensor& gates, const at::Tensor& experts) {
  return at::bmm(gates, experts.transpose(0, 1)).transpose(0, 1);
}

}  // namespace ektm
