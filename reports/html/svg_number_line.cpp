#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "harness/contract/bf16.h"
#include "reports/html/svg.h"

namespace assay::svg {
namespace {

// labels of the interval's ends hang into the margins
constexpr double kWidth = 480;
constexpr double kMargin = 104;
constexpr double kAxisY = 40;
constexpr double kLabelHeight = 16;  // of each found value above the axis

struct Scale {
  double from;
  double to;
  double x(double value) const {
    return kMargin + std::clamp((value - from) / (to - from), 0.0, 1.0) * (kWidth - 2 * kMargin);
  }
};

/// What was found at the element's place, and by whom.
struct FoundValue {
  std::string_view by;
  double value;
};

/// Room for all values; infinite ends of the interval reach the edge of the drawing.
Scale scale_of(const Element& e, std::span<const FoundValue> found) {
  double from = e.ref;
  double to = e.ref;
  std::vector<double> values = {e.low, e.high};
  for (const FoundValue& one : found) values.push_back(one.value);
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    from = std::min(from, value);
    to = std::max(to, value);
  }
  const double room = to > from ? 0.04 * (to - from) : std::max(bf16_ulp(e.ref), std::fabs(e.ref) * 1e-3);
  return {from - room, to + room};
}

std::string bf16_ticks(const Scale& scale, double ref, double axis_y) {
  constexpr double kMost = 48;
  const double step = bf16_ulp(ref);
  if ((scale.to - scale.from) / step > kMost) return "";
  std::string out;
  for (double value = std::ceil(scale.from / step) * step; value <= scale.to; value += step)
    out += fmt::format("<line class=\"tick\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>",
                       scale.x(value), axis_y - 5, axis_y + 5);
  return out;
}

std::string label(double x, double y, std::string_view anchor, std::string_view kind,
                  const std::string& text) {
  return fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"{}\">{}</text>", kind, x, y,
                     anchor, text);
}

bool accepted(const Element& e, double value) { return e.low <= value && value <= e.high; }

/// A value's label at `y`, and a mark that points from there to its place on the axis.
std::string found_mark(const Element& e, const FoundValue& found, const Scale& scale, double y,
                       double axis_y) {
  const std::string_view kind = accepted(e, found.value) ? "good" : "bad";
  const std::string_view sign = accepted(e, found.value) ? "✔" : "✘";
  if (std::isnan(found.value))
    return label(kWidth / 2, y, "middle", "bad", fmt::format("✘ {} NaN", found.by));
  const double x = std::isfinite(found.value) ? scale.x(found.value) : found.value > 0 ? kWidth - 12 : 12;
  const double text_x = std::clamp(x, kMargin - 10, kWidth - kMargin + 10);
  std::string out = fmt::format("<path class=\"{}\" d=\"M{:.1f} {} l-6 -12 h12 z\"/>", kind, x, axis_y - 2);
  return out + label(text_x, y, "middle", kind, fmt::format("{} {} {:.8g}", sign, found.by, found.value));
}

std::string found_words(const Element& e, std::span<const FoundValue> found) {
  std::string out;
  for (const FoundValue& one : found)
    out += fmt::format("{}{} {}, {} the accepted interval", out.empty() ? "" : "; ", one.by, one.value,
                       accepted(e, one.value) ? "inside" : "outside");
  return out;
}

std::string line_with(const Element& e, std::span<const FoundValue> found) {
  if (!std::isfinite(e.ref)) return "";
  const Scale scale = scale_of(e, found);
  const double axis_y = kAxisY + kLabelHeight * static_cast<double>(found.size() - 1);
  const double low = std::isfinite(e.low) ? scale.x(e.low) : kMargin;
  const double high = std::isfinite(e.high) ? scale.x(e.high) : kWidth - kMargin;
  std::string out = fmt::format(
      "<svg class=\"line\" viewBox=\"0 0 {} {}\" role=\"img\"><title>{} {} to {}, reference {}</title>",
      kWidth, axis_y + 44, found_words(e, found), e.low, e.high, e.ref);
  out += fmt::format("<line class=\"base\" x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\"/>", 8, kWidth - 8,
                     axis_y) +
         bf16_ticks(scale, e.ref, axis_y);
  out +=
      fmt::format("<rect class=\"interval\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"12\" rx=\"2\"/>",
                  low - 1.5, axis_y - 6, high - low + 3);
  out += fmt::format("<line class=\"ref\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>",
                     scale.x(e.ref), axis_y - 9, axis_y + 26);
  out += label(low - 4, axis_y + 22, "end", "end", fmt::format("{:.6g}", e.low));
  out += label(high + 4, axis_y + 22, "start", "end", fmt::format("{:.6g}", e.high));
  out += label(scale.x(e.ref), axis_y + 40, "middle", "ref", fmt::format("reference {:.8g}", e.ref));
  double y = kLabelHeight;
  for (const FoundValue& one : found) {
    out += found_mark(e, one, scale, y, axis_y);
    y += kLabelHeight;
  }
  return out + "</svg>";
}

}  // namespace

std::string number_line(const Element& e) {
  const FoundValue found[] = {{"found", e.out}};
  return line_with(e, found);
}

std::string two_sides_line(const Element& about, std::optional<double> a, std::optional<double> b) {
  std::vector<FoundValue> found;
  if (a) found.push_back({"A", *a});
  if (b) found.push_back({"B", *b});
  return found.empty() ? "" : line_with(about, found);
}

}  // namespace assay::svg
