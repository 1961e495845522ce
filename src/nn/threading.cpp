#include "nn/threading.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <thread>

#include "base/threads.h"

namespace ektm {

void use_threads(int64_t count) {
  // In every thread: OpenMP and MKL keep this number for each thread.
  auto alone = [] { at::set_num_threads(1); };
  alone();
  set_threads(count > 0 ? static_cast<int>(count) : std::max(1, static_cast<int>(std::thread::hardware_concurrency())), alone);
}

}  // namespace ektm
