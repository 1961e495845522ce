#pragma once
// The threads of training and scoring. OpenMP would do, but its threads spin while they wait: beside any other program that keeps a
// core busy, a step then takes many times as long. Here an idle thread spins for some microseconds and sleeps, and whoever is free
// takes the next piece, so a thread that the system has set aside holds nobody up.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>

namespace ektm {

// Threads of parallel_for, the caller's included; at least 1. Not while a parallel_for runs. `on_start` runs in each new thread first.
void set_threads(int count, void (*on_start)() = nullptr);
int threads();

namespace detail {
void run_chunks(int64_t chunks, void (*body)(void*, int64_t), void* context);
}

// body(first, last) over pieces of [begin, end), each of `grain` or more but for the last. Which pieces there are depends on the
// arguments and threads() alone; which thread takes one is open. Returns when all are done; throws what the first of the pieces that
// failed threw. Inside of another parallel_for, and where another thread is in one, it runs on the caller.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, Body&& body) {
  if (end <= begin) return;
  const int64_t pieces = 4 * threads();  // a few a thread: they need not be equally fast
  const int64_t size = std::max(std::max<int64_t>(1, grain), (end - begin + pieces - 1) / pieces), chunks = (end - begin + size - 1) / size;
  if (chunks == 1 || threads() == 1) {
    for (int64_t c = 0; c < chunks; ++c) body(begin + c * size, std::min(end, begin + (c + 1) * size));
    return;
  }
  auto chunk = [&](int64_t c) { body(begin + c * size, std::min(end, begin + (c + 1) * size)); };
  detail::run_chunks(chunks, [](void* context, int64_t c) { (*static_cast<decltype(chunk)*>(context))(c); }, &chunk);
}

// Threads of its own, for few and long tasks that are no pieces of one range.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // at least 1, the caller of run() included
  ~ThreadPool();
  // Calls task(0) .. task(count - 1), begun in this order, each in one of the threads; returns when all have ended. Throws what the
  // first of them in this order threw: with one thread the later ones are then not called.
  void run(int64_t count, const std::function<void(int64_t)>& task);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ektm
