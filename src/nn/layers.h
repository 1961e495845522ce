#pragma once
// Layers that treat all tasks or experts at once: E networks of the same sizes are one batched product.
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "config/fields.h"
#include "nn/parameters.h"

namespace ektm {

// relu | silu | gelu | tanh
at::Tensor activate(const at::Tensor& x, const std::string& activation);

// Inverted dropout: kept numbers are divided by 1 - rate. The identity outside training.
at::Tensor dropout(const at::Tensor& x, double rate, Context& context);

// E linear maps of one input as a single product: [B,in] -> [E,B,out]. Weight [in, E, out].
class FanOutLinear {
 public:
  FanOutLinear(ParameterStore& store, const std::string& name, int64_t count, int64_t in, int64_t out, bool bias = true);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;  // [in,E,out], [E,out]
};

// E linear maps of E inputs: [E,B,in] -> [E,B,out]. Weight [E,in,out].
class BatchedLinear {
 public:
  BatchedLinear(ParameterStore& store, const std::string& name, int64_t count, int64_t in, int64_t out, bool bias = true,
                Init init = Init::Xavier);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;  // [E,in,out], [E,1,out]
};

struct MlpConfig {
  std::vector<int64_t> hidden;
  std::string activation = "relu";
  double dropout = 0;
};

// E networks of hidden layers, each: linear, activation, dropout. `shared_input`: [B,in] for all, else [E,B,in]. Result [E,B,last].
// Without hidden layers: the input itself (expanded to [E,B,in] when shared).
class BatchedMlp {
 public:
  BatchedMlp(ParameterStore& store, const std::string& name, int64_t count, int64_t in, MlpConfig config, bool shared_input);
  at::Tensor forward(at::Tensor x, Context& context) const;
  int64_t out() const { return out_; }

 private:
  MlpConfig config_;
  int64_t count_, out_;
  bool shared_input_;
  std::vector<FanOutLinear> first_;  // 0 or 1
  std::vector<BatchedLinear> rest_;
};

// sum_e gates[b,k,e] * experts[e,b,:] for each of K gates: gates [B,K,E], experts [E,B,H] -> [K,B,H].
at::Tensor mix_experts(const at::Tensor& gates, const at::Tensor& experts);

}  // namespace ektm
