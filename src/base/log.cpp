#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace ektm {
namespace {

constexpr double kTerminalSeconds = 0.1;
constexpr double kPlainSeconds = 10;
bool quiet_ = false;

spdlog::logger& logger() {
  static auto instance = [] {
    auto made = spdlog::stderr_color_mt("ektm");
    made->set_pattern("%^%v%$");
    return made;
  }();
  return *instance;
}

}  // namespace

void set_quiet(bool quiet) { quiet_ = quiet; }
bool quiet() { return quiet_; }

void log_line(const std::string& text) {
  if (!quiet_) logger().info(text);
}

Progress::Progress(std::string title, int64_t total, std::string unit)
    : title_(std::move(title)), unit_(std::move(unit)), total_(total), terminal_(isatty(STDERR_FILENO)),
      start_(std::chrono::steady_clock::now()), drawn_(start_) {}

Progress::~Progress() {
  if (!finished_ && terminal_ && !quiet_) std::fputc('\n', stderr);
}

double Progress::seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

void Progress::update(int64_t done, const std::string& note) {
  done_ = done;
  note_ = note;
  auto now = std::chrono::steady_clock::now();
  if (std::chrono::duration<double>(now - drawn_).count() < (terminal_ ? kTerminalSeconds : kPlainSeconds)) return;
  drawn_ = now;
  draw(false);
}

void Progress::finish(const std::string& note) {
  if (!note.empty()) note_ = note;
  if (total_ > 0) done_ = total_;
  draw(true);
  finished_ = true;
}

void Progress::draw(bool last) {
  if (quiet_) return;
  double elapsed = std::max(seconds(), 1e-9);
  std::string line = title_ + " ";
  if (total_ > 0) {
    double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
    int filled = static_cast<int>(share * 20);
    line += fmt::format("{:3.0f}% [{}{}] ", share * 100, std::string(filled, '#'), std::string(20 - filled, '.'));
  }
  line += fmt::format("{} {} | {} {}/s | {:.1f}s", compact(static_cast<double>(done_)), unit_, compact(done_ / elapsed), unit_, elapsed);
  if (!last && total_ > 0 && done_ > 0) line += fmt::format(" < {:.0f}s", elapsed * (total_ - done_) / done_);
  if (!note_.empty()) line += " | " + note_;
  std::fprintf(stderr, terminal_ ? "\r\033[K%s%s" : "%s%s", line.c_str(), last || !terminal_ ? "\n" : "");
  std::fflush(stderr);
}

std::string with_commas(int64_t value) {
  std::string digits = std::to_string(value < 0 ? -value : value);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(at, ",");
  return value < 0 ? "-" + digits : digits;
}

std::string compact(double value) {
  const char* suffixes[] = {"", "K", "M", "G", "T"};
  int step = 0;
  while (std::abs(value) >= 1000 && step < 4) value /= 1000, ++step;
  if (step == 0) return fmt::format("{:.4g}", value);
  return fmt::format("{:.{}f}{}", value, value < 10 ? 2 : value < 100 ? 1 : 0, suffixes[step]);
}

}  // namespace ektm
