#include <algorithm>
#include <cmath>
#include <span>

#include <fmt/format.h>

#include "harness/contract/error_grid.h"
#include "reports/escape.h"
#include "reports/html/html_case.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

// pixels
constexpr double kLargeMap = 512;
constexpr double kSmallMap = 288;
constexpr double kDetailMap = 256;

constexpr std::size_t kWorstInherited = 3;  // elements, where cases are packed

/// What a click on a map needs to say where an element is, and how explain takes it.
std::string map_data(const CaseResult& c, const FieldResult& f, std::size_t index, bool isolated) {
  std::string axes;
  for (std::size_t axis = 0; axis < rank_of(f.field); ++axis)
    axes += fmt::format("{}{}", axis == 0 ? "" : " ", axis_name(f.field, axis));
  std::string data = fmt::format(" data-case=\"{}\" data-field=\"{}\" data-way=\"{}\" data-axes=\"{}\"",
                                 index, name(f.field), isolated ? "isolated" : "chained", axes);
  if (rank_of(f.field) == 3)
    data += fmt::format(" data-matrix=\"{}\"", matrix_rows_of(f.field, {c.config, c.tokens}));
  constexpr std::string_view kField = " --field ";
  const std::size_t at = c.explain.find(kField);
  if (at == std::string::npos || f.field == Field::selected_experts) return data;
  return data + fmt::format(" data-explain=\"{}{}{}{}\"", escaped(c.explain.substr(0, at)), kField,
                            name(f.field), isolated ? "" : " --mode chained");
}

std::string bin_text(const ErrorMap& map, Field field) {
  if (map.bin_rows == 1 && map.bin_columns == 1) return "Every element";
  return rank_of(field) < 2
             ? fmt::format("Each cell: {} elements, by the worst of them", map.bin_rows)
             : fmt::format("Each cell: {} row{} by {} column{}, by the worst element", map.bin_rows,
                           map.bin_rows == 1 ? "" : "s", map.bin_columns, map.bin_columns == 1 ? "" : "s");
}

std::string map_figure(const CaseResult& c, const FieldResult& f, std::size_t index, const ErrorMap& map,
                       bool isolated, svg::Bins bins) {
  if (!sound(map)) return "";
  const bool own = c.first_own_error == f.field;
  const std::string drawing = svg::heat_map(
      map, f.field, own ? kLargeMap : kSmallMap,
      fmt::format("where {} is wrong: {} of {} cells", name(f.field), grouped_digits(svg::bins_outside(map)),
                  grouped_digits(std::ssize(map.levels) * map.column_bins())),
      bins);
  if (drawing.empty()) return "";
  return fmt::format("<figure class=\"map\"{}>{}{}<figcaption>{}.</figcaption></figure>",
                     map_data(c, f, index, isolated), drawing, svg::level_key(map, has_ratio(f.field)),
                     bin_text(map, f.field));
}

std::string detail_figure(Field field, const ErrorPattern& pattern) {
  if (!pattern.detail) return "";
  return fmt::format(
      "<figure>{}<figcaption>Element by element around the worst.</figcaption></figure>",
      svg::heat_map(*pattern.detail, field, kDetailMap,
                    fmt::format("{} around its worst element", name(field)), svg::Bins::Embedded));
}

std::string scatter_figure(const ErrorPattern& pattern) {
  const std::string scatter = svg::got_against_want(pattern);
  if (scatter.empty()) return "";
  return fmt::format(
      "<figure>{}<figcaption>Got against want: <span class=\"bad\">rejected</span> over a sample of all; on "
      "the line they are equal.</figcaption></figure>",
      scatter);
}

std::string histogram_figure(const Statistics& statistics) {
  if (statistics.ulp_histogram.empty()) return "";
  return fmt::format(
      "<figure><div class=\"scroll\" tabindex=\"0\">{}</div><figcaption>Elements by distance from the "
      "rounded reference in neighbours of their type{}. Each step of height is a factor of "
      "ten.</figcaption></figure>",
      svg::ulp_histogram(statistics),
      statistics.ulps_inward.empty()
          ? ""
          : ", each column from its number on: − on the side of zero, + away from it");
}

std::string worst_table(Field field, std::span<const Element> worst) {
  const bool ratio = has_ratio(field);
  std::string out = fmt::format(
      "<div class=\"scroll\" tabindex=\"0\"><table class=\"worst\"><caption>{}</caption><thead><tr><th "
      "scope=\"col\">where</th><th scope=\"col\">got</th><th scope=\"col\">want</th>{}</tr></thead><tbody>",
      ratio ? "The worst elements." : "The first wrong elements.",
      ratio ? "<th scope=\"col\">accepted</th><th scope=\"col\">ulps</th><th scope=\"col\">× bound</th>"
            : "");
  for (const Element& e : worst) {
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{:.7g}</td><td>{:.7g}</td>", escaped(place_text(e)),
                       e.out, e.ref);
    if (ratio)
      out += fmt::format("<td>{:.7g} to {:.7g}</td><td>{}</td><td>{}</td>", e.low, e.high,
                         std::isfinite(e.out) ? grouped_digits(e.ulps) : "–", ratio_text(e.ratio));
    out += "</tr>";
  }
  return out + "</tbody></table></div>";
}

const std::vector<KBlock>* k_blocks_of(const FieldResult& f) {
  for (const Cause& cause : f.causes)
    if (!cause.k_blocks.empty()) return &cause.k_blocks;
  return nullptr;
}

/// Rows of each expert where they differ: those of gradients of weights do not.
std::vector<std::int64_t> loads_of(const CaseResult& c, Field field) {
  const RowsAre rows = row(field).rows;
  return rows == RowsAre::ExpertOrder || rows == RowsAre::Slots ? c.expert_load : std::vector<std::int64_t>{};
}

}  // namespace

std::vector<SectionPiece> pattern_part(const CaseResult& c, const FieldResult& f, std::size_t index,
                                       Detail detail) {
  const bool isolated = f.isolated.rejected > 0;
  const Judgement& judgement = isolated ? f.isolated : f.chained;
  if (judgement.rejected == 0) return {};
  std::string map;
  std::string around;
  std::string scatter;
  if (const auto& pattern = judgement.pattern) {
    map = map_figure(c, f, index, pattern->map, isolated,
                     detail < Detail::Failures ? svg::Bins::ByScript : svg::Bins::Embedded);
    if (!map.empty()) {
      around = detail_figure(f.field, *pattern);
      scatter = scatter_figure(*pattern);
    }
  }
  const std::string histogram = histogram_figure(judgement.statistics);
  std::string charts;
  if (const std::string drawn = svg::expert_chart(judgement, loads_of(c, f.field)); !drawn.empty())
    charts += fmt::format(
        "<figure>{}<figcaption>By expert: worst ratio on a logarithmic axis with the limit at 1, share of "
        "elements outside, rows.</figcaption></figure>",
        drawn);
  if (const auto* blocks = k_blocks_of(f))
    if (const std::string drawn = svg::k_blocks_chart(*blocks); !drawn.empty())
      charts += fmt::format(
          "<figure>{}<figcaption>The error regressed on stretches of K: the share of each that is missing; 1 "
          "is "
          "all of it.</figcaption></figure>",
          drawn);
  std::span<const Element> worst = judgement.worst_rejected;
  if (detail == Detail::Packed && inherited(c, f))
    worst = worst.first(std::min(worst.size(), kWorstInherited));
  if (!worst.empty()) charts += worst_table(f.field, worst);
  if (map.empty() && histogram.empty() && charts.empty()) return {};
  const std::string head = fmt::format(
      "<section class=\"pattern\"><h4>Where and how it is wrong <small>{}: {} of {} "
      "elements</small></h4><div class=\"pictures\">",
      isolated ? "isolated" : "chained", grouped_digits(judgement.rejected),
      grouped_digits(judgement.elements));
  return {{"map", head + map},
          {"detail", around},
          {"scatter", scatter},
          {"histogram", histogram + "</div>"},
          {"charts", fmt::format("<div class=\"charts\">{}</div></section>", charts)}};
}

}  // namespace assay::html
