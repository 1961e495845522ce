#pragma once
// Work of several threads that ends together.
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ektm {

class Workers {
 public:
  // `threads`, at least 1, counts the caller of run().
  explicit Workers(size_t threads) {
    for (size_t i = 1; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~Workers() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Calls task(0) .. task(count - 1), begun in this order, each in one of the threads; returns when all have ended. Throws what
  // the first of them in this order threw: with one thread the later ones are then not called.
  void run(size_t count, const std::function<void(size_t)>& task) {
    if (threads_.empty()) {
      for (size_t i = 0; i < count; ++i) task(i);
      return;
    }
    {
      std::lock_guard lock(mutex_);
      task_ = &task;
      errors_.assign(count, nullptr);
      next_ = 0;
      busy_ = threads_.size();
      ++round_;
    }
    changed_.notify_all();
    take();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    for (const auto& error : errors_)
      if (error) std::rethrow_exception(error);
  }

 private:
  void take() {
    for (size_t i; (i = next_++) < errors_.size();) {
      try {
        (*task_)(i);
      } catch (...) {
        errors_[i] = std::current_exception();
      }
    }
  }

  void work() {
    size_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || round_ != seen; });
      if (stopping_) return;
      seen = round_;
      lock.unlock();
      take();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_, done_;
  bool stopping_ = false;
  size_t round_ = 0, busy_ = 0;
  const std::function<void(size_t)>* task_ = nullptr;
  std::vector<std::exception_ptr> errors_;
  std::atomic<size_t> next_ = 0;
  std::vector<std::thread> threads_;  // last: they use the rest
};

}  // namespace ektm
