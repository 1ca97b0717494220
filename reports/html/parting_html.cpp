#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "reports/escape.h"
#include "reports/html/html_case.h"
#include "reports/html/html_plain.h"
#include "reports/parting_report.h"
#include "reports/wording.h"

namespace assay {
namespace {

std::string title(const Parting& all) {
  return all.first ? fmt::format("They part first at {}", name(*all.first)) : "They do not part";
}

std::string side(std::string_view which, const PartingSide& one) {
  return fmt::format(
      "<tr><th scope=\"row\">{}</th><td class=\"path\">{}</td><td "
      "class=\"path\">{}</td><td>{}</td><td>{}</td><td class=\"prose\">{}</td></tr>",
      which, escaped(one.name), escaped(one.judged.producer), html::verdict_badge(one.judged.verdict),
      one.legal_under.empty() ? "none" : fmt::format("{}", fmt::join(one.legal_under, ", ")),
      escaped(one.judged.headline));
}

std::string field_row(const FieldParting& one) {
  const PartingCells cells = parting_cells(one);
  const std::string_view kind = one.parts() ? "doubt" : one.compared() ? "good" : "absent";
  return fmt::format(
      "<tr><th scope=\"row\"><span class=\"{}\"><span class=\"sign\">{}</span></span> {}</th><td "
      "class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td><td>{}</td>"
      "<td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td></tr>\n",
      kind, parting_sign(one), cells.field, cells.elements, cells.differ, cells.ulps, cells.in_a, cells.in_b,
      cells.rms_a, cells.rms_b, cells.nearer);
}

/// "A", "B" or "equal": whose value is nearer to float64 on its own routing.
std::string_view nearer(const PartingElement& one) {
  if (!one.float64_a || !one.float64_b) return "";
  const double off_a = std::fabs(one.a - *one.float64_a);
  const double off_b = std::fabs(one.b - *one.float64_b);
  if (std::isnan(off_a) || std::isnan(off_b))
    return std::isnan(off_a) == std::isnan(off_b) ? "" : std::isnan(off_a) ? "B" : "A";
  return off_a == off_b ? "equal" : off_a < off_b ? "A" : "B";
}

std::string float64_cell(const PartingElement& one) {
  if (!one.float64_a || !one.float64_b) return "–";
  const auto code = [](double value) { return fmt::format("<code>{}</code>", value_text(value)); };
  return *one.float64_a == *one.float64_b
             ? code(*one.float64_a)
             : fmt::format("{} of A, {} of B", code(*one.float64_a), code(*one.float64_b));
}

std::string element_row(Field field, std::string_view which, const PartingElement& one) {
  return fmt::format(
      "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"number\"><code>{}</code></td><td "
      "class=\"number\"><code>{}</code></td><td class=\"number\">{}</td><td>{}</td></tr>\n",
      name(field), which, escaped(place_text(one.at)), value_text(one.a), value_text(one.b),
      float64_cell(one), nearer(one));
}

/// What each holds where they part first, and where they are furthest apart.
std::string elements_section(const Parting& all) {
  std::string rows;
  for (const FieldParting& one : all.fields) {
    if (one.first) rows += element_row(one.field, "first", *one.first);
    if (one.furthest && one.first && one.furthest->in_a != one.first->in_a)
      rows += element_row(one.field, "furthest apart", *one.furthest);
  }
  if (rows.empty()) return "";
  return "<section id=\"elements\"><h2>Both sides</h2><div class=\"scroll\" tabindex=\"0\"><table "
         "class=\"routing\"><thead><tr><th scope=\"col\">field</th><th scope=\"col\">which</th><th "
         "scope=\"col\">where</th><th scope=\"col\" class=\"number\">A</th><th scope=\"col\" "
         "class=\"number\">B</th><th scope=\"col\" class=\"number\">float64</th><th "
         "scope=\"col\">nearer</th></tr></thead><tbody>" +
         rows + "</tbody></table></div></section>\n";
}

std::string judged_section(const Report& judged) {
  if (judged.cases.size() != 2) return "";
  return "<section id=\"judged\"><h2>Each as judged</h2>" + html::case_as_judged(judged.cases[0], 0, "A") +
         html::case_as_judged(judged.cases[1], 1, "B") + "</section>\n";
}

}  // namespace

std::string render_parting_html(const Parting& all, const Report& judged) {
  std::string out =
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
  for (const char* head : {"elements", "bits differ", "ulps"})
    out += fmt::format("<th scope=\"col\" class=\"number\">{}</th>", head);
  out += "<th scope=\"col\">A</th><th scope=\"col\">B</th>";
  for (const char* head : {"A off float64", "B off float64"})
    out += fmt::format("<th scope=\"col\" class=\"number\">{}</th>", head);
  out += "<th scope=\"col\">nearer</th>";
  out += "</tr></thead><tbody>";
  for (const auto& one : all.fields) out += field_row(one);
  out += "</tbody></table></div>";
  if (const auto others = others_sentence(all); !others.empty())
    out += fmt::format("<p>Other fields: {}</p>", escaped(others));
  out += "</section>\n";
  out += elements_section(all);
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
  return html::plain_page({.kind = html::css_class(mark(all)),
                           .command = "assay diff",
                           .created = judged.created,
                           .title = title(all),
                           .hero = fmt::format("<p class=\"lead\">{}</p>", escaped(all.sentence)),
                           .body = out + judged_section(judged) + html::environment_section(judged),
                           .first = "fields"});
}

}  // namespace assay
