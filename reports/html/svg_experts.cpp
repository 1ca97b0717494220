#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/counted_words.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::svg {
namespace {

constexpr double kLeft = 74;
constexpr double kWidth = 640;
constexpr double kGap = 20;
constexpr double kTop = 12;
constexpr int kDecadesBelow = 3;

struct ExpertFigures {
  std::int64_t expert = 0;
  double ratio = 0.0;
  double share = 0.0;
  std::int64_t rejected = 0;
  std::int64_t rows = 0;
};

std::vector<ExpertFigures> figures_of(const Judgement& judgement, const std::vector<std::int64_t>& loads) {
  std::map<std::int64_t, std::int64_t> rejected(judgement.rejected_by_expert.begin(),
                                                judgement.rejected_by_expert.end());
  double rows = 0.0;
  for (const std::int64_t load : loads) rows += static_cast<double>(load);
  std::vector<ExpertFigures> all;
  for (const auto& [expert, ratio] : judgement.worst_by_expert) {
    ExpertFigures one{expert, ratio, 0.0, rejected[expert], 0};
    double part = 1.0 / static_cast<double>(judgement.worst_by_expert.size());
    if (!loads.empty()) {
      if (expert < 0 || expert >= std::ssize(loads)) return {};
      one.rows = loads[static_cast<std::size_t>(expert)];
      part = rows > 0.0 ? static_cast<double>(one.rows) / rows : 0.0;
    }
    const double elements = part * static_cast<double>(judgement.elements);
    one.share = elements > 0.0 ? std::min(1.0, static_cast<double>(one.rejected) / elements) : 0.0;
    all.push_back(one);
  }
  return all;
}

/// One of the charts: bars of `part` from 0 to 1 above a line at `y`.
struct Strip {
  std::string_view name;
  double y;
  double height;
};

}  // namespace

std::string expert_chart(const Judgement& judgement, const std::vector<std::int64_t>& loads) {
  const auto all = figures_of(judgement, loads);
  if (all.size() < 2) return "";
  double largest = 10.0;
  std::int64_t most_rows = 1;
  for (const ExpertFigures& e : all) {
    if (std::isfinite(e.ratio)) largest = std::max(largest, e.ratio);
    most_rows = std::max(most_rows, e.rows);
  }
  const double decades = kDecadesBelow + std::ceil(std::log10(largest));
  const auto log_part = [=](double ratio) {
    if (!std::isfinite(ratio)) return 1.0;
    return ratio <= 0.0 ? 0.0 : std::clamp((std::log10(ratio) + kDecadesBelow) / decades, 0.0, 1.0);
  };
  const Strip worst = {"worst", kTop + 90, 90};
  const Strip share = {"share wrong", worst.y + kGap + 34, 34};
  const Strip rows = {"rows", share.y + kGap + 34, 34};
  const double bottom = loads.empty() ? share.y : rows.y;
  const double pitch = (kWidth - kLeft) / static_cast<double>(all.size());
  const double wide = std::min(40.0, pitch - std::min(3.0, pitch * 0.2));
  std::string out = fmt::format(
      "<svg class=\"chart\" viewBox=\"0 0 {} {:.0f}\" role=\"img\"><title>by expert: worst ratio, share of "
      "elements rejected{}</title>",
      kWidth, bottom + 20, loads.empty() ? "" : ", rows");
  const auto bar = [&](const Strip& strip, std::size_t i, double part) {
    return part <= 0.0
               ? ""
               : fmt::format("M{:.1f} {:.0f}v-{:.1f}h{:.1f}V{:.0f}", kLeft + static_cast<double>(i) * pitch,
                             strip.y, std::max(1.0, strip.height * part), wide, strip.y);
  };
  const auto axis = [&](const Strip& strip, double part, const std::string& text, std::string_view kind) {
    const double y = strip.y - strip.height * part;
    out += fmt::format("<line class=\"{0}\" x1=\"{1}\" x2=\"{2}\" y1=\"{3:.1f}\" y2=\"{3:.1f}\"/>", kind,
                       kLeft, kWidth, y);
    if (!text.empty())
      out += fmt::format("<text class=\"{}\" x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
                         kind == "limit" ? kind : "", kLeft - 6, y + 4, text);
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    const ExpertFigures& e = all[i];
    out += fmt::format("<g><title>expert {}: worst {}, {} rejected ({:.3g} %){}</title>", e.expert,
                       ratio_text(e.ratio), counted(e.rejected, "element"), 100.0 * e.share,
                       loads.empty() ? "" : fmt::format(", {}", counted(e.rows, "row")));
    const bool wrong = e.rejected > 0 || !(e.ratio <= 1.0);
    const std::string above = bar(worst, i, log_part(e.ratio)) + bar(share, i, e.share);
    const std::string below =
        loads.empty() ? "" : bar(rows, i, static_cast<double>(e.rows) / static_cast<double>(most_rows));
    out += fmt::format("<path class=\"{}\" d=\"{}\"/>", wrong ? "bad" : "bar", above + (wrong ? "" : below));
    if (wrong && !below.empty()) out += fmt::format("<path class=\"bar\" d=\"{}\"/>", below);
    out += "</g>";
    if (i % std::max<std::size_t>(1, all.size() / 16) == 0)
      out += fmt::format("<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>",
                         kLeft + static_cast<double>(i) * pitch + wide / 2, bottom + 14, e.expert);
  }
  axis(worst, 0.0, fmt::format("{:g}", std::pow(10.0, -kDecadesBelow)), "base");
  axis(worst, log_part(1.0), "1", "limit");
  axis(worst, 1.0, fmt::format("{:g}", std::pow(10.0, decades - kDecadesBelow)), "grid");
  axis(share, 0.0, "wrong", "base");
  axis(share, 1.0, "100 %", "grid");
  if (!loads.empty()) {
    axis(rows, 0.0, "rows", "base");
    axis(rows, 1.0, grouped_digits(most_rows), "grid");
  }
  return out + "</svg>";
}

}  // namespace assay::svg
