#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/counted_words.h"
#include "reports/escape.h"
#include "reports/html/html_case.h"
#include "reports/html/html_plain.h"
#include "reports/invariance_report.h"
#include "reports/wording.h"

namespace assay {
namespace {

std::string cell(const InvarianceChange& change, Field field) {
  const std::string text = invariance_cell(change, field);
  const std::string_view kind = text.empty() ? "absent" : text == "=" ? "good" : "doubt";
  return fmt::format("<td><span class=\"{}\">{}</span></td>", kind, text.empty() ? "-" : text);
}

std::string matrix(const InvarianceCase& one) {
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\"><table class=\"routing\"><caption>Tokens with other bits than in "
      "the problem as it is; = every bit the same, - not compared</caption><thead><tr><th "
      "scope=\"col\">field</th>";
  for (const auto& change : one.changes)
    out += fmt::format("<th scope=\"col\">{} <small>({})</small></th>", escaped(change.name),
                       counted(change.runs, "run"));
  out += "</tr></thead><tbody>";
  for (const Field field : fields_compared(one)) {
    out += fmt::format("<tr><th scope=\"row\">{}</th>", name(field));
    for (const auto& change : one.changes) out += cell(change, field);
    out += "</tr>\n";
  }
  out += "<tr><th scope=\"row\">judged</th>";
  for (const auto& change : one.changes)
    out += fmt::format("<td>{}</td>", change.judged ? html::verdict_badge(*change.judged) : "");
  return out + "</tr></tbody></table></div>";
}

std::string section(const InvarianceCase& one, const Report& judged) {
  const auto found = std::ranges::find_if(judged.cases, [&](const CaseResult& result) {
    return result.problem == one.problem && result.candidate == one.candidate;
  });
  std::string out = fmt::format("<section><h2>{}, {}</h2>", escaped(one.problem), escaped(one.candidate));
  if (found != judged.cases.end())
    out += fmt::format("<p>{} {}</p>", html::verdict_badge(found->verdict), escaped(found->headline));
  if (!one.changes.empty()) out += matrix(one);
  return out + "</section>\n";
}

}  // namespace

std::string render_invariance_html(std::span<const InvarianceCase> cases, const Report& judged) {
  const auto other = std::ranges::count_if(cases, [](const InvarianceCase& one) {
    return std::ranges::any_of(one.changes, &InvarianceChange::differs);
  });
  const std::string title = other == 0 ? "The same bits under every change"
                                       : fmt::format("Other bits in {} of {} case{}", other, cases.size(),
                                                     cases.size() == 1 ? "" : "s");
  std::string out = "<div id=\"cases\">";
  for (const auto& one : cases) out += section(one, judged);
  return html::plain_page({.kind = html::css_class(judged.verdict()),
                           .command = "assay invariance",
                           .created = judged.created,
                           .title = title,
                           .hero = fmt::format("<p class=\"lead\">{}</p>", escaped(case_counts_text(judged))),
                           .body = out + "</div>" + html::environment_section(judged),
                           .first = "cases"});
}

}  // namespace assay
