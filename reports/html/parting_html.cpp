#include <fmt/format.h>
#include <fmt/ranges.h>

#include "reports/escape.h"
#include "reports/html/html_assets.h"
#include "reports/html/html_case.h"
#include "reports/parting_report.h"
#include "reports/wording.h"

namespace assay {
namespace {

constexpr std::string_view kMoreStyle =
    "main > section{background:var(--card);border:1px solid var(--edge);border-radius:10px;padding:18px "
    "22px;margin:0 0 18px}.hero{margin-bottom:18px}.routing td,.routing th{padding-right:16px}";

std::string_view css(const Parting& all) {
  switch (exit_code(all)) {
    case ExitCode::Passed: return "good";
    case ExitCode::Suspect: return "doubt";
    case ExitCode::NothingCompared: return "absent";
    default: return "bad";
  }
}

std::string title(const Parting& all) {
  return all.first ? fmt::format("They part first at {}", name(*all.first)) : "They do not part";
}

std::string side(std::string_view which, const PartingSide& one) {
  return fmt::format(
      "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", which,
      escaped(one.name), escaped(one.judged.producer), html::verdict_badge(one.judged.verdict),
      one.legal_under.empty() ? "none" : fmt::format("{}", fmt::join(one.legal_under, ", ")),
      escaped(one.judged.headline));
}

std::string field_row(const FieldParting& one) {
  const PartingCells cells = parting_cells(one);
  const std::string_view kind = one.parts() ? "doubt" : one.compared() ? "good" : "absent";
  const std::string_view marked = one.parts() ? "≠" : one.compared() ? "=" : "-";
  return fmt::format(
      "<tr><th scope=\"row\"><span class=\"{}\"><span class=\"sign\">{}</span></span> {}</th><td "
      "class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td><td>{}</td>"
      "<td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td></tr>\n",
      kind, marked, cells.field, cells.elements, cells.differ, cells.ulps, cells.in_a, cells.in_b,
      cells.rms_a, cells.rms_b, cells.nearer);
}

}  // namespace

std::string render_parting_html(const Parting& all, const Report& judged) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta "
      "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"referrer\" "
      "content=\"no-referrer\"><title>{}</title><style>{}{}</style></head><body>"
      "<a class=\"skip\" href=\"#fields\">Skip to the fields</a><main><header class=\"hero {}\"><p "
      "class=\"kicker\">assay diff <time>{}</time></p><h1>{}</h1><p class=\"lead\">{}</p></header>\n",
      title(all), html::kStyle, kMoreStyle, css(all), escaped(judged.created), title(all),
      escaped(all.sentence));
  out +=
      "<section id=\"sides\"><h2>The two</h2><div class=\"scroll\" tabindex=\"0\"><table class=\"routing\">"
      "<thead><tr><th></th><th scope=\"col\">file</th><th scope=\"col\">producer</th><th "
      "scope=\"col\">verdict</th><th scope=\"col\">legal under</th><th scope=\"col\">judged</th></tr></thead>"
      "<tbody>" +
      side("A", all.a) + side("B", all.b) + "</tbody></table></div></section>\n";
  out +=
      "<section id=\"fields\"><h2>Field by field</h2><p class=\"muted\">Rows are matched by token and "
      "expert. "
      "The distance from float64 is the root mean square over the elements that differ, each side on its own "
      "routing; in brackets how many of them are nearer in A and in B.</p><div class=\"scroll\" "
      "tabindex=\"0\"><table class=\"routing\"><thead><tr><th scope=\"col\">field</th>";
  for (const char* head :
       {"elements", "bits differ", "ulps", "A", "B", "A off float64", "B off float64", "nearer"})
    out += fmt::format("<th scope=\"col\">{}</th>", head);
  out += "</tr></thead><tbody>";
  for (const auto& one : all.fields) out += field_row(one);
  out += "</tbody></table></div></section>\n";
  if (const auto routing = routing_sentence(all.routing); !routing.empty()) {
    out += fmt::format("<section id=\"routing\"><h2>Routing</h2><p>{}</p>", escaped(routing));
    if (!all.routing.partings.empty()) {
      out += "<ul>";
      for (const auto& one : all.routing.partings)
        out += fmt::format("<li>{}</li>", escaped(token_sentence(one)));
      out += "</ul>";
    }
    out += "</section>\n";
  }
  out += "<section id=\"environment\"><h2>Environment</h2><table class=\"facts\">";
  for (const auto& [what, value] : judged.environment)
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(what), escaped(value));
  return out + fmt::format("</table><p><code>{}</code></p></section></main></body></html>\n",
                           escaped(judged.command));
}

}  // namespace assay
