#pragma once
// Where a training run's time goes: a breakdown by part and by operation, and a trace for a browser's trace viewer.
//
// Parts are the scopes below, opened in the training loop and in the network; operations are what libtorch and ektm's own layers
// report inside of them. Recording costs about a microsecond an operation; without a Profiler the scopes cost a branch.
#include <ATen/record_function.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace ektm {

class Profiler {
 public:
  // Records the calling thread from here on. One at a time. The trace holds the first `traced_steps` steps after the first two.
  explicit Profiler(int64_t traced_steps = 20);
  ~Profiler();
  Profiler(const Profiler&) = delete;

  void step_ends();
  void stop();  // idempotent

  struct Line {
    std::string name;
    int64_t calls = 0;
    double ms = 0;  // self time: without what was opened inside
  };
  // Sorted by time. Parts: input, gather, forward, loss, backward, optimiser, validation, checkpoint, and "other" for what lies between.
  // The first two steps, in which memory is first touched, are left out.
  std::vector<Line> parts() const;
  std::vector<Line> operations() const;
  int64_t steps() const;
  std::string table(int64_t rows_per_step) const;
  // Chrome's trace event format (JSON): opens in chrome://tracing and https://ui.perfetto.dev.
  void write_trace(const std::filesystem::path& file) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ektm

// One part of a step, until the end of the block.
#define EKTM_PROFILE(part) RECORD_FUNCTION_WITH_SCOPE(at::RecordScope::USER_SCOPE, "part/" part, c10::ArrayRef<const c10::IValue>{})
