#pragma once
// Messages to the person at the terminal (stderr), and progress of long work.
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <string>

namespace ektm {

// A no-op when set_quiet(true) was called. Results go to stdout by the commands themselves, never through these.
void log_line(const std::string& text);
void set_quiet(bool quiet);
bool quiet();

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(fmt::format(format, std::forward<Args>(args)...));
}

// One line that is redrawn on a terminal, or printed every `kPlainSeconds` elsewhere. Not thread-safe.
class Progress {
 public:
  // `total` = 0: unknown. `unit`: "rows", "samples", "bytes".
  Progress(std::string title, int64_t total, std::string unit);
  ~Progress();
  void update(int64_t done, const std::string& note = "");  // redraws at most ten times a second
  void finish(const std::string& note = "");                // draws the last state and ends the line
  double seconds() const;

 private:
  void draw(bool last);
  std::string title_, unit_, note_;
  int64_t total_, done_ = 0;
  bool terminal_, finished_ = false;
  std::chrono::steady_clock::time_point start_, drawn_;
};

// 1234567 -> "1,234,567".
std::string with_commas(int64_t value);
// 1234567 -> "1.23M".
std::string compact(double value);

}  // namespace ektm
