#include <fmt/format.h>
#include <algorithm>
#include <cmath>

#include "harness/contract/bf16.h"
#include "reports/html/svg.h"

namespace assay::svg {
namespace {

// labels of the interval's ends hang into the margins
constexpr double kWidth = 480;
constexpr double kMargin = 104;
constexpr double kAxisY = 40;

struct Scale {
  double from;
  double to;
  double x(double value) const {
    return kMargin + std::clamp((value - from) / (to - from), 0.0, 1.0) * (kWidth - 2 * kMargin);
  }
};

/// Room for all four values; infinite ends of the interval reach the edge of the drawing.
Scale scale_of(const Element& e) {
  double from = e.ref;
  double to = e.ref;
  for (const double value : {e.low, e.high, e.out}) {
    if (!std::isfinite(value)) continue;
    from = std::min(from, value);
    to = std::max(to, value);
  }
  const double room = to > from ? 0.04 * (to - from) : std::max(bf16_ulp(e.ref), std::fabs(e.ref) * 1e-3);
  return {from - room, to + room};
}

std::string bf16_ticks(const Scale& scale, double ref) {
  constexpr double kMost = 48;
  const double step = bf16_ulp(ref);
  if ((scale.to - scale.from) / step > kMost) return "";
  std::string out;
  for (double value = std::ceil(scale.from / step) * step; value <= scale.to; value += step)
    out += fmt::format("<line class=\"tick\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>",
                       scale.x(value), kAxisY - 5, kAxisY + 5);
  return out;
}

std::string label(double x, double y, std::string_view anchor, std::string_view kind,
                  const std::string& text) {
  return fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"{}\">{}</text>", kind, x, y,
                     anchor, text);
}

}  // namespace

std::string number_line(const Element& e) {
  if (!std::isfinite(e.ref)) return "";
  const Scale scale = scale_of(e);
  const bool accepted = e.low <= e.out && e.out <= e.high;
  const double low = std::isfinite(e.low) ? scale.x(e.low) : kMargin;
  const double high = std::isfinite(e.high) ? scale.x(e.high) : kWidth - kMargin;
  std::string out = fmt::format(
      "<svg class=\"line\" viewBox=\"0 0 {} 84\" role=\"img\"><title>found {}, {} the accepted interval {} "
      "to {}, reference {}</title>",
      kWidth, e.out, accepted ? "inside" : "outside", e.low, e.high, e.ref);
  out += fmt::format("<line class=\"base\" x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\"/>", 8, kWidth - 8,
                     kAxisY) +
         bf16_ticks(scale, e.ref);
  out +=
      fmt::format("<rect class=\"interval\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"12\" rx=\"2\"/>",
                  low - 1.5, kAxisY - 6, high - low + 3);
  out += fmt::format("<line class=\"ref\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>",
                     scale.x(e.ref), kAxisY - 9, kAxisY + 26);
  out += label(low - 4, kAxisY + 22, "end", "end", fmt::format("{:.6g}", e.low));
  out += label(high + 4, kAxisY + 22, "start", "end", fmt::format("{:.6g}", e.high));
  out += label(scale.x(e.ref), kAxisY + 40, "middle", "ref", fmt::format("reference {:.8g}", e.ref));
  if (std::isnan(e.out)) return out + label(kWidth / 2, 16, "middle", "bad", "✘ found NaN") + "</svg>";
  const double x = std::isfinite(e.out) ? scale.x(e.out) : e.out > 0 ? kWidth - 12 : 12;
  const double text_x = std::clamp(x, kMargin - 10, kWidth - kMargin + 10);
  out += fmt::format("<path class=\"{}\" d=\"M{:.1f} {} l-6 -12 h12 z\"/>", accepted ? "good" : "bad", x,
                     kAxisY - 2);
  return out +
         label(text_x, 16, "middle", accepted ? "good" : "bad",
               fmt::format("{} found {:.8g}", accepted ? "✔" : "✘", e.out)) +
         "</svg>";
}

}  // namespace assay::svg
