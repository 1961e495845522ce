#include "report/charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace ektm {
namespace {

constexpr double kPanelWidth = 372, kTickFont = 11, kTop = 44;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
  // Some air around the values; a single value gets an axis too.
  void pad(double share) {
    double air = share * (high - low);
    if (air <= 1e-9 * std::max(std::abs(low), std::abs(high))) air = std::max(0.005, 0.05 * std::abs(high));
    low -= air;
    high += air;
  }
};

void draw_title(Svg& svg, const ChartTitle& title) {
  svg.text(0, 14, shorten(title.title, kPanelWidth, 14), "title");
  svg.text(0, 30, shorten(title.note, kPanelWidth, kTickFont), "note");
}

std::string nothing_to_draw(const ChartTitle& title) {
  Svg svg(kPanelWidth, 70, title.title);
  draw_title(svg, title);
  svg.text(0, 56, "not defined on these rows", "note");
  return svg.to_string();
}

double widest_px(const std::vector<std::string>& labels) {
  double widest = 0;
  for (const auto& label : labels) widest = std::max(widest, text_width_px(label, kTickFont));
  return widest;
}

std::string cell_text(double value, bool with_sign) {
  if (std::abs(value) < 0.005) return "0.00";
  return with_sign ? fmt::format("{:+.2f}", value) : fmt::format("{:.2f}", value);
}

std::string mix(const std::array<int, 3>& from, const std::array<int, 3>& to, double share) {
  std::string color = "#";
  for (int c = 0; c < 3; ++c) color += fmt::format("{:02x}", static_cast<int>(std::lround(from[c] + share * (to[c] - from[c]))));
  return color;
}

// `most` ticks (>= 5) of a linear x axis, or fewer, at least 2, so that their labels stand apart.
std::vector<double> ticks_of(const Scale& x, const Range& range, int most) {
  constexpr double kGap = 9;
  auto ticks = linear_ticks(range.low, range.high, most);
  while (most > 2 && x(ticks[1]) - x(ticks[0]) < widest_px(tick_labels(ticks)) + kGap) {
    auto fewer = linear_ticks(range.low, range.high, --most);  // below 5 it may find less than two
    if (fewer.size() >= 2) ticks = std::move(fewer);
  }
  return ticks;
}

}  // namespace

std::string auc_chart(const ChartTitle& title, const std::vector<AucEntry>& entries) {
  std::vector<MeanEntry> means;
  for (const auto& entry : entries) means.push_back({entry.label, entry.style, entry.auc, entry.interval, {}, entry.best});
  return mean_chart(title, "AUC", means);
}

std::string mean_chart(const ChartTitle& title, const std::string& axis, const std::vector<MeanEntry>& entries) {
  constexpr double kRow = 21, kLabelMost = 175, kValueWidth = 50, kTick = 4;
  Range range;
  std::vector<std::string> labels;
  for (const auto& entry : entries) {
    labels.push_back(shorten(entry.label, kLabelMost, kTickFont));
    if (entry.mean) range.add(*entry.mean);
    if (entry.interval) range.add(entry.interval->low), range.add(entry.interval->high);
    for (double value : entry.values) range.add(value);
  }
  if (range.empty()) return nothing_to_draw(title);
  range.pad(0.05);
  const double left = widest_px(labels) + 12, right = kPanelWidth - kValueWidth,
               bottom = kTop + kRow * static_cast<double>(entries.size());
  const Scale x{range.low, range.high, left, right};
  Svg svg(kPanelWidth, bottom + 34, axis + " of " + title.title);
  draw_title(svg, title);
  const auto ticks = ticks_of(x, range, 5);
  svg.x_axis(x, ticks, tick_labels(ticks), kTop, bottom);
  svg.text((left + right) / 2, bottom + 30, axis, "tick", "middle");
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& entry = entries[i];
    const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
    svg.text(left - 8, y + 4, labels[i], entry.best ? "tick best" : "tick", "end");
    if (!entry.mean) {
      svg.text(right + 8, y + 4, "-", "tick");
      continue;
    }
    for (double value : entry.values) svg.line(x(value), y - kTick, x(value), y + kTick, "axis");
    if (entry.interval) svg.run_bar(x(entry.interval->low), x(entry.interval->high), y, entry.style);
    svg.marker(x(*entry.mean), y, 4.4, entry.style, false, fmt::format("{}: {:.5f}", entry.label, *entry.mean));
    svg.text(right + 8, y + 4, fmt::format("{:.4f}", *entry.mean), entry.best ? "tick best" : "tick");
  }
  return svg.to_string();
}

std::string difference_chart(const ChartTitle& title, const std::string& axis, const std::vector<DifferenceEntry>& entries) {
  constexpr double kRow = 34, kWidth = 2 * kPanelWidth, kLabelMost = 260, kValueWidth = 130, kApart = 6;
  Range range;
  range.add(0);
  std::vector<std::string> labels;
  for (const auto& entry : entries) {
    labels.push_back(shorten(entry.label, kLabelMost, kTickFont));
    range.add(entry.difference);
    for (const auto& interval : {entry.upper, entry.lower, entry.both})
      if (interval) range.add(interval->low), range.add(interval->high);
  }
  if (entries.empty()) return nothing_to_draw(title);
  range.pad(0.05);
  // Fonts differ in width: some air, for names as long as these.
  const double left = 1.08 * widest_px(labels) + 12, right = kWidth - kValueWidth, bottom = kTop + kRow * static_cast<double>(entries.size());
  const Scale x{range.low, range.high, left, right};
  Svg svg(kWidth, bottom + 34, title.title);
  draw_title(svg, title);
  const auto ticks = ticks_of(x, range, 8);
  svg.x_axis(x, ticks, tick_labels(ticks), kTop, bottom);
  svg.text((left + right) / 2, bottom + 30, axis, "tick", "middle");
  const auto row_y = [&](size_t i) { return kTop + kRow * (static_cast<double>(i) + 0.5); };
  for (size_t i = 0; i < entries.size(); ++i)
    if (const auto& both = entries[i].both) svg.rect(x(both->low), row_y(i) - 2 * kApart, x(both->high) - x(both->low), 4 * kApart, "#e3e8ec");
  svg.line(x(0), kTop - 4, x(0), bottom, "zero");
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& entry = entries[i];
    const double y = row_y(i);
    svg.text(left - 8, y + 4, labels[i], "tick", "end");
    if (entry.upper) svg.run_bar(x(entry.upper->low), x(entry.upper->high), y - kApart, entry.style);
    if (entry.lower) svg.run_bar(x(entry.lower->low), x(entry.lower->high), y + kApart, entry.style, true);
    svg.marker(x(entry.difference), y - kApart, 4.4, entry.style, false, fmt::format("{}: {:+.5f}", entry.label, entry.difference));
    svg.marker(x(entry.difference), y + kApart, 3.6, entry.style, true);
    const bool real = entry.verdict == "better" || entry.verdict == "worse";
    svg.text(right + 10, y + 4, signed_number(entry.difference) + "  " + entry.verdict, real ? "tick best" : "tick");
  }
  return svg.to_string();
}

std::string scatter_chart(const ChartTitle& title, const std::string& x_axis, const std::string& y_axis, const std::vector<ScatterPoint>& points) {
  // Higher where there are many names to place.
  const double width_px = 1.6 * kPanelWidth, height_px = std::max(240.0, 15.0 * static_cast<double>(points.size()));
  constexpr double kLine = 13;
  Range xs, ys;
  for (const auto& point : points) {
    xs.add(point.x);
    ys.add(point.y);
    if (point.interval) ys.add(point.interval->low), ys.add(point.interval->high);
  }
  if (xs.empty()) return nothing_to_draw(title);
  const bool logarithmic = xs.low > 0 && xs.high > 3 * xs.low;
  if (logarithmic)
    xs.low /= 1.15, xs.high *= 1.15;
  else
    xs.pad(0.08);
  ys.pad(0.08);
  const auto x_ticks = logarithmic ? log_ticks(xs.low, xs.high, 8) : linear_ticks(xs.low, xs.high, 7), y_ticks = linear_ticks(ys.low, ys.high, 6);
  const auto y_labels = tick_labels(y_ticks);
  const double left = widest_px(y_labels) + 28, right = width_px - 12, bottom = kTop + height_px;
  const Scale x{xs.low, xs.high, left, right, logarithmic}, y{ys.low, ys.high, bottom, kTop};
  Svg svg(width_px, bottom + 36, title.title);
  draw_title(svg, title);
  svg.y_axis(y, y_ticks, y_labels, left, right);
  svg.x_axis(x, x_ticks, tick_labels(x_ticks), kTop, bottom);
  svg.text((left + right) / 2, bottom + 31, x_axis, "tick", "middle");
  svg.text(10, (kTop + bottom) / 2, y_axis, "tick", "middle", -90);
  for (const auto& point : points) {
    if (point.interval) svg.line(x(point.x), y(point.interval->low), x(point.x), y(point.interval->high), "axis");
    svg.marker(x(point.x), y(point.y), 5, point.style, false, fmt::format("{}: {:.4g}, {:.5f}", point.label, point.x, point.y));
  }
  // Names beside their points, from the top down. One that would lie over another moves to the nearest free place beside, above or below, with a
  // line to its point where it is far from it.
  std::vector<size_t> order(points.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return points[a].y > points[b].y; });
  struct Box {
    double x1, x2, y;
  };
  std::vector<Box> taken;
  for (size_t i : order) {
    const double width = text_width_px(points[i].label, kTickFont), at = x(points[i].x);
    Box box{};
    bool to_left = false;
    auto is_free = [&](double moved, bool left_side) {
      to_left = left_side;
      box = {left_side ? at - 10 - width : at + 10, left_side ? at - 10 : at + 10 + width, y(points[i].y) + 4 + moved};
      return box.x1 >= left && box.x2 <= right && box.y >= kTop + 8 && box.y <= bottom - 3 && std::none_of(taken.begin(), taken.end(), [&](const Box& t) {
        return box.x1 < t.x2 && t.x1 < box.x2 && std::abs(box.y - t.y) < kLine;
      });
    };
    double moved = 0;
    const auto found = [&] {
      for (double lines = 0; lines * kLine < height_px; lines += 0.5)
        for (double way : {1.0, -1.0})
          for (bool left_side : {false, true})
            if (is_free(moved = way * lines * kLine, left_side)) return true;
      return false;
    };
    if (!found()) is_free(moved = 0, at > (left + right) / 2);
    taken.push_back(box);
    if (std::abs(moved) > kLine) svg.line(at, y(points[i].y), to_left ? box.x2 + 2 : box.x1 - 2, box.y - 4, "grid");
    svg.text(to_left ? box.x2 : box.x1, box.y, points[i].label, "tick", to_left ? "end" : "start");
  }
  return svg.to_string();
}

std::string curve_chart(const ChartTitle& title, const std::vector<Curve>& curves, const std::vector<Curve>& of_axes) {
  constexpr double kHeight = 150;
  Range steps, values;
  for (const auto& curve : of_axes)
    for (const auto& [step, value] : curve.points) steps.add(step), values.add(value);
  if (values.empty()) return nothing_to_draw(title);
  steps.add(0);
  if (steps.high == 0) steps.high = 1;
  values.pad(0.06);
  const auto y_ticks = linear_ticks(values.low, values.high, 6);
  const auto y_labels = tick_labels(y_ticks);
  const double left = widest_px(y_labels) + 10, right = kPanelWidth - 18, bottom = kTop + kHeight;
  const Scale x{steps.low, steps.high, left, right}, y{values.low, values.high, bottom, kTop};
  Svg svg(kPanelWidth, bottom + 36, title.title);
  draw_title(svg, title);
  svg.y_axis(y, y_ticks, y_labels, left, right);
  const auto x_ticks = ticks_of(x, steps, 6);
  svg.x_axis(x, x_ticks, tick_labels(x_ticks), kTop, bottom);
  svg.text((left + right) / 2, bottom + 31, "training step", "tick", "middle");
  for (const auto& curve : curves) {
    std::vector<std::pair<double, double>> at;
    for (const auto& [step, value] : curve.points) at.emplace_back(x(step), y(value));
    svg.run_line(at, curve.style, 1.6);
  }
  // Markers over all lines; on long curves a few of them, at other places for each run.
  for (size_t c = 0; c < curves.size(); ++c) {
    const auto& points = curves[c].points;
    const size_t stride = std::max<size_t>(1, points.size() / 6);
    for (size_t i = 0; i < points.size(); ++i) {
      const bool chosen = curves[c].chosen_step && points[i].first == static_cast<double>(*curves[c].chosen_step);
      if (i % stride != c * stride / std::max<size_t>(1, curves.size()) && !chosen) continue;
      if (chosen) svg.ring(x(points[i].first), y(points[i].second), 7, curves[c].style);
      svg.marker(x(points[i].first), y(points[i].second), 3.6, curves[c].style);
    }
  }
  return svg.to_string();
}

namespace {

// Pairs of neighbouring bins as one: calmer to the eye.
std::vector<ReliabilityBin> halved(const std::vector<ReliabilityBin>& bins) {
  std::vector<ReliabilityBin> result;
  for (size_t b = 0; b < bins.size(); b += 2) {
    ReliabilityBin merged;
    for (size_t i = b; i < std::min(b + 2, bins.size()); ++i) {
      const double rows = static_cast<double>(bins[i].rows);
      merged.mean_prediction += rows * bins[i].mean_prediction;
      merged.positive_rate += rows * bins[i].positive_rate;
      merged.rows += bins[i].rows;
    }
    if (merged.rows == 0) continue;
    merged.mean_prediction /= static_cast<double>(merged.rows);
    merged.positive_rate /= static_cast<double>(merged.rows);
    result.push_back(merged);
  }
  return result;
}

}  // namespace

std::string reliability_chart(const ChartTitle& title, const std::vector<ReliabilityCurve>& full, const std::vector<ReliabilityCurve>& full_of_axes) {
  constexpr double kSide = 250;
  std::vector<ReliabilityCurve> curves = full, of_axes = full_of_axes;
  for (auto* list : {&curves, &of_axes})
    for (auto& curve : *list) curve.bins = halved(curve.bins);
  Range all, positive;
  for (const auto& curve : of_axes)
    for (const auto& bin : curve.bins)
      for (double value : {bin.mean_prediction, bin.positive_rate}) {
        all.add(value);
        if (value > 0) positive.add(value);
      }
  if (all.empty() || positive.empty()) return nothing_to_draw(title);
  Range predictions;
  for (const auto& curve : of_axes)
    for (const auto& bin : curve.bins)
      if (bin.mean_prediction > 0) predictions.add(bin.mean_prediction);
  const bool logarithmic = !predictions.empty() && predictions.high > 20 * predictions.low;
  Range range;
  if (logarithmic) {
    // Below a millionth nothing can be read off.
    range.low = std::max(1e-6, positive.low / 1.3);
    range.high = std::min(1.0, positive.high * 1.3);
  } else {
    range.low = 0;
    range.high = std::min(1.0, all.high * 1.08);
  }
  const auto ticks = logarithmic ? log_ticks(range.low, range.high, 5) : linear_ticks(range.low, range.high, 5);
  std::vector<std::string> labels;
  for (double tick : ticks) labels.push_back(percent_label(tick));
  const double left = widest_px(labels) + 28, right = left + kSide, bottom = kTop + kSide;
  const Scale x{range.low, range.high, left, right, logarithmic}, y{range.low, range.high, bottom, kTop, logarithmic};
  Svg svg(kPanelWidth, bottom + 36, "Reliability of " + title.title);
  draw_title(svg, title);
  svg.y_axis(y, ticks, labels, left, right);
  svg.x_axis(x, ticks, labels, kTop, bottom);
  svg.line(x(range.low), y(range.low), x(range.high), y(range.high), "diagonal");
  svg.text((left + right) / 2, bottom + 31, "mean prediction", "tick", "middle");
  svg.text(10, (kTop + bottom) / 2, "observed rate", "tick", "middle", -90);
  struct Mark {
    double x, y;
    bool on_edge;
    RunStyle style;
  };
  std::vector<Mark> marks;
  for (const auto& curve : curves) {
    std::vector<std::pair<double, double>> line;
    for (const auto& bin : curve.bins) {
      const double prediction = std::max(bin.mean_prediction, range.low);
      const bool on_edge = logarithmic && bin.positive_rate < range.low;
      marks.push_back({x(prediction), y(on_edge ? range.low : bin.positive_rate), on_edge, curve.style});
      if (!on_edge) line.emplace_back(marks.back().x, marks.back().y);
    }
    svg.run_line(line, curve.style, 1);
  }
  for (const auto& mark : marks) svg.marker(mark.x, mark.y, 3.2, mark.style, mark.on_edge);
  return svg.to_string();
}

std::string heat_map(const ChartTitle& title, const LabelledMatrix& matrix, const std::string& row_axis,
                     const std::string& column_axis) {
  constexpr double kRow = 27, kCellLeast = 46, kCellMost = 76, kLabelMost = 120, kTurn = 35;
  double largest = 0;
  bool negative = false;
  for (const auto& row : matrix.values)
    for (double value : row) largest = std::max(largest, std::abs(value)), negative |= value < 0;
  std::vector<std::string> rows, columns;
  for (const auto& name : matrix.rows) rows.push_back(shorten(name, kLabelMost, kTickFont));
  for (const auto& name : matrix.columns) columns.push_back(shorten(name, kLabelMost, kTickFont));
  const bool turned = widest_px(columns) + 10 > kCellMost;
  const double cell = turned ? kCellLeast : std::max(widest_px(columns) + 10, kCellLeast);
  const double turned_height = widest_px(columns) * std::sin(kTurn * M_PI / 180) + 8;
  const double left = widest_px(rows) + 28, top = kTop + 16 + (turned ? turned_height : 16);
  const double right = left + cell * static_cast<double>(columns.size()), bottom = top + kRow * static_cast<double>(rows.size());
  const double overhang = turned ? widest_px(columns) * std::cos(kTurn * M_PI / 180) - cell / 2 + 6 : 2;
  Svg svg(std::max(right + std::max(2.0, overhang), kPanelWidth), bottom + 6, title.title);
  draw_title(svg, title);
  svg.text((left + right) / 2, kTop + 8, column_axis, "tick", "middle");
  svg.text(10, (top + bottom) / 2, row_axis, "tick", "middle", -90);
  for (size_t j = 0; j < columns.size(); ++j) {
    const double x = left + cell * (static_cast<double>(j) + 0.5);
    if (turned)
      svg.text(x, top - 6, columns[j], "tick", "start", -kTurn);
    else
      svg.text(x, top - 6, columns[j], "tick", "middle");
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const double y = top + kRow * static_cast<double>(i);
    svg.text(left - 7, y + kRow / 2 + 4, rows[i], "tick", "end");
    for (size_t j = 0; j < columns.size(); ++j) {
      const double value = matrix.values[i][j], share = largest > 0 ? std::abs(value) / largest : 0;
      // Blue for what adds, orange for what takes away.
      const std::string fill = mix({247, 250, 253}, value < 0 ? std::array{200, 80, 0} : std::array{0, 82, 136}, share);
      const double x = left + cell * static_cast<double>(j);
      svg.rect(x + 0.5, y + 0.5, cell - 1, kRow - 1, fill,
               fmt::format("{} / {}: {:.4f}", matrix.rows[i], matrix.columns[j], value));
      svg.text(x + cell / 2, y + kRow / 2 + 4, cell_text(value, negative), share > 0.68 ? "cell inverse" : "cell", "middle");
    }
  }
  return svg.to_string();
}

std::string share_chart(const ChartTitle& title, const std::vector<std::pair<std::string, double>>& shares,
                        const std::string& axis) {
  constexpr double kRow = 22, kLabelMost = 120, kValueWidth = 44;
  std::vector<std::string> labels;
  for (const auto& [name, share] : shares) labels.push_back(shorten(name, kLabelMost, kTickFont));
  const double left = widest_px(labels) + 12, right = kPanelWidth - kValueWidth,
               bottom = kTop + kRow * static_cast<double>(shares.size());
  const Scale x{0, 1, left, right};
  Svg svg(kPanelWidth, bottom + 34, title.title);
  draw_title(svg, title);
  const auto ticks = linear_ticks(0, 1, 6);
  svg.x_axis(x, ticks, tick_labels(ticks), kTop, bottom);
  svg.text((left + right) / 2, bottom + 30, axis, "tick", "middle");
  for (size_t i = 0; i < shares.size(); ++i) {
    const double y = kTop + kRow * static_cast<double>(i), share = std::clamp(shares[i].second, 0.0, 1.0);
    svg.text(left - 8, y + kRow / 2 + 4, labels[i], "tick", "end");
    svg.rect(left, y + 4, x(share) - left, kRow - 8, RunStyle(0).color());
    svg.text(right + 8, y + kRow / 2 + 4, fmt::format("{:.3f}", shares[i].second), "tick");
  }
  return svg.to_string();
}

std::string legend_key(const RunStyle& style) {
  Svg svg(34, 14, "legend");
  svg.run_line({{1, 7}, {33, 7}}, style, 1.8);
  svg.marker(17, 7, 4, style);
  return svg.to_string();
}

}  // namespace ektm
