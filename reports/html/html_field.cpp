#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <iterator>

#include "harness/contract/stored.h"
#include "reports/escape.h"
#include "reports/html/html_case.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

std::string row_of(std::string_view head, const std::string& value) {
  return fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", head, value);
}

std::string code(const std::string& text) { return fmt::format("<code>{}</code>", escaped(text)); }

std::string element_table(const FieldResult& result, const Judgement& judgement) {
  const DType dtype = dtype_of(result);
  const Element& e = *judgement.worst;
  const bool rounded = has_ratio(result.field);
  const bool bits = shows_bits(dtype, e);
  std::string rows = row_of("where", escaped(place_text(e)));
  rows += row_of("found", code(value_text(e.out)) +
                              (bits ? fmt::format(" {}", code(bits_text(dtype, e.out_bits))) : ""));
  rows += row_of(
      "reference",
      code(value_text(e.ref)) +
          (bits ? fmt::format("{} {}", rounded ? ", rounded" : "", code(bits_text(dtype, e.ref_bits))) : ""));
  if (rounded && std::isnan(e.ref)) rows += row_of("accepted", "NaN alone, which the operands give");
  if (rounded && std::isfinite(e.out) && !std::isnan(e.ref)) {
    if (bits)
      rows +=
          row_of("distance", fmt::format("{} {} neighbour{} from the rounded reference",
                                         grouped_digits(e.ulps), dtype == DType::Float32 ? "float32" : "bf16",
                                         e.ulps == 1 || e.ulps == -1 ? "" : "s"));
    rows += row_of("accepted", code(value_text(e.low)) + " to " + code(value_text(e.high)));
    const double half_ulp = bits ? ulp_at(dtype, e.out) / 2 : 0.0;
    rows +=
        row_of("bound", fmt::format("{:.4g} = δ {:.4g}{}{}", e.delta + half_ulp, e.delta,
                                    e.magnitude > 0 ? fmt::format(" (Σ|a||b| = {:.4g})", e.magnitude) : "",
                                    bits ? fmt::format(" + ½ ulp {:.4g}", half_ulp) : ""));
    for (const auto& [what, words] : bound_rows(judgement)) rows += row_of(what, escaped(words));
    rows += row_of("ratio", fmt::format("<strong>{}</strong> of the bound", ratio_text(e.ratio)));
  }
  return fmt::format("<table class=\"facts\">{}</table>", rows);
}

std::string judgement_part(const FieldResult& result, const Judgement& judgement, std::string_view way,
                           std::string_view meaning, Detail detail) {
  if (!compared(judgement.verdict) || judgement.elements == 0) return "";
  std::string out = fmt::format("<section class=\"way\"><h4>{} <small>{}</small></h4><p>{} ", way, meaning,
                                verdict_badge(judgement.verdict));
  if (judgement.elements > 0) {
    out += fmt::format("{} {}{}", rejected_in_words(judgement), judgement.tokens > 0 ? "" : "elements ",
                       has_ratio(result.field) ? "outside the accepted interval" : "wrong");
    if (has_ratio(result.field))
      out += fmt::format("; {} with other bits than the rounded reference",
                         grouped_digits(judgement.mismatched));
  }
  if (judgement.non_finite > 0) out += fmt::format("; {} not finite", grouped_digits(judgement.non_finite));
  if (!judgement.where.empty()) out += "; " + escaped(judgement.where);
  out += "</p>";
  if (judgement.worst && (detail != Detail::Packed || failed(judgement.verdict))) {
    if (has_ratio(result.field))
      out += fmt::format(
          "<figure>{}<figcaption>Worst element; the band is what is accepted.</figcaption></figure>",
          svg::number_line(*judgement.worst));
    out += element_table(result, judgement);
  }
  return out + statistics_part(judgement, detail) + "</section>";
}

std::string prediction_part(const FieldResult& result, const Prediction& bits, std::string_view way) {
  if (!bits.available) return "";
  std::string out = fmt::format("<p>Bits as predicted, {}: <strong>{}</strong>", way, prediction_text(bits));
  if (!bits.accumulator.empty()) out += ", accumulator " + code(bits.accumulator);
  out += bits.binding ? "." : "; not declared, so this is information only.";
  if (!bits.cause.empty()) out += fmt::format(" Likely cause: <strong>{}</strong>.", escaped(bits.cause));
  if (bits.first)
    out += fmt::format(
        " First at {}: found {} {}, predicted {} {}.", escaped(place_text(*bits.first)),
        code(value_text(bits.first->out)), code(bits_text(dtype_of(result), bits.first->out_bits)),
        code(value_text(bits.first->ref)), code(bits_text(dtype_of(result), bits.first->ref_bits)));
  return out + "</p>";
}

}  // namespace

std::vector<SectionPiece> field_section(const CaseResult& c, const FieldResult& result, std::size_t index,
                                        Detail detail) {
  const FieldRow& about = row(result.field);
  const bool carried = inherited(c, result);
  const bool open = !carried && (mark(result.verdict) == Mark::Bad || mark(result.verdict) == Mark::Doubt);
  std::string out =
      fmt::format("<details class=\"field {}{}\" id=\"{}\"{}><summary><code>{}</code> {}</summary>",
                  css_class(result.verdict), carried ? " inherited" : "", field_id(index, result.field),
                  open ? " open" : "", about.name, verdict_sentence(result));
  out += fmt::format("<p class=\"muted\">Stage {}; HuggingFace: {}", name(about.stage), escaped(about.alias));
  if (!result.origin.empty()) out += "; " + escaped(result.origin);
  if (!result.upstream.empty()) out += "; judged from " + escaped(result.upstream);
  out += "</p>";
  for (const std::string& note : result.notes)
    out += fmt::format("<p class=\"remark\">{}</p>", escaped(note));
  const auto way = [&](const Judgement& judgement, std::string_view name, std::string_view meaning) {
    return judgement_part(result, judgement, name, meaning, detail);
  };
  std::vector<SectionPiece> pieces = {{"head", out + causes_part(result)}};
  std::ranges::move(pattern_part(c, result, index, detail), std::back_inserter(pieces));
  pieces.push_back({"isolated", "<div class=\"ways\">" + way(result.isolated, "Isolated",
                                                             "from the candidate's own upstream fields")});
  pieces.push_back({"chained", way(result.chained, "Chained", "from the problem's inputs") + "</div>"});
  pieces.push_back({"end", prediction_part(result, result.isolated_bits, "isolated") +
                               prediction_part(result, result.chained_bits, "chained") +
                               vacuity_part(result) + "</details>\n"});
  for (SectionPiece& piece : pieces) piece.kind = fmt::format("{} {}", about.name, piece.kind);
  return pieces;
}

}  // namespace assay::html
