#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace ektm {
namespace {

constexpr std::array<const char*, kRunStyles> kColors = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                         "#e69f00", "#56b4e9", "#000000", "#7a5230"};
constexpr std::array<const char*, kRunStyles> kDashes = {"none", "7 3", "2 2", "9 3 2 3", "4 2", "12 4", "1 3", "6 2 1 2 1 2"};

// Start bytes of the code points of UTF-8, and the end.
std::vector<size_t> code_points(std::string_view text) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) starts.push_back(i);
  starts.push_back(text.size());
  return starts;
}

std::string polygon(const std::vector<std::pair<double, double>>& corners) {
  std::string points;
  for (const auto& [x, y] : corners) points += fmt::format("{:.1f},{:.1f} ", x, y);
  points.pop_back();
  return fmt::format("<polygon points=\"{}\"", points);
}

// The open tag of the marker's shape around (x, y); shapes have about the same area.
std::string shape(size_t kind, double x, double y, double r) {
  switch (kind % kRunStyles) {
    case 0:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"", x, y, r);
    case 1:
      return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"", x - 0.9 * r, y - 0.9 * r, 1.8 * r,
                         1.8 * r);
    case 2:
      return polygon({{x, y - 1.2 * r}, {x + 1.15 * r, y + 0.9 * r}, {x - 1.15 * r, y + 0.9 * r}});
    case 3:
      return polygon({{x, y - 1.3 * r}, {x + 1.3 * r, y}, {x, y + 1.3 * r}, {x - 1.3 * r, y}});
    case 4:
      return polygon({{x, y + 1.2 * r}, {x + 1.15 * r, y - 0.9 * r}, {x - 1.15 * r, y - 0.9 * r}});
    case 5: {  // a plus
      const double a = 0.45 * r, b = 1.25 * r;
      return polygon({{x - a, y - b},
                      {x + a, y - b},
                      {x + a, y - a},
                      {x + b, y - a},
                      {x + b, y + a},
                      {x + a, y + a},
                      {x + a, y + b},
                      {x - a, y + b},
                      {x - a, y + a},
                      {x - b, y + a},
                      {x - b, y - a},
                      {x - a, y - a}});
    }
    case 6: {  // a star
      std::vector<std::pair<double, double>> corners;
      for (int i = 0; i < 10; ++i) {
        const double radius = i % 2 ? 0.6 * r : 1.4 * r, angle = M_PI * (i / 5.0 - 0.5);
        corners.emplace_back(x + radius * std::cos(angle), y + radius * std::sin(angle));
      }
      return polygon(corners);
    }
    default:
      return polygon(
          {{x - 1.3 * r, y - 0.8 * r}, {x + 1.3 * r, y - 0.8 * r}, {x + 0.7 * r, y + 0.9 * r}, {x - 0.7 * r, y + 0.9 * r}});
  }
}

std::string tooltip_element(const std::string& tooltip) {
  return tooltip.empty() ? "" : "<title>" + escape_html(tooltip) + "</title>";
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string result;
  for (char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

double text_width_px(std::string_view text, double font_px) {
  return 0.6 * font_px * static_cast<double>(code_points(text).size() - 1);
}

std::string shorten(const std::string& text, double max_px, double font_px) {
  if (text_width_px(text, font_px) <= max_px) return text;
  const auto starts = code_points(text);
  const size_t kept = static_cast<size_t>(std::max(2.0, max_px / (0.6 * font_px) - 1)), head = kept / 2, tail = kept - head;
  return text.substr(0, starts[head]) + "…" + text.substr(starts[starts.size() - 1 - tail]);
}

std::string RunStyle::color() const {
  return kColors[number % kRunStyles];
}
std::string RunStyle::dash() const {
  return kDashes[number % kRunStyles];
}

double Scale::operator()(double value) const {
  const double share = logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
  return from + share * (to - from);
}

std::vector<double> linear_ticks(double low, double high, int most) {
  const double slack = 1e-9 * (high - low);
  // The finest step that gives few enough ticks. The next coarser one is 2.5 times as large at most, so there are at least 2
  // ticks.
  for (int exponent = static_cast<int>(std::floor(std::log10((high - low) / most))) - 1;; ++exponent)
    for (double factor : {1.0, 2.0, 5.0}) {
      const double step = factor * std::pow(10, exponent);
      const int64_t first = std::llround(std::ceil((low - slack) / step)), last = std::llround(std::floor((high + slack) / step));
      if (last - first + 1 > most) continue;
      std::vector<double> ticks;
      for (int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
      return ticks;
    }
}

std::vector<double> log_ticks(double low, double high, int most) {
  const int first = static_cast<int>(std::floor(std::log10(low))), last = static_cast<int>(std::ceil(std::log10(high)));
  auto inside = [&](const std::vector<int>& factors, int stride) {
    std::vector<double> ticks;
    for (int exponent = first; exponent <= last; ++exponent)
      for (int factor : factors) {
        // Divided by the exact power where it is negative: 1 / 100 prints as 0.01, 1 * pow(10, -2) need not.
        const double power = std::pow(10, std::abs(exponent)), tick = exponent < 0 ? factor / power : factor * power;
        if (exponent % stride == 0 && tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push_back(tick);
      }
    return ticks;
  };
  auto fits = [&](const std::vector<double>& ticks) { return static_cast<int>(ticks.size()) <= most; };
  for (const auto& factors : {std::vector{1, 2, 5}, std::vector{1, 3}})
    if (const auto ticks = inside(factors, 1); fits(ticks)) return ticks.size() > 1 ? ticks : linear_ticks(low, high, most);
  for (int stride = 1;; ++stride)
    if (const auto ticks = inside({1}, stride); fits(ticks)) return ticks;
}

std::vector<std::string> tick_labels(const std::vector<double>& ticks) {
  double largest = 0;
  for (double tick : ticks) largest = std::max(largest, std::abs(tick));
  const auto [unit, suffix] = largest >= 1e6 ? std::pair(1e6, "M") : largest >= 1e4 ? std::pair(1e3, "k") : std::pair(1.0, "");
  int decimals = 0;
  auto needs_more = [&, unit = unit](double tick) {
    const double shifted = tick / unit * std::pow(10, decimals);
    return std::abs(shifted - std::round(shifted)) > 1e-6 * std::max(1.0, std::abs(shifted));
  };
  while (decimals < 9 && std::any_of(ticks.begin(), ticks.end(), needs_more)) ++decimals;
  std::vector<std::string> labels;
  for (double tick : ticks) labels.push_back(tick == 0 ? "0" : fmt::format("{:.{}f}{}", tick / unit, decimals, suffix));
  return labels;
}

std::string percent_label(double share) {
  return fmt::format("{:.6g} %", 100 * share);
}

std::string signed_number(double value) {
  for (int decimals = 4; decimals <= 5; ++decimals)
    if (std::abs(value) >= 0.5 * std::pow(10, -decimals)) return fmt::format("{:+.{}f}", value, decimals);
  return "0.0000";
}

Svg::Svg(double width, double height, const std::string& description) {
  body_ = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} "
      "{1:.0f}\" "
      "aria-label=\"{2}\">\n",
      width, height, escape_html(description));
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  body_ +=
      fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", css_class, x1, y1, x2, y2);
}

void Svg::text(double x, double y, const std::string& content, std::string_view css_class, std::string_view anchor,
               double rotate) {
  const std::string transform = rotate != 0 ? fmt::format(" transform=\"rotate({:.0f} {:.1f} {:.1f})\"", rotate, x, y) : "";
  body_ += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", css_class, x, y, anchor,
                       transform, escape_html(content));
}

void Svg::rect(double x, double y, double width, double height, const std::string& fill, const std::string& tooltip) {
  body_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\">{}</rect>\n", x, y, width,
                       height, fill, tooltip_element(tooltip));
}

void Svg::run_line(const std::vector<std::pair<double, double>>& points, const RunStyle& style, double stroke_px) {
  std::string list;
  for (const auto& [x, y] : points) list += fmt::format("{:.1f},{:.1f} ", x, y);
  if (list.empty()) return;
  list.pop_back();
  body_ += fmt::format(
      "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-dasharray=\"{}\" "
      "stroke-linejoin=\"round\"/>\n",
      list, style.color(), stroke_px, style.dash());
}

void Svg::run_bar(double x1, double x2, double y, const RunStyle& style, bool dashed) {
  body_ += fmt::format(
      "<path d=\"M{0:.1f} {2:.1f}H{1:.1f}M{0:.1f} {3:.1f}v7M{1:.1f} {3:.1f}v7\" stroke=\"{4}\" stroke-width=\"1.6\"{5} "
      "fill=\"none\"/>\n",
      x1, x2, y, y - 3.5, style.color(), dashed ? " stroke-dasharray=\"4 2.5\"" : "");
}

void Svg::marker(double x, double y, double radius, const RunStyle& style, bool hollow, const std::string& tooltip) {
  const bool outline = hollow || style.number >= kRunStyles;
  body_ += fmt::format("{} fill=\"{}\" stroke=\"{}\" stroke-width=\"{}\">{}</{}>\n", shape(style.number, x, y, radius),
                       outline ? "#ffffff" : style.color(), outline ? style.color() : "#ffffff", outline ? "1.4" : "0.7",
                       tooltip_element(tooltip),
                       style.number % kRunStyles == 0   ? "circle"
                       : style.number % kRunStyles == 1 ? "rect"
                                                        : "polygon");
}

void Svg::ring(double x, double y, double radius, const RunStyle& style) {
  body_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.4\"/>\n", x,
                       y, radius, style.color());
}

void Svg::x_axis(const Scale& scale, const std::vector<double>& ticks, const std::vector<std::string>& labels, double top,
                 double bottom) {
  for (size_t i = 0; i < ticks.size(); ++i) {
    line(scale(ticks[i]), top, scale(ticks[i]), bottom, "grid");
    line(scale(ticks[i]), bottom, scale(ticks[i]), bottom + 4, "axis");
    text(scale(ticks[i]), bottom + 15, labels[i], "tick", "middle");
  }
  line(scale.from, bottom, scale.to, bottom, "axis");
}

void Svg::y_axis(const Scale& scale, const std::vector<double>& ticks, const std::vector<std::string>& labels, double left,
                 double right) {
  for (size_t i = 0; i < ticks.size(); ++i) {
    line(left, scale(ticks[i]), right, scale(ticks[i]), "grid");
    line(left - 4, scale(ticks[i]), left, scale(ticks[i]), "axis");
    text(left - 7, scale(ticks[i]) + 3.8, labels[i], "tick", "end");
  }
  line(left, scale.from, left, scale.to, "axis");
}

}  // namespace ektm
