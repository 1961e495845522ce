#include "data/parallel.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace ektm {
namespace {

TEST(Workers, EveryTaskRunsOnceWhateverTheThreads) {
  for (size_t threads : {1, 2, 5}) {
    Workers workers(threads);
    for (size_t count : {0, 1, 3, 100}) {
      std::vector<int> calls(count, 0);
      workers.run(count, [&](size_t i) { ++calls[i]; });
      EXPECT_EQ(calls, std::vector<int>(count, 1)) << threads << " " << count;
    }
  }
}

TEST(Workers, TheFirstTasksErrorIsThrownAndTheNextRunWorks) {
  for (size_t threads : {1, 3}) {
    Workers workers(threads);
    for (int round = 0; round < 20; ++round) {
      try {
        workers.run(10, [](size_t i) {
          if (i >= 4) throw std::runtime_error(std::to_string(i));
        });
        ADD_FAILURE() << "no error";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "4");
      }
      std::atomic<int> calls = 0;
      workers.run(10, [&](size_t) { ++calls; });
      EXPECT_EQ(calls, 10);
    }
  }
}

}  // namespace
}  // namespace ektm
