#include <fmt/format.h>
#include <algorithm>
#include <cmath>

#include "reports/escape.h"
#include "reports/html/html_case.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

std::string coloured(Mark kind, const std::string& text) {
  constexpr std::string_view classes[] = {"good", "bad", "doubt", "absent"};
  return fmt::format("<span class=\"{}\"><span class=\"sign\">{}</span> {}</span>",
                     classes[static_cast<std::size_t>(kind)], sign(kind), text);
}

std::string tests_table(const Statistics& statistics) {
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\"><table class=\"tests\"><thead><tr><th scope=\"col\">test</th><th "
      "scope=\"col\">over</th>"
      "<th scope=\"col\">observed</th><th scope=\"col\">expected, at "
      "most</th><th scope=\"col\">limit</th>"
      "<th scope=\"col\">chance of a legal run</th></tr></thead><tbody>";
  for (const StatisticalTest& test : statistics.tests) {
    const Mark kind = !test.beyond ? Mark::Good : statistics.explained ? Mark::Absent : Mark::Doubt;
    const std::string of =
        test.members > 1 ? fmt::format("<small>worst of {}</small>", grouped_digits(test.members)) : "";
    out += fmt::format(
        "<tr><th scope=\"row\">{}</th><td>{} {}</td><td>{}</td><td>"
        "{}</td><td>{}</td><td>{}</td></tr>",
        coloured(kind, escaped(test.measure)), escaped(test.over), of, amount_text(test, test.observed),
        amount_text(test, test.expected), amount_text(test, test.limit), escaped(chance_text(test)));
  }
  return out + "</tbody></table></div>";
}

}  // namespace

std::string statistics_part(const Judgement& judgement, Detail detail) {
  const Statistics& statistics = judgement.statistics;
  if (statistics.units.empty()) return "";
  // A field that its intervals refuse needs no chances to be argued about: they are folded away.
  std::string out;
  std::string suspicion;
  const bool refused = failed(judgement.verdict);
  if (refused && detail != Detail::All) return "";
  if (!statistics.suspicion.empty())
    suspicion = fmt::format(
        "<p>{}{}</p>",
        coloured(statistics.explained ? Mark::Absent : Mark::Doubt, escaped(statistics.suspicion)),
        statistics.explained ? "; yet every bit is as predicted, so nothing is suspect" : "");
  if (!refused) out += suspicion;
  out +=
      fmt::format("<details class=\"statistics\"{}><summary>Statistics</summary>{}<p class=\"muted\">{}.</p>",
                  statistics.suspicion.empty() || refused ? "" : " open", refused ? suspicion : "",
                  escaped(statistics_line(statistics)));
  // Of a field with rejected elements it stands with their pattern.
  if (!statistics.ulp_histogram.empty() && judgement.rejected == 0 && detail != Detail::Packed)
    out += fmt::format(
        "<figure>{}<figcaption>Elements by distance from the rounded reference, in neighbours of their type; "
        "each "
        "step is a factor of ten.</figcaption></figure>",
        svg::ulp_histogram(statistics));
  if (!statistics.tests.empty()) out += tests_table(statistics);
  return out + "</details>";
}

std::string causes_part(const FieldResult& result) {
  if (result.causes.empty()) return "";
  std::string out = fmt::format("<p>{}:</p><ol class=\"causes\">",
                                named_cause(result.causes) != nullptr ? "Likely cause" : "No cause is known");
  for (const Cause& cause : result.causes)
    out += fmt::format("<li>{}{}{} <small>{}</small></li>", svg::share_meter(cause.explained),
                       names_the_error(cause) ? "" : "similar to: ", escaped(cause.sentence),
                       explained_in_words(cause));
  return out + "</ol>";
}

std::string vacuity_part(const FieldResult& result) {
  if (result.vacuity.empty()) return "";
  std::string out = "<p>Could this check fail? Wrong copies of the reference, shown to it: ";
  std::string_view separator = "";
  for (const VacuityCheck& check : result.vacuity) {
    const Mark kind = mark(check);
    out += fmt::format(
        "{}{}", separator,
        coloured(kind, fmt::format("{}{}: {} <small>{}</small>", check.chained ? "chained, " : "",
                                   escaped(check.copy), name(check.outcome), escaped(check.reason))));
    separator = "; ";
  }
  return out + ".</p>";
}

std::string flips_table(const CaseResult& result) {
  if (result.flips.empty()) return "";
  const auto list = [](const std::vector<std::int64_t>& experts) {
    std::string text;
    for (const std::int64_t expert : experts) text += fmt::format("{}{}", text.empty() ? "" : ", ", expert);
    return text;
  };
  std::string out = fmt::format(
      "<div class=\"scroll\" tabindex=\"0\"><table class=\"routing\"><caption>{}. A tie is equal once "
      "stored; admissible is within 6 times the noise of the "
      "logits; suspicious only within their worst-case bound.</caption><thead><tr><th "
      "scope=\"col\">token</th><th scope=\"col\">took</th>"
      "<th scope=\"col\">reference took</th><th scope=\"col\" class=\"number\">gap</th><th scope=\"col\" "
      "class=\"number\">noise</th>"
      "<th scope=\"col\" class=\"number\">allowed</th><th scope=\"col\">verdict</th></tr></thead><tbody>",
      escaped(routing_text(result)));
  for (const RoutingFlip& flip : result.flips)
    out += fmt::format(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"number\">{:.4g}</td><td "
        "class=\"number\">{:.4g}</td><td class=\"number\">{:.4g}</td><td>{}</td></tr>",
        flip.token, list(flip.candidate_only), list(flip.reference_only), flip.gap, flip.noise, flip.bound,
        coloured(mark(tier_of(flip)), std::string(words(tier_of(flip)))));
  return out + "</tbody></table></div>";
}

}  // namespace assay::html
