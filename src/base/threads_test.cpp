#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace ektm {
namespace {

struct Threads : testing::TestWithParam<int> {
  void SetUp() override { set_threads(GetParam()); }
  void TearDown() override { set_threads(1); }
};

TEST_P(Threads, EveryNumberOnce) {
  EXPECT_EQ(threads(), GetParam());
  for (int64_t size : {0, 1, 7, 100, 10007})
    for (int64_t grain : {0, 1, 16, 20000}) {
      std::vector<std::atomic<int>> seen(size);
      parallel_for(5, 5 + size, grain, [&](int64_t first, int64_t last) {
        ASSERT_LT(first, last);
        if (last != 5 + size) EXPECT_GE(last - first, grain);
        for (int64_t i = first; i < last; ++i) ++seen[i - 5];
      });
      for (const auto& count : seen) EXPECT_EQ(count, 1);
    }
}

TEST_P(Threads, ManyJobsInARow) {
  std::vector<int64_t> sums(16);
  for (int64_t job = 0; job < 20000; ++job)
    parallel_for(0, 16, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) sums[i] += job;
    });
  for (int64_t sum : sums) EXPECT_EQ(sum, 20000 * 19999 / 2);
}

TEST_P(Threads, NestedRunsInPlace) {
  std::atomic<int64_t> total{0};
  parallel_for(0, 8, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      parallel_for(0, 100, 1, [&](int64_t from, int64_t to) { total += to - from; });
  });
  EXPECT_EQ(total, 800);
}

TEST_P(Threads, FromSeveralThreadsAtOnce) {
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) parallel_for(0, 64, 1, [&](int64_t first, int64_t last) { total += last - first; });
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(total, 3 * 500 * 64);
}

TEST_P(Threads, AnExceptionReachesTheCaller) {
  auto fails = [] { parallel_for(0, 100, 1, [](int64_t first, int64_t) { if (first >= 50) throw std::runtime_error("here"); }); };
  EXPECT_THROW(fails(), std::runtime_error);
  std::atomic<int64_t> total{0};
  parallel_for(0, 100, 1, [&](int64_t first, int64_t last) { total += last - first; });
  EXPECT_EQ(total, 100);
}

TEST(ThreadPool, EveryTaskRunsOnceWhateverTheThreads) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 3, 100}) {
      std::vector<int> calls(count, 0);
      pool.run(count, [&](int64_t i) { ++calls[i]; });
      EXPECT_EQ(calls, std::vector<int>(count, 1)) << threads << " " << count;
    }
  }
}

TEST(ThreadPool, TheFirstTasksErrorIsThrownAndTheNextRunWorks) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 20; ++round) {
      try {
        pool.run(10, [](int64_t i) {
          if (i >= 4) throw std::runtime_error(std::to_string(i));
        });
        ADD_FAILURE() << "no error";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "4");
      }
      std::atomic<int> calls = 0;
      pool.run(10, [&](int64_t) { ++calls; });
      EXPECT_EQ(calls, 10);
    }
  }
}

// The tasks of a pool are at work side by side with the pieces of parallel_for.
TEST(ThreadPool, IsNotTheOneOfParallelFor) {
  set_threads(2);
  ThreadPool pool(3);
  std::atomic<int64_t> total{0};
  std::thread other([&] {
    for (int i = 0; i < 200; ++i) parallel_for(0, 64, 1, [&](int64_t first, int64_t last) { total += last - first; });
  });
  for (int i = 0; i < 200; ++i)
    pool.run(8, [&](int64_t) { parallel_for(0, 10, 1, [&](int64_t first, int64_t last) { total += last - first; }); });
  other.join();
  set_threads(1);
  EXPECT_EQ(total, 200 * 64 + 200 * 8 * 10);
}

INSTANTIATE_TEST_SUITE_P(Counts, Threads, testing::Values(1, 2, 5));

}  // namespace
}  // namespace ektm
