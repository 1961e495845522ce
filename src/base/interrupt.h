#pragma once
// Ctrl-C and SIGTERM as a flag that long work looks at between two pieces, so that it ends in order: `train` writes a checkpoint, the
// others take back what they have staged.
#include <atomic>
#include <exception>

namespace ektm {

// Set by the handlers of catch_interrupts().
std::atomic<bool>& interrupt_flag();

// From here on SIGINT and SIGTERM set the flag; a second one ends the process at once.
void catch_interrupts();

struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// Throws Interrupted when the flag is set.
void stop_if_interrupted();

}  // namespace ektm
