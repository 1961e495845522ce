#pragma once
// Activations come and go every step. glibc gives large blocks back to the kernel each time, and their pages are faulted in again:
// this keeps them in the process.
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace ektm {

inline void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

}  // namespace ektm
