#include <fmt/format.h>
#include <algorithm>
#include <cmath>

#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::svg {

std::string ulp_histogram(const Statistics& statistics) {
  constexpr double kBar = 34;
  constexpr double kPitch = 46;
  constexpr double kHeight = 48;
  constexpr double kTop = 14;
  std::int64_t most = 1;
  for (const auto& [first, count] : statistics.ulp_histogram) most = std::max(most, count);
  // One element is a hair; every factor of ten adds as much.
  const double decades = std::log10(static_cast<double>(most)) + 1.0;
  const double width = kPitch * static_cast<double>(statistics.ulp_histogram.size());
  std::string out = fmt::format(
      "<svg class=\"histogram\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "role=\"img\"><title>elements by ulps: {2}</title>",
      width, kTop + kHeight + 16, histogram_text(statistics));
  double x = 0;
  for (const auto& [first, count] : statistics.ulp_histogram) {
    const double height =
        kHeight * (std::log10(static_cast<double>(std::max<std::int64_t>(count, 1))) + 1.0) / decades;
    out += fmt::format("<rect class=\"{}\" x=\"{:.0f}\" y=\"{:.1f}\" width=\"{}\" height=\"{:.1f}\"/>",
                       first == 0 ? "good" : "bar", x, kTop + kHeight - height, kBar, height);
    out += fmt::format(
        "<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", x + kBar / 2,
        kTop + kHeight - height - 3,
        count < 10000 ? std::to_string(count) : fmt::format("{:.0e}", static_cast<double>(count)));
    out += fmt::format("<text class=\"end\" x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>",
                       x + kBar / 2, kTop + kHeight + 13, bucket_text(first));
    x += kPitch;
  }
  return out + "</svg>";
}

std::string share_meter(double share) {
  const double part = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0.0;
  return fmt::format(
      "<svg class=\"meter\" viewBox=\"0 0 48 8\" role=\"img\"><title>{:.3g} %</title><rect class=\"bar\" "
      "x=\"0\" y=\"0\" width=\"{:.1f}\" height=\"8\"/></svg>",
      100.0 * part, 48.0 * part);
}

}  // namespace assay::svg
