#include "base/threads.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ektm {
namespace {

thread_local bool inside = false;  // of a parallel_for

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

constexpr int kSpins = 1000;  // some 10 microseconds

// Waits until `value` is no longer `old`: spins, then sleeps.
template <class T>
void wait_for_change(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
}

class Pool {
 public:
  ~Pool() { resize(1); }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  void resize(int count, void (*on_start)() = nullptr) {
    EKTM_CHECK(count >= 1);
    if (count == size() && on_start == on_start_) return;
    std::lock_guard lock(mutex_);
    stopping_ = true;
    publish(0);
    for (auto& worker : workers_) worker.join();
    workers_.clear();
    stopping_ = false;
    on_start_ = on_start;
    for (int i = 1; i < count; ++i) workers_.emplace_back([this, seen = ticket_.load() >> 32] { work(seen); });
  }

  void run(int64_t chunks, void (*body)(void*, int64_t), void* context) {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (inside || workers_.empty() || !lock.owns_lock()) {
      for (int64_t c = 0; c < chunks; ++c) body(context, c);
      return;
    }
    body_ = body;
    context_ = context;
    chunks_ = static_cast<uint32_t>(chunks);
    done_.store(0, std::memory_order_relaxed);
    error_ = nullptr;
    publish(static_cast<uint32_t>(chunks));
    inside = true;
    take(ticket_.load(std::memory_order_relaxed) >> 32);
    inside = false;
    for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != chunks_;) wait_for_change(done_, done);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // A ticket holds the number of the job in its upper half and the number of chunks not yet taken in its lower one. Who takes a chunk
  // by compare-and-swap knows that the job is not over, so its fields are the ones it sees.
  void publish(uint32_t chunks) {
    ticket_.store(((ticket_.load(std::memory_order_relaxed) >> 32) + 1) << 32 | chunks, std::memory_order_release);
    ticket_.notify_all();
  }

  void take(uint64_t job) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (ticket >> 32 == job && static_cast<uint32_t>(ticket) > 0) {
      if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acquire, std::memory_order_acquire)) continue;
      const uint32_t chunks = chunks_, chunk = chunks - static_cast<uint32_t>(ticket);
      try {
        body_(context_, chunk);
      } catch (...) {
        std::lock_guard lock(error_mutex_);
        if (!error_ || chunk < error_chunk_) error_ = std::current_exception(), error_chunk_ = chunk;
      }
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == chunks) done_.notify_all();
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void work(uint64_t seen) {
    inside = true;
    if (on_start_) on_start_();
    for (;;) {
      uint64_t ticket = ticket_.load(std::memory_order_acquire);
      // Not wait_for_change: the lower half changes while others take chunks.
      for (int i = 0; i < kSpins && ticket >> 32 == seen; ++i) {
        pause();
        ticket = ticket_.load(std::memory_order_acquire);
      }
      while (ticket >> 32 == seen) {
        ticket_.wait(ticket, std::memory_order_acquire);
        ticket = ticket_.load(std::memory_order_acquire);
      }
      seen = ticket >> 32;
      if (stopping_.load(std::memory_order_acquire)) return;
      take(seen);
    }
  }

  std::mutex mutex_, error_mutex_;
  std::vector<std::thread> workers_;
  std::atomic<uint64_t> ticket_{0};
  std::atomic<uint32_t> done_{0};
  std::atomic<bool> stopping_{false};
  void (*on_start_)() = nullptr;
  void (*body_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  uint32_t chunks_ = 0;
  std::exception_ptr error_;  // of the first chunk that failed
  uint32_t error_chunk_ = 0;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

void set_threads(int count, void (*on_start)()) { pool().resize(count, on_start); }
int threads() { return pool().size(); }

namespace detail {
void run_chunks(int64_t chunks, void (*body)(void*, int64_t), void* context) { pool().run(chunks, body, context); }
}  // namespace detail

struct ThreadPool::State {
  Pool pool;
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) { state_->pool.resize(threads); }
ThreadPool::~ThreadPool() = default;

void ThreadPool::run(int64_t count, const std::function<void(int64_t)>& task) {
  state_->pool.run(
      count, [](void* context, int64_t i) { (*static_cast<const std::function<void(int64_t)>*>(context))(i); },
      const_cast<std::function<void(int64_t)>*>(&task));
}

}  // namespace ektm
