#pragma once
// Drawing on one SVG: marks, axes, text. Coordinates in px, y downwards. Class names refer to the style sheet of report.cpp.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ektm {

// & < > " ' as references: safe in HTML text and attributes.
std::string escape_html(std::string_view text);
// An upper estimate for a sans-serif font of `font_px`.
double text_width_px(std::string_view text, double font_px);
// `text`, or its beginning and end around "…" where it is wider than `max_px` (names of runs often differ in their ends only).
std::string shorten(const std::string& text, double max_px, double font_px);

// How a run looks in every chart: colour (Okabe & Ito's colour-blind safe palette), dash and marker, each of kRunStyles kinds, so that
// black-and-white prints stay readable. After so many runs markers are hollow.
inline constexpr size_t kRunStyles = 8;
struct RunStyle {
  explicit RunStyle(size_t run) : number(run) {}
  std::string color() const;
  std::string dash() const;  // the value of stroke-dasharray
  size_t number;
};

// Maps [low, high] to [from, to] px.
struct Scale {
  double low, high, from, to;
  bool logarithmic = false;
  double operator()(double value) const;
};

// Multiples of 1, 2 or 5 times a power of ten in [low, high], low < high: 2 to `most` of them (most >= 5).
std::vector<double> linear_ticks(double low, double high, int most);
// The same for a logarithmic axis, 0 < low < high: powers of ten, with 2 and 5 or 3 between them where these are at most `most`.
std::vector<double> log_ticks(double low, double high, int most);
// Labels of the ticks, all with as many decimals as they need; from 10,000 on as "15k", "2.5M".
std::vector<std::string> tick_labels(const std::vector<double>& ticks);
// 0.002 -> "0.2 %".
std::string percent_label(double share);
// "+0.0013". Nearer to 0 than four decimals show, "+0.00003": of an interval's end it decides on which side of 0 it lies.
std::string signed_number(double value);

class Svg {
 public:
  // `description` is read out by screen readers.
  Svg(double width, double height, const std::string& description);
  void line(double x1, double y1, double x2, double y2, std::string_view css_class);
  void text(double x, double y, const std::string& content, std::string_view css_class, std::string_view anchor = "start",
            double rotate = 0);
  void rect(double x, double y, double width, double height, const std::string& fill, const std::string& tooltip = "");
  void run_line(const std::vector<std::pair<double, double>>& points, const RunStyle& style, double stroke_px);
  // A horizontal interval with end caps.
  void run_bar(double x1, double x2, double y, const RunStyle& style, bool dashed = false);
  // `hollow`: outline only.
  void marker(double x, double y, double radius, const RunStyle& style, bool hollow = false, const std::string& tooltip = "");
  void ring(double x, double y, double radius, const RunStyle& style);
  // The frame's left and bottom axis with ticks, labels and grid lines.
  void x_axis(const Scale& scale, const std::vector<double>& ticks, const std::vector<std::string>& labels, double top,
              double bottom);
  void y_axis(const Scale& scale, const std::vector<double>& ticks, const std::vector<std::string>& labels, double left,
              double right);
  std::string to_string() const { return body_ + "</svg>\n"; }

 private:
  std::string body_;
};

}  // namespace ektm
