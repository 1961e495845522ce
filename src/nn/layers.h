#pragma once
// Layers that treat all tasks or experts at once: E networks of the same sizes are one batched product.
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "config/fields.h"
#include "nn/parameters.h"

namespace ektm {

// E linear maps of one input as a single product: [B,in] -> [E,B,out]. Weight [in, E, out].
class FanOutLinear {
 public:
  FanOutLinear(ParameterStore& store, const std::string& name, int64_t count, int64_t in, int64_t out, bool bias = true);
  at::Tensor forward(const at::Tensor& x, Context& context) const;
  // With activation (relu | silu | gelu | tanh) and inverted dropout.
  at::Tensor forward(const at::Tensor& x, const std::string& activation, double dropout, Context& context) const;

 private:
  at::Tensor weight_, bias_;  // [in,E,out], [E,out]
};

// E linear maps of E inputs: [E,B,in] -> [E,B,out]. Weight [E,in,out]. Of fewer inputs [E/r,B,in], each is seen by r maps in a row.
class BatchedLinear {
 public:
  BatchedLinear(ParameterStore& store, const std::string& name, int64_t count, int64_t in, int64_t out, bool bias = true,
                Init init = Init::Xavier);
  // x2 [E,B,in2], if given, is as if concatenated to x.
  at::Tensor forward(const at::Tensor& x, Context& context, const at::Tensor& x2 = {}) const;
  at::Tensor forward(const at::Tensor& x, const std::string& activation, double dropout, Context& context) const;
  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }

 private:
  at::Tensor weight_, bias_;  // [E,in,out], [E,1,out]
};

struct MlpConfig {
  std::vector<int64_t> hidden;
  std::string activation = "relu";
  double dropout = 0;
};

// E networks of hidden layers, each: linear, activation, dropout. `shared_input`: [B,in] for all, else [E,B,in], or [E/r,B,in] with
// each input seen by r networks in a row. Result [E,B,last].
// Without hidden layers: the input itself (expanded to [E,B,in] when shared).
class BatchedMlp {
 public:
  BatchedMlp(ParameterStore& store, const std::string& name, int64_t count, int64_t in, MlpConfig config, bool shared_input);
  at::Tensor forward(at::Tensor x, Context& context) const;
  int64_t out() const { return out_; }
  // All layers but that of a shared input.
  const std::vector<BatchedLinear>& layers() const { return rest_; }

 private:
  MlpConfig config_;
  int64_t count_, out_;
  bool shared_input_;
  std::vector<FanOutLinear> first_;  // 0 or 1
  std::vector<BatchedLinear> rest_;
};

// sum_e softmax(logits)[k,b,e] * experts[e,b,:] for each of K gates: logits [K,B,E], experts [E,B,H] -> [K,B,H].
at::Tensor mix_experts(const at::Tensor& logits, const at::Tensor& experts);

}  // namespace ektm
