#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/random.h"
#include "data/dataset.h"

namespace ektm {

// Two batches: the caller holds one while the thread fills the other. The thread works only between a request and its answer; the
// caller touches `next_batch`, `order` and the batch in work only outside of that.
struct Loader::State {
  State(const Dataset& dataset_in, LoaderConfig config_in) : dataset(dataset_in), config(config_in) {
    if (config.batch_rows < 1) fail(ErrorKind::Config, "batch_rows", "found {}; expected at least 1.", config.batch_rows);
    const int64_t rows = dataset.rows();
    batches = config.drop_last ? rows / config.batch_rows : (rows + config.batch_rows - 1) / config.batch_rows;
    if (config.prefetch) thread = std::thread([this] { work(); });
  }

  ~State() {
    if (!thread.joinable()) return;
    {
      std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    thread.join();
  }

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return requested || stopping; });
      if (stopping) return;
      lock.unlock();
      std::exception_ptr thrown;
      try {
        fill();
      } catch (...) {
        thrown = std::current_exception();
      }
      lock.lock();
      error = thrown;
      requested = false;
      changed.notify_all();
    }
  }

  // Batch number `next_batch` into buffers[filling].
  void fill() {
    const int64_t start = next_batch * config.batch_rows, count = std::min(config.batch_rows, dataset.rows() - start);
    if (config.shuffle) {
      dataset.gather(order.data() + start, count, buffers[filling]);
    } else {
      sequence.resize(count);
      std::iota(sequence.begin(), sequence.end(), start);
      dataset.gather(sequence.data(), count, buffers[filling]);
    }
    if (!config.label_shares.empty()) thin(config.shuffle ? order.data() + start : sequence.data(), buffers[filling]);
  }

  // Takes labels away: of task k, row r keeps its own where a number of [0, 1) that belongs to (seed, r, k) lies below the share.
  void thin(const int64_t* rows, Batch& batch) const {
    const size_t tasks = config.label_shares.size();
    EKTM_CHECK(tasks == dataset.info().tasks.size());
    for (size_t k = 0; k < tasks; ++k) {
      if (config.label_shares[k] >= 1) continue;
      for (int64_t b = 0; b < batch.rows; ++b) {
        Rng rng(config.seed ^ 0x7468696e6c6162ULL, static_cast<uint64_t>(rows[b]) * tasks + k);
        if (rng.uniform() < config.label_shares[k]) continue;
        batch.observed[b * tasks + k] = 0;
        batch.labels[b * tasks + k] = 0;
      }
    }
  }

  void request() {
    if (!config.prefetch || next_batch >= batches) return;
    {
      std::lock_guard lock(mutex);
      requested = true;
    }
    changed.notify_all();
  }

  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return !requested; });
  }

  void start_epoch(int64_t epoch, int64_t batch) {
    EKTM_CHECK(epoch >= 0 && batch >= 0 && batch <= batches);
    wait();
    error = nullptr;
    if (config.shuffle && epoch != order_epoch) {
      order.resize(dataset.rows());
      std::iota(order.begin(), order.end(), int64_t{0});
      Rng rng(config.seed, static_cast<uint64_t>(epoch));
      ektm::shuffle(order, rng);
      order_epoch = epoch;
    }
    next_batch = batch;
    started = true;
    request();
  }

  const Batch* next() {
    EKTM_CHECK(started);
    if (next_batch >= batches) return nullptr;
    if (config.prefetch)
      wait();
    else
      fill();
    if (error) {
      started = false;
      std::rethrow_exception(std::exchange(error, nullptr));
    }
    const Batch* filled = &buffers[filling];
    ++next_batch;
    filling = 1 - filling;
    request();
    return filled;
  }

  const Dataset& dataset;
  const LoaderConfig config;
  int64_t batches = 0;
  std::vector<int64_t> order, sequence;
  int64_t order_epoch = -1;
  bool started = false;
  int64_t next_batch = 0;
  int filling = 0;
  Batch buffers[2];

  std::mutex mutex;
  std::condition_variable changed;
  bool requested = false, stopping = false;
  std::exception_ptr error;  // of the last request
  std::thread thread;
};

Loader::Loader(const Dataset& dataset, LoaderConfig config) : state_(std::make_unique<State>(dataset, config)) {}
Loader::~Loader() = default;
void Loader::start_epoch(int64_t epoch, int64_t batch) {
  state_->start_epoch(epoch, batch);
}
const Batch* Loader::next() {
  return state_->next();
}
int64_t Loader::batches_per_epoch() const {
  return state_->batches;
}

}  // namespace ektm
