#include "nn/profiler.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "metrics/text_table.h"

namespace ektm {
namespace {

constexpr int64_t kWarmUpSteps = 2;  // memory is first touched there
constexpr std::string_view kPartPrefix = "part/";

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool is_part(const at::RecordFunction& function) {
  return function.scope() == at::RecordScope::USER_SCOPE && std::string_view(function.name()).starts_with(kPartPrefix);
}

}  // namespace

struct Profiler::State {
  struct Frame {
    int64_t start_ns, inner_ns = 0;
    bool part;
  };
  struct Total {
    int64_t calls = 0, self_ns = 0;
  };
  struct Event {
    std::string name;
    int64_t start_ns, duration_ns;
    bool part;
  };
  // Totals by the address of the name would be faster, but names of autograd nodes are made anew each time.
  using Totals = std::unordered_map<std::string, Total>;

  std::vector<Frame> stack;
  Totals parts, operations;
  std::vector<Event> events;
  int64_t steps = 0, traced_steps = 0, start_ns = 0, end_ns = 0, parts_ns = 0, open_parts = 0;
  at::CallbackHandle handle = 0;
  bool running = true;

  bool counts() const { return steps >= kWarmUpSteps; }

  void opened(const at::RecordFunction& function) {
    const bool part = is_part(function);
    open_parts += part;
    stack.push_back({now_ns(), 0, part});
  }
  void closed(const at::RecordFunction& function) {
    const Frame frame = stack.back();
    stack.pop_back();
    open_parts -= frame.part;
    const int64_t end = now_ns(), duration = end - frame.start_ns;
    if (!stack.empty()) stack.back().inner_ns += duration;
    if (!counts()) return;
    const std::string name = frame.part ? function.name() + kPartPrefix.size() : function.name();
    // A part's time is all that happens in it; parts do not nest but for gather and forward inside of validation, which is one part.
    if (frame.part && open_parts == 0) {
      parts_ns += duration;
      Total& total = parts[name];
      ++total.calls;
      total.self_ns += duration;
    } else if (!frame.part) {
      Total& total = operations[name];
      ++total.calls;
      total.self_ns += duration - frame.inner_ns;
    }
    if (steps < kWarmUpSteps + traced_steps) events.push_back({name, frame.start_ns, duration, frame.part});
  }
};

namespace {

thread_local void* current_state = nullptr;  // Profiler::State of the recording profiler

}  // namespace

Profiler::Profiler(int64_t traced_steps) : state_(std::make_unique<State>()) {
  EKTM_CHECK(current_state == nullptr);
  current_state = state_.get();
  state_->traced_steps = traced_steps;
  state_->handle = at::addThreadLocalCallback(at::RecordFunctionCallback(
      [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
        static_cast<State*>(current_state)->opened(function);
        return nullptr;
      },
      [](const at::RecordFunction& function, at::ObserverContext*) { static_cast<State*>(current_state)->closed(function); }));
}

Profiler::~Profiler() { stop(); }

void Profiler::stop() {
  if (!state_->running) return;
  at::removeCallback(state_->handle);
  state_->running = false;
  state_->end_ns = now_ns();
  current_state = nullptr;
}

void Profiler::step_ends() {
  if (++state_->steps == kWarmUpSteps) state_->start_ns = now_ns();
}

int64_t Profiler::steps() const { return std::max<int64_t>(0, state_->steps - kWarmUpSteps); }

namespace {

template <class Totals>
std::vector<Profiler::Line> sorted_lines(const Totals& totals) {
  std::vector<Profiler::Line> lines;
  for (const auto& [name, total] : totals) lines.push_back({name, total.calls, static_cast<double>(total.self_ns) / 1e6});
  std::sort(lines.begin(), lines.end(), [](const auto& a, const auto& b) { return a.ms != b.ms ? a.ms > b.ms : a.name < b.name; });
  return lines;
}

}  // namespace

std::vector<Profiler::Line> Profiler::parts() const {
  auto totals = state_->parts;
  const int64_t end = state_->running ? now_ns() : state_->end_ns;
  if (state_->start_ns > 0) totals["other"] = {steps(), std::max<int64_t>(0, end - state_->start_ns - state_->parts_ns)};
  return sorted_lines(totals);
}

std::vector<Profiler::Line> Profiler::operations() const { return sorted_lines(state_->operations); }

std::string Profiler::table(int64_t rows_per_step) const {
  using Align = TextTable::Align;
  const int64_t count = steps();
  if (count == 0) return "Profile: too few steps; the first two are left out.\n";
  const double divisor = static_cast<double>(count);
  auto print = [&](TextTable& table, const std::vector<Line>& lines, double all_ms, size_t limit) {
    for (size_t i = 0; i < std::min(limit, lines.size()); ++i)
      table.row({lines[i].name, fmt::format("{:.1f}", static_cast<double>(lines[i].calls) / divisor), fmt::format("{:.3f}", lines[i].ms / divisor),
                 fmt::format("{:.1f} %", 100 * lines[i].ms / all_ms)});
  };
  const std::vector<Line> part_lines = parts();
  double all_ms = 0;
  for (const Line& line : part_lines) all_ms += line.ms;
  TextTable table({Align::Left, Align::Right, Align::Right, Align::Right});
  table.line(fmt::format("Profile of {} steps of {} rows: {:.3f} ms a step", with_commas(count), with_commas(rows_per_step), all_ms / divisor));
  table.row({"part", "calls/step", "ms/step", "share"});
  print(table, part_lines, all_ms, part_lines.size());
  table.line("");
  table.row({"costliest operations (self time)", "", "", ""});
  print(table, operations(), all_ms, 16);
  return table.to_string();
}

void Profiler::write_trace(const std::filesystem::path& file) const {
  nlohmann::json events = nlohmann::json::array();
  events.push_back({{"ph", "M"}, {"name", "process_name"}, {"pid", 1}, {"tid", 1}, {"args", {{"name", "ektm train"}}}});
  const int64_t origin = state_->events.empty() ? 0 : state_->events.front().start_ns;
  for (const auto& event : state_->events)
    events.push_back({{"ph", "X"}, {"name", event.name}, {"cat", event.part ? "part" : "operation"}, {"pid", 1}, {"tid", 1},
                      {"ts", static_cast<double>(event.start_ns - origin) / 1e3}, {"dur", static_cast<double>(event.duration_ns) / 1e3}});
  write_file_atomic(file, nlohmann::json{{"traceEvents", events}, {"displayTimeUnit", "ms"}}.dump() + "\n");
}

}  // namespace ektm
