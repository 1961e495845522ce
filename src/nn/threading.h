#pragma once
#include <cstdint>

namespace ektm {

// Threads of training and scoring; 0 = one a core. libtorch's own operations and its BLAS then run on the thread that calls them: the
// threads of base/threads.h divide the work, and two pools would fight for the cores. Process-wide.
void use_threads(int64_t count);

}  // namespace ektm
