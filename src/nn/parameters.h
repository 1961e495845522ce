#pragma once
// The dense parameters of a model: named tensors that live side by side in one flat buffer, gradients in another. So an optimiser
// step, a gradient norm or a checkpoint is one pass over contiguous memory.
#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

namespace ektm {

enum class Init {
  Xavier,  // uniform in +-sqrt(6 / (fan_in + fan_out)), Glorot & Bengio 2010
  Zero,
  One,
};

class ParameterStore {
 public:
  // Same seed and name: same values, whatever else a model holds. `dtype` double serves finite-difference tests.
  explicit ParameterStore(uint64_t seed, at::ScalarType dtype = at::kFloat) : seed_(seed), dtype_(dtype) {}

  // A trainable tensor. The last two sizes of `shape` are [fan_in, fan_out] unless fan_in / fan_out are given. `map_dim`: see Entry.
  at::Tensor add(const std::string& name, std::vector<int64_t> shape, Init init, int64_t fan_in = 0, int64_t fan_out = 0, int64_t map_dim = kMapDim);
  // A tensor that is saved and loaded, but not trained.
  at::Tensor add_buffer(const std::string& name, const at::Tensor& value);

  // Moves all trainable tensors into the flat buffer. Handles given out by add() stay valid. Call once, after the last add().
  void flatten();
  // Before and after a backward pass: forgets the tensors' gradients; puts them side by side into grads(), zero where none arrived.
  // A tensor's own gradient is then the one that backward made, not a sum into memory that had to be cleared first.
  void zero_grad();
  void collect_grads() { collect_grads(grads_); }
  void collect_grads(const at::Tensor& into) const;  // [P], contiguous

  const at::Tensor& values() const { return values_; }  // [P]
  const at::Tensor& grads() const { return grads_; }    // [P], as of the last collect_grads()

  struct Entry {
    std::string name;
    at::Tensor tensor;
    bool trainable = true;
    // Along which dimension maps of several tasks or experts lie side by side; -1: it is one map. Balancing (train/balancing.h) goes by it.
    int64_t map_dim = -1;
  };
  const std::vector<Entry>& entries() const { return entries_; }
  int64_t count() const;  // trainable numbers
  at::ScalarType dtype() const { return dtype_; }

 private:
  static constexpr int64_t kMapDim = -2;  // 0 for three dimensions, else -1

  uint64_t seed_;
  at::ScalarType dtype_;
  std::vector<Entry> entries_;
  at::Tensor values_, grads_;
};

// Random state of a forward pass. Dropout masks depend on (seed, step) alone, so a resumed run draws what the uninterrupted one drew.
struct Context {
  bool training = false;
  bool diagnose = false;    // fill ModelOutput::diagnostics
  at::Generator generator;  // defined when training
};

}  // namespace ektm
