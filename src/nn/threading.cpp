#include "nn/threading.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <thread>

#include "base/threads.h"

namespace ektm {

void use_threads(int64_t count) {
  at::set_num_threads(1);
  set_threads(count > 0 ? static_cast<int>(count) : std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
}

}  // namespace ektm
