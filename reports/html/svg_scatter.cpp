#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::svg {
namespace {

constexpr double kSize = 190;
constexpr double kLeft = 10;
constexpr double kTop = 16;
constexpr double kBeyond = 1.5;  // times the references' span: what lies farther out is drawn at the edge

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  void include(double x) {
    if (!std::isfinite(x)) return;
    low = std::min(low, x);
    high = std::max(high, x);
  }
  double place(double x) const { return std::clamp((x - low) / (high - low), 0.0, 1.0) * kSize; }
};

Range range_of(const ErrorPattern& pattern) {
  Range wanted;
  Range all;
  for (const auto* values : {&pattern.rejected, &pattern.sampled})
    for (const auto& [reference, candidate] : *values) {
      wanted.include(reference);
      all.include(reference);
      all.include(candidate);
    }
  const double room = kBeyond * (wanted.high - wanted.low);
  if (room > 0.0) {
    all.low = std::max(all.low, wanted.low - room);
    all.high = std::min(all.high, wanted.high + room);
  }
  if (!(all.high > all.low)) return {all.low - 1.0, all.low + 1.0};
  const double margin = 0.03 * (all.high - all.low);
  return {all.low - margin, all.high + margin};
}

std::string points(const std::vector<std::pair<double, double>>& values, const Range& range,
                   std::string_view kind) {
  // In whole pixels and in their order, each once: of hundreds of points on a line most fall together.
  std::set<std::pair<int, int>> pixels;
  for (const auto& [reference, candidate] : values)
    if (std::isfinite(reference) && !std::isnan(candidate))
      pixels.emplace(std::lround(kLeft + range.place(reference)), std::lround(range.place(candidate)));
  std::string path;
  for (const auto& [x, y] : pixels) path += fmt::format("M{} {}h0", x, kTop + kSize - y);
  return path.empty() ? "" : fmt::format("<path class=\"points {}\" d=\"{}\"/>", kind, path);
}

}  // namespace

std::string got_against_want(const ErrorPattern& pattern) {
  const Range range = range_of(pattern);
  if (!std::isfinite(range.low) || !std::isfinite(range.high) || pattern.rejected.empty()) return "";
  std::string out = fmt::format(
      "<svg class=\"scatter\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "role=\"img\"><title>the candidate's values against the reference's, {2} rejected elements and {3} of "
      "all</title>",
      kLeft + kSize + 10, kTop + kSize + 20, pattern.rejected.size(), pattern.sampled.size());
  out += fmt::format(
      "<rect class=\"ground\" x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{2}\"/><path class=\"equal\" "
      "d=\"M{0} {3}L{4} {1}\"/>",
      kLeft, kTop, kSize, kTop + kSize, kLeft + kSize);
  out += points(pattern.sampled, range, "sampled") + points(pattern.rejected, range, "rejected");
  const auto text = [&](double x, double y, std::string_view anchor, const std::string& words) {
    out += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"{}\">{}</text>", x, y, anchor, words);
  };
  text(kLeft, kTop - 5, "start", "↑ got");
  text(kLeft + kSize, kTop + kSize + 14, "end", "want →");
  text(kLeft, kTop + kSize + 14, "start", fmt::format("{:.3g} to {:.3g}", range.low, range.high));
  return out + "</svg>";
}

std::string k_blocks_chart(const std::vector<KBlock>& blocks) {
  constexpr double kWidth = 560;
  constexpr double kHeight = 70;
  constexpr double kAxis = 34;
  constexpr double kAbove = 8;
  if (blocks.empty() || blocks.back().end <= 0) return "";
  double low = -0.1;
  double high = 1.1;
  for (const KBlock& block : blocks) {
    if (!std::isfinite(block.missing)) return "";
    low = std::min(low, block.missing);
    high = std::max(high, block.missing);
  }
  const double all = static_cast<double>(blocks.back().end);
  const auto y = [&](double share) { return kAbove + kHeight * (1.0 - (share - low) / (high - low)); };
  const auto x = [&](std::int64_t k) { return kAxis + (kWidth - kAxis) * static_cast<double>(k) / all; };
  std::string out = fmt::format(
      "<svg class=\"chart\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\"><title>missing share of each of {} "
      "blocks of K</title>",
      kWidth, kAbove + kHeight + 20, blocks.size());
  for (const KBlock& block : blocks) {
    if (block.begin < 0 || block.end <= block.begin) return "";
    const double zero = y(0.0);
    const double top = y(block.missing);
    const bool matters = std::fabs(block.missing) > 6.0 * block.deviation && std::fabs(block.missing) > 0.01;
    out += fmt::format(
        "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"><title>K {} to {}: "
        "{:.3g} ± {:.2g}</title></rect>",
        matters ? "bad" : "bar", x(block.begin), std::min(zero, top),
        std::max(0.5, x(block.end) - x(block.begin) - 0.5), std::max(1.0, std::fabs(zero - top)), block.begin,
        block.end - 1, block.missing, block.deviation);
  }
  for (const double share : {0.0, 1.0})
    out += fmt::format(
        "<line class=\"{0}\" x1=\"{1}\" x2=\"{2}\" y1=\"{3:.1f}\" y2=\"{3:.1f}\"/><text x=\"{4}\" "
        "y=\"{5:.1f}\" "
        "text-anchor=\"end\">{6:g}</text>",
        share == 0.0 ? "base" : "mean", kAxis, kWidth, y(share), kAxis - 5, y(share) + 4, share);
  out += fmt::format(
      "<text x=\"{}\" y=\"{:.0f}\">K 0</text><text x=\"{}\" y=\"{:.0f}\" text-anchor=\"end\">{}</text>",
      kAxis, kAbove + kHeight + 15, kWidth, kAbove + kHeight + 15, blocks.back().end);
  return out + "</svg>";
}

}  // namespace assay::svg
