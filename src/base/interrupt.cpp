#include "base/interrupt.h"

#include <csignal>

namespace ektm {
namespace {

extern "C" void on_signal(int) {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  interrupt_flag() = true;
}

}  // namespace

std::atomic<bool>& interrupt_flag() {
  static std::atomic<bool> flag{false};
  return flag;
}

void catch_interrupts() {
  interrupt_flag();  // made before a handler needs it
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

void stop_if_interrupted() {
  if (interrupt_flag()) throw Interrupted();
}

}  // namespace ektm
