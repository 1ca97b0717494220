#include "reports/html/svg.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

#include "reports/escape.h"
#include "reports/wording.h"

namespace assay::svg {
namespace {

constexpr double kBarsWidth = 240;
constexpr int kDecadesBelow = 3;

double axis_x(const RatioAxis& axis, double ratio) {
  const double decades = kDecadesBelow + axis.decades_above;
  if (!(ratio > 0)) return std::isnan(ratio) ? kBarsWidth : 0;
  return std::clamp((std::log10(ratio) + kDecadesBelow) / decades, 0.0, 1.0) * kBarsWidth;
}

std::string ratio_bar(const Judgement& judgement, std::string_view way, double y, const RatioAxis& axis) {
  if (!compared(judgement.verdict) || judgement.elements == 0) return "";
  constexpr std::string_view kinds[] = {"good", "bad", "doubt", "absent"};
  // A ratio of zero keeps a hair, so that a judged field looks judged.
  return fmt::format("<rect class=\"{} {}\" x=\"0\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"8\" rx=\"2\"/>",
                     way, kinds[static_cast<std::size_t>(mark(judgement.verdict))], y,
                     std::max(2.0, axis_x(axis, judgement.max_ratio)));
}

std::string share(std::string_view kind, double& x, std::int64_t part, std::int64_t all) {
  if (part == 0 || all == 0) return "";
  const double width = std::max(2.0, 48.0 * static_cast<double>(part) / static_cast<double>(all));
  const double start = std::min(x, 48.0 - width);
  x = start + width;
  return fmt::format("<rect class=\"{}\" x=\"{:.2f}\" y=\"0\" width=\"{:.2f}\" height=\"8\"/>", kind, start,
                     width);
}

}  // namespace

RatioAxis ratio_axis(const CaseResult& result) {
  double largest = 1;
  for (const FieldResult& field : result.fields)
    for (const Judgement* judgement : {&field.isolated, &field.chained})
      if (std::isfinite(judgement->max_ratio)) largest = std::max(largest, judgement->max_ratio);
  return {std::clamp(static_cast<int>(std::ceil(std::log10(largest))), 1, 6)};
}

std::string axis_labels(const RatioAxis& axis) {
  std::string out =
      fmt::format("<svg class=\"axis\" viewBox=\"-14 0 {:.0f} 16\" aria-hidden=\"true\">", kBarsWidth + 28);
  for (int decade = -kDecadesBelow; decade <= axis.decades_above; ++decade) {
    // Far-reaching axes label every other decade, always the one of 1.
    if (axis.decades_above > 2 && decade % 2 != 0) continue;
    const double ratio = std::pow(10.0, decade);
    out += fmt::format("<text x=\"{:.1f}\" y=\"12\" text-anchor=\"middle\"{}>{:g}</text>",
                       axis_x(axis, ratio), decade == 0 ? " class=\"limit\"" : "", ratio);
  }
  return out + "</svg>";
}

std::string ratio_bars(const FieldResult& result, const RatioAxis& axis) {
  const auto said = [](const Judgement& j) {
    return compared(j.verdict) && j.elements > 0 ? ratio_text(j.max_ratio) : "not judged";
  };
  std::string out = fmt::format(
      "<svg class=\"bars\" viewBox=\"-14 0 {:.0f} 24\" role=\"img\"><title>{}: isolated {}, chained {}, "
      "limit 1</title>",
      kBarsWidth + 28, name(result.field), said(result.isolated), said(result.chained));
  std::string grid;
  for (int decade = -kDecadesBelow; decade <= axis.decades_above; ++decade)
    if (decade != 0) grid += fmt::format("M{:.1f} 0v24", axis_x(axis, std::pow(10.0, decade)));
  out += fmt::format(
      "<path class=\"grid\" d=\"{0}\"/><line class=\"limit\" x1=\"{1:.1f}\" x2=\"{1:.1f}\" y1=\"0\" "
      "y2=\"24\"/>",
      grid, axis_x(axis, 1.0));
  return out + ratio_bar(result.isolated, "isolated", 3, axis) +
         ratio_bar(result.chained, "chained", 13, axis) + "</svg>";
}

std::string bits_meter(const Prediction& prediction) {
  double x = 0;
  std::string out = fmt::format("<svg class=\"meter\" viewBox=\"0 0 48 8\" role=\"img\"><title>{}</title>",
                                prediction_text(prediction));
  out += share("good", x, prediction.as_predicted, prediction.elements);
  out += share("absent", x, prediction.undetermined, prediction.elements);
  out += share(prediction.binding ? "doubt" : "note", x, prediction.differing, prediction.elements);
  return out + "</svg>";
}

std::string trend_line(const std::vector<double>& ratios, const std::string& title) {
  constexpr double kWidth = 200;
  constexpr double kHeight = 32;
  constexpr double kTop = 4;
  constexpr double kBottom = 28;
  if (ratios.empty()) return "";
  // Three decades below the limit and one above, as the bars of the cases have them.
  const auto y = [](double ratio) {
    return std::isnan(ratio) ? kTop : kBottom - (kBottom - kTop) * axis_x({1}, ratio) / kBarsWidth;
  };
  const auto x = [&](std::size_t i) {
    return ratios.size() == 1
               ? kWidth - 6
               : 6 + (kWidth - 12) * static_cast<double>(i) / static_cast<double>(ratios.size() - 1);
  };
  std::string out = fmt::format("<svg class=\"trend\" viewBox=\"0 0 {} {}\" role=\"img\"><title>{}</title>",
                                kWidth, kHeight, escaped(title));
  out += fmt::format(
      "<line class=\"limit\" x1=\"0\" x2=\"{0}\" y1=\"{1:.1f}\" y2=\"{1:.1f}\"/><polyline points=\"", kWidth,
      y(1));
  for (std::size_t i = 0; i < ratios.size(); ++i) out += fmt::format("{:.1f},{:.1f} ", x(i), y(ratios[i]));
  return out + fmt::format("\"/><circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/></svg>",
                           ratios.back() <= 1 ? "good" : "bad", x(ratios.size() - 1), y(ratios.back()));
}

std::string bar_chart(const std::vector<Bar>& bars, BarScale scale, const std::string& title) {
  constexpr double kLeft = 60;
  constexpr double kTop = 8;
  constexpr double kHeight = 96;
  constexpr double kWidth = 640;
  if (bars.empty()) return "";
  double largest = 0;
  double sum = 0;
  for (const Bar& bar : bars) {
    if (std::isfinite(bar.value)) largest = std::max(largest, bar.value);
    sum += bar.value;
  }
  const double line = scale == BarScale::Ratios ? 1.0 : sum / static_cast<double>(bars.size());
  const double top = std::max({largest, line, 1e-300}) * 1.05;
  const double pitch = (kWidth - kLeft) / static_cast<double>(bars.size());
  const auto y = [&](double value) {
    return kTop + kHeight * (1 - std::min(1.0, std::isfinite(value) ? value / top : 1.0));
  };
  std::string out = fmt::format("<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\"><title>{}</title>",
                                kWidth, kTop + kHeight + 20, escaped(title));
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const bool over = scale == BarScale::Ratios && !(bars[i].value <= 1);
    const double gap = std::min(3.0, pitch * 0.2);
    const double height = kTop + kHeight - y(bars[i].value);
    if (bars[i].value != 0)
      out += fmt::format(
          "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"><title>expert {}: "
          "{:.4g}</title></rect>",
          over ? "bad" : "bar", kLeft + static_cast<double>(i) * pitch,
          kTop + kHeight - std::max(1.0, height), std::min(40.0, pitch - gap), std::max(1.0, height),
          bars[i].label, bars[i].value);
    const std::size_t every = std::max<std::size_t>(1, bars.size() / 16);
    if (i % every == 0)
      out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>",
                         kLeft + static_cast<double>(i) * pitch + std::min(40.0, pitch - gap) / 2,
                         kTop + kHeight + 14, bars[i].label);
  }
  out += fmt::format("<line class=\"base\" x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\"/>", kLeft, kWidth,
                     kTop + kHeight);
  const std::string_view line_kind = scale == BarScale::Ratios ? "limit" : "mean";
  out += fmt::format("<line class=\"{3}\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>", kLeft,
                     kWidth, y(line), line_kind);
  const auto label = [&](double value, std::string_view kind) {
    out += fmt::format("<text class=\"{}\" x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.3g}</text>", kind,
                       kLeft - 6, y(value) + 4, value);
  };
  label(line, line_kind);
  if (std::fabs(y(largest) - y(line)) > 12) label(largest, "");
  return out + "</svg>";
}

}  // namespace assay::svg
