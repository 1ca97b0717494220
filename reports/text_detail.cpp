#include "reports/text_detail.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

#include "harness/contract/stored.h"
#include "reports/columns.h"
#include "reports/text_paint.h"
#include "reports/text_statistics.h"
#include "reports/wording.h"

namespace assay {
namespace {

std::string experts_text(const std::vector<std::int64_t>& experts) {
  std::string text;
  for (const std::int64_t expert : experts) text += fmt::format("{}{}", text.empty() ? "" : ", ", expert);
  return text;
}

std::string ulps_text(std::int64_t ulps) {
  return fmt::format("{} ulp{}", grouped_digits(ulps), ulps == 1 || ulps == -1 ? "" : "s");
}

std::string bounds_text(const Judgement& judgement, std::size_t width) {
  std::string out;
  for (const auto& [what, words] : bound_rows(judgement))
    out += wrapped(printable(words), fmt::format("      {:<10} ", what), width);
  return out;
}

std::string element_text(const FieldResult& result, const Element& e, std::size_t width) {
  const DType dtype = dtype_of(result);
  Columns lines;
  lines.aligns = {Align::Left, Align::Left, Align::Left, Align::Left};
  const bool rounded = has_ratio(result.field);
  const bool finite = std::isfinite(e.out);
  const bool bits = shows_bits(dtype, e);
  lines.rows.push_back({"found", value_text(e.out), bits ? bits_text(dtype, e.out_bits) : "",
                        rounded && finite && bits && !std::isnan(e.ref)
                            ? ulps_text(e.ulps) + " from the rounded reference"
                            : ""});
  lines.rows.push_back({"reference", value_text(e.ref), bits ? bits_text(dtype, e.ref_bits) : "",
                        rounded && bits ? "value before rounding, bits after" : ""});
  std::string out = wrapped(printable(place_text(e)), "      at ", width) + lines.text(6);
  if (!rounded) return out;
  if (std::isnan(e.ref)) return out + "      accepted   NaN alone, which the operands give\n";
  out += fmt::format("      accepted   {} .. {}\n", value_text(e.low), value_text(e.high));
  if (!finite) return out;
  const double half_ulp = bits ? ulp_at(dtype, e.out) / 2 : 0.0;
  std::string bound = fmt::format("{:.3g} = delta {:.3g}", e.delta + half_ulp, e.delta);
  if (bits) bound += fmt::format(" + half an ulp {:.3g}", half_ulp);
  bound += fmt::format("; off by {} times that", ratio_text(e.ratio));
  if (e.magnitude > 0) bound += fmt::format("; sum of |a||b| {:.3g}", e.magnitude);
  return out + wrapped(bound, "      bound      ", width);
}

std::string judgement_text(const FieldResult& result, const Judgement& judgement, std::string_view way,
                           const TextOptions& options) {
  const bool show = mark(judgement.verdict) == Mark::Bad || mark(judgement.verdict) == Mark::Doubt ||
                    (options.verbose && judgement.worst);
  if (!show) return "";
  const Mark kind = mark(judgement.verdict);
  std::string sentence = fmt::format("{} {}", way, words(judgement.verdict));
  if (judgement.elements > 0) {
    sentence += fmt::format(": {} {}", rejected_in_words(judgement),
                            has_ratio(result.field) ? "outside the interval" : "wrong");
    if (judgement.non_finite > 0)
      sentence += fmt::format(", {} not finite", grouped_digits(judgement.non_finite));
    if (has_ratio(result.field)) sentence += fmt::format(", worst ratio {}", ratio_text(judgement.max_ratio));
  }
  std::string out =
      wrapped(painted(sentence, kind, options.colour), "    ", static_cast<std::size_t>(options.width));
  if (!judgement.where.empty())
    out += wrapped(judgement.where, "      where      ", static_cast<std::size_t>(options.width));
  if (judgement.worst) out += element_text(result, *judgement.worst, static_cast<std::size_t>(options.width));
  if (judgement.worst && has_ratio(result.field) && std::isfinite(judgement.worst->out) &&
      std::isfinite(judgement.worst->ref))
    out += bounds_text(judgement, static_cast<std::size_t>(options.width));
  return out;
}

std::string prediction_detail(const FieldResult& result, const Prediction& bits, std::string_view way,
                              const TextOptions& options) {
  if (!bits.available || (bits.differing == 0 && !options.verbose)) return "";
  std::string sentence = fmt::format("{} bits as predicted: {}", way, prediction_text(bits));
  if (!bits.accumulator.empty()) sentence += fmt::format(", accumulator {}", printable(bits.accumulator));
  if (!bits.binding) sentence += "; not declared: information only";
  const Mark kind = bits.binding && bits.differing > 0 ? Mark::Doubt : Mark::Absent;
  std::string out =
      wrapped(painted(sentence, kind, options.colour), "    ", static_cast<std::size_t>(options.width));
  if (bits.first)
    out +=
        wrapped(fmt::format("{}: found {} {}, predicted {} {}", printable(place_text(*bits.first)),
                            value_text(bits.first->out), bits_text(dtype_of(result), bits.first->out_bits),
                            value_text(bits.first->ref), bits_text(dtype_of(result), bits.first->ref_bits)),
                "      first at ", static_cast<std::size_t>(options.width));
  if (!bits.cause.empty())
    out += wrapped(printable(bits.cause), "      cause: ", static_cast<std::size_t>(options.width));
  return out;
}

}  // namespace

std::string field_details(const CaseResult& result, const TextOptions& options) {
  std::string out;
  std::string from_upstream;
  for (const FieldResult& field : result.fields) {
    if (not_asked(field)) continue;
    if (inherited(result, field) && !options.verbose) {
      from_upstream += fmt::format("{}{}", from_upstream.empty() ? "" : ", ", name(field.field));
      continue;
    }
    std::string body =
        causes_text(field, options) + judgement_text(field, field.isolated, "isolated", options) +
        judgement_text(field, field.chained, "chained", options) +
        statistics_text(field.isolated, "isolated", options) +
        statistics_text(field.chained, "chained", options) +
        prediction_detail(field, field.isolated_bits, "isolated", options) +
        prediction_detail(field, field.chained_bits, "chained", options) + vacuity_text(field, options);
    for (const std::string& note : field.notes)
      body += wrapped(printable(note), "    note: ", static_cast<std::size_t>(options.width));
    if (body.empty()) continue;
    std::string about = std::string(name(field.field));
    if (!field.upstream.empty()) about += ", from " + printable(field.upstream);
    if (!field.origin.empty()) about += " (" + printable(field.origin) + ")";
    out += fmt::format("\n  {} {}\n{}",
                       painted(sign(mark(field.verdict)), mark(field.verdict), options.colour), about, body);
  }
  if (!from_upstream.empty())
    out += wrapped(from_upstream + " (-v shows how)",
                   "\n  inherited: ", static_cast<std::size_t>(options.width));
  return out.empty() ? out : out + "\n";
}

std::string routing_details(const CaseResult& result, const TextOptions& options) {
  if (result.flips.empty()) return "";
  constexpr std::size_t kShown = 8;
  std::string out = wrapped(routing_text(result), "  routing: ", static_cast<std::size_t>(options.width));
  const std::size_t shown = options.verbose ? result.flips.size() : std::min(kShown, result.flips.size());
  Columns lines;
  lines.aligns = {Align::Left,  Align::Right, Align::Left, Align::Left,
                  Align::Right, Align::Right, Align::Left};
  for (std::size_t i = 0; i < shown; ++i) {
    const RoutingFlip& flip = result.flips[i];
    const Mark kind = mark(tier_of(flip));
    lines.rows.push_back(
        {painted(fmt::format("{} {}", sign(kind), words(tier_of(flip))), kind, options.colour),
         fmt::format("token {}", flip.token), fmt::format("took {}", experts_text(flip.candidate_only)),
         fmt::format("not {}", experts_text(flip.reference_only)), fmt::format("gap {:.3g}", flip.gap),
         fmt::format("noise {:.3g}", flip.noise), fmt::format("allowed {:.3g}", flip.bound)});
  }
  out += lines.text(4);
  if (shown < result.flips.size()) out += fmt::format("    and {} more\n", result.flips.size() - shown);
  return out;
}

}  // namespace assay
