#include <algorithm>

#include <fmt/format.h>

#include "reports/escape.h"
#include "reports/html/html_assets.h"
#include "reports/html/html_case.h"
#include "reports/invariance_report.h"
#include "reports/wording.h"

namespace assay {
namespace {

constexpr std::string_view kMoreStyle =
    "main > section{background:var(--card);border:1px solid var(--edge);border-radius:10px;padding:18px "
    "22px;margin:0 0 18px}.hero{margin-bottom:18px}.routing td,.routing th{padding-right:14px}";

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
    out +=
        fmt::format("<th scope=\"col\">{} <small>({} runs)</small></th>", escaped(change.name), change.runs);
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
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta "
      "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"referrer\" "
      "content=\"no-referrer\"><title>{}</title><style>{}{}</style></head><body><main><header class=\"hero "
      "{}\"><p class=\"kicker\">assay invariance <time>{}</time></p><h1>{}</h1><p "
      "class=\"lead\">{}</p></header>\n",
      title, html::kStyle, kMoreStyle, html::css_class(judged.verdict()), escaped(judged.created), title,
      escaped(case_counts_text(judged)));
  for (const auto& one : cases) out += section(one, judged);
  out += "<section id=\"environment\"><h2>Environment</h2><table class=\"facts\">";
  for (const auto& [what, value] : judged.environment)
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(what), escaped(value));
  return out + fmt::format("</table><p><code>{}</code></p></section></main></body></html>\n",
                           escaped(judged.command));
}

}  // namespace assay
