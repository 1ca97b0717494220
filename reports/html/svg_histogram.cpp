#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::svg {

namespace {

struct UlpColumn {
  std::string name;
  std::string kind;
  std::int64_t count = 0;
};

/// From the farthest on the side of zero, over 0, to the farthest away from it; only distances where the
/// report does not know the side.
std::vector<UlpColumn> columns_of(const Statistics& statistics) {
  std::vector<UlpColumn> columns;
  const std::map<std::int64_t, std::int64_t> inward(statistics.ulps_inward.begin(),
                                                    statistics.ulps_inward.end());
  if (!inward.empty())
    for (auto bucket = statistics.ulp_histogram.rbegin(); bucket != statistics.ulp_histogram.rend(); ++bucket)
      if (const std::int64_t first = bucket->first; first > 0)
        columns.push_back(
            {"−" + std::to_string(first), "inward", inward.contains(first) ? inward.at(first) : 0});
  for (const auto& [first, count] : statistics.ulp_histogram) {
    const std::int64_t others = first > 0 && inward.contains(first) ? inward.at(first) : 0;
    columns.push_back({inward.empty() || first == 0 ? bucket_text(first) : "+" + std::to_string(first),
                       first == 0 ? "good" : "bar", count - others});
  }
  return columns;
}

}  // namespace

std::string ulp_histogram(const Statistics& statistics) {
  constexpr int kBar = 34;    // as the style sheet draws a column's line
  constexpr int kPitch = 43;  // the widest name is six letters; 27 columns fit a page
  constexpr int kBase = 62;
  constexpr int kHeight = 48;
  const auto columns = columns_of(statistics);
  std::int64_t most = 1;
  for (const UlpColumn& column : columns) most = std::max(most, column.count);
  // One element is a hair; every factor of ten adds as much.
  const double decades = std::log10(static_cast<double>(most)) + 1.0;
  // Every column is read aloud, its name behind its count.
  std::string out = fmt::format(
      "<svg class=\"histogram\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\"><title>elements by "
      "ulps</title>",
      kPitch * std::ssize(columns), kBase + 16);
  int middle = kBar / 2;
  for (const auto& [name, kind, count] : columns) {
    const auto height = static_cast<int>(
        std::lround(count <= 0 ? 0.0 : kHeight * (std::log10(static_cast<double>(count)) + 1.0) / decades));
    if (height > 0) out += fmt::format("<path class=\"{}\" d=\"M{} {}v-{}\"/>", kind, middle, kBase, height);
    out +=
        fmt::format("<text x=\"{0}\" y=\"{1}\">{2}</text><text class=\"end\" x=\"{0}\" y=\"{3}\">{4}</text>",
                    middle, kBase - 3 - height,
                    count < 10000 ? std::to_string(count) : fmt::format("{:.0e}", static_cast<double>(count)),
                    kBase + 13, name);
    middle += kPitch;
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
