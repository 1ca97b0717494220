#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "harness/contract/counted_words.h"
#include "reports/columns.h"
#include "reports/json.h"
#include "reports/parting_report.h"
#include "reports/text_paint.h"
#include "reports/wording.h"

namespace assay {
namespace {

constexpr std::size_t kMostTokens = 10;

using Json = nlohmann::ordered_json;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

/// Values that JSON has no number for are strings.
Json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}

Json element_json(const PartingElement& one) {
  Json at = Json::object();
  for (const auto& [axis, index] : one.at) at[axis] = index;
  Json all = {{"at", at}, {"a", number(one.a)}, {"b", number(one.b)}};
  if (one.float64_a) all["float64_a"] = number(*one.float64_a);
  if (one.float64_b) all["float64_b"] = number(*one.float64_b);
  return all;
}

Json field_json(const FieldParting& one) {
  Json all = {{"field", std::string(name(one.field))},
              {"in_a", one.in_a},
              {"in_b", one.in_b},
              {"incomparable", one.incomparable},
              {"elements", one.elements},
              {"differing", one.differing},
              {"unmatched", one.unmatched},
              {"hashes", one.hashes},
              {"differing_hashes", one.differing_hashes},
              {"largest_ulps", one.largest_ulps},
              {"verdict_a", std::string(name(one.verdict_a))},
              {"verdict_b", std::string(name(one.verdict_b))},
              {"rms_a", or_null(one.rms_a)},
              {"rms_b", or_null(one.rms_b)},
              {"nearer_a", one.nearer_a},
              {"nearer_b", one.nearer_b}};
  if (one.first) all["first"] = element_json(*one.first);
  if (one.furthest) all["furthest"] = element_json(*one.furthest);
  return all;
}

Json routing_json(const RoutingAgreement& routing) {
  Json tokens = Json::array();
  for (const auto& one : routing.partings)
    tokens.push_back({{"token", one.token},
                      {"only_a", one.only_a},
                      {"only_b", one.only_b},
                      {"gap_a", or_null(one.gap_a)},
                      {"gap_b", or_null(one.gap_b)}});
  return {{"tokens", routing.tokens},         {"same_sets", routing.same_sets},
          {"same_order", routing.same_order}, {"same_weights", or_null(routing.same_weights)},
          {"ties", or_null(routing.ties)},    {"smallest_margin", or_null(routing.smallest_margin)},
          {"other_experts", tokens}};
}

Json side_json(const PartingSide& side) {
  return {{"name", side.name},
          {"verdict", std::string(name(side.judged.verdict))},
          {"legal_under", side.legal_under},
          {"nearest_contract", side.judged.contract},
          {"headline", side.judged.headline}};
}

std::string gap_words(const std::optional<double>& gap, std::string_view whose) {
  if (!gap) return "";
  return fmt::format(", gap {} in {}'s logits{}", value_text(*gap), whose, *gap == 0.0 ? " (a tie)" : "");
}

}  // namespace

Mark mark(const Parting& all) {
  switch (exit_code(all)) {
    case ExitCode::Passed: return Mark::Good;
    case ExitCode::Suspect: return Mark::Doubt;
    case ExitCode::NothingCompared: return Mark::Absent;
    default: return Mark::Bad;
  }
}

std::string_view parting_sign(const FieldParting& one) {
  return one.parts() ? "≠" : one.compared() ? "=" : "-";
}

PartingCells parting_cells(const FieldParting& one) {
  PartingCells cells;
  cells.field = name(one.field);
  cells.in_a = words(one.verdict_a);
  cells.in_b = words(one.verdict_b);
  if (!one.compared()) {
    cells.differ = one.incomparable.empty() ? "-" : "shapes";
    return cells;
  }
  cells.elements = grouped_digits(one.elements);
  if (one.hashes > 0) {
    cells.differ =
        fmt::format("{} of {} hashes", grouped_digits(one.differing_hashes), grouped_digits(one.hashes));
    return cells;
  }
  cells.differ = one.unmatched > 0 ? fmt::format("{} + {} of other experts", grouped_digits(one.differing),
                                                 grouped_digits(one.unmatched))
                                   : grouped_digits(one.differing);
  if (one.largest_ulps > 0) cells.ulps = grouped_digits(one.largest_ulps);
  if (!one.rms_a) return cells;
  cells.rms_a = fmt::format("{:.3g}", *one.rms_a);
  cells.rms_b = fmt::format("{:.3g}", *one.rms_b);
  cells.nearer = fmt::format("{} (A {}, B {})",
                             *one.rms_a == *one.rms_b  ? "equal"
                             : *one.rms_a < *one.rms_b ? "A"
                                                       : "B",
                             grouped_digits(one.nearer_a), counted(one.nearer_b, "element"));
  return cells;
}

std::string routing_sentence(const RoutingAgreement& routing) {
  if (routing.tokens == 0) return "";
  std::string text = fmt::format("{} of {} tokens take the same experts, {} in the same order",
                                 grouped_digits(routing.same_sets), grouped_digits(routing.tokens),
                                 grouped_digits(routing.same_order));
  if (routing.same_weights)
    text += fmt::format(", {} with the same weights", grouped_digits(*routing.same_weights));
  if (routing.ties)
    text += fmt::format("; in A's logits {} tie at the last expert taken", grouped_digits(*routing.ties));
  if (routing.smallest_margin)
    text += fmt::format(", the smallest other margin is {}", value_text(*routing.smallest_margin));
  return text;
}

std::string others_sentence(const Parting& all) {
  if (all.separating_others.empty()) return "";
  return fmt::format("in A {}", fmt::join(all.separating_others, "; "));
}

std::string token_sentence(const RoutingParting& one) {
  return fmt::format("token {}: A alone takes {}, B alone {}{}{}", one.token, fmt::join(one.only_a, ", "),
                     fmt::join(one.only_b, ", "), gap_words(one.gap_a, "A"), gap_words(one.gap_b, "B"));
}

std::string render_parting_text(const Parting& all, const TextOptions& options) {
  const auto width = static_cast<std::size_t>(options.width);
  const Mark kind = mark(all);
  std::string out = fmt::format(
      "{}\n", painted(fmt::format("{} {} and {}", sign(kind), printable(all.a.name), printable(all.b.name)),
                      kind, options.colour));
  out += wrapped(printable(all.sentence), "  ", width);
  out += wrapped(printable(fmt::format("A: {} ({})", all.a.name, all.a.judged.producer)), "  ", width);
  out += wrapped(printable(fmt::format("B: {} ({})", all.b.name, all.b.judged.producer)), "  ", width);
  Columns table{
      {Align::Left, Align::Left, Align::Right, Align::Right, Align::Right, Align::Left, Align::Left,
       Align::Right, Align::Right, Align::Left},
      {{"", "field", "elements", "bits differ", "ulps", "A", "B", "A off float64", "B off (rms)", "nearer"}}};
  for (const auto& one : all.fields) {
    const auto cells = parting_cells(one);
    table.rows.push_back({std::string(parting_sign(one)), cells.field, cells.elements, cells.differ,
                          cells.ulps, cells.in_a, cells.in_b, cells.rms_a, cells.rms_b, cells.nearer});
  }
  out += fmt::format("\n{}\n", table.text(2));
  if (const auto others = others_sentence(all); !others.empty())
    out += wrapped(others, "  other fields: ", width);
  if (const auto routing = routing_sentence(all.routing); !routing.empty())
    out += wrapped(routing, "  routing: ", width);
  for (std::size_t i = 0; i < std::min(kMostTokens, all.routing.partings.size()); ++i)
    out += wrapped(token_sentence(all.routing.partings[i]), "    ", width);
  if (all.routing.partings.size() > kMostTokens)
    out += fmt::format("    and {} more\n", all.routing.partings.size() - kMostTokens);
  return out;
}

std::string parting_json(const Parting& all, const Report& judged) {
  Json fields = Json::array();
  for (const auto& one : all.fields) fields.push_back(field_json(one));
  const Json document = {{"schema", "assay-diff"},
                         {"version", 1},
                         {"sentence", all.sentence},
                         {"first", all.first ? Json(std::string(name(*all.first))) : Json(nullptr)},
                         {"a", side_json(all.a)},
                         {"b", side_json(all.b)},
                         {"separating", all.separating},
                         {"separating_others", all.separating_others},
                         {"fields", fields},
                         {"routing", routing_json(all.routing)},
                         {"judged", Json::parse(to_json(judged, JsonLayout::Compact))}};
  return document.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace assay
