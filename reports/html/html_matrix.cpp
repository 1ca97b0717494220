#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "reports/escape.h"
#include "reports/html/html_case.h"
#include "reports/html/html_page.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

std::string filter_button(std::string_view kind, std::string_view label, std::int64_t count) {
  return fmt::format("<button type=\"button\" data-show=\"{}\" aria-pressed=\"{}\">{} <b>{}</b></button>",
                     kind, kind == "all" ? "true" : "false", label, count);
}

/// The sign of a field's verdict. What did not pass has a link to its section; of what passed a sign says
/// all. A cell ends where the next begins, as HTML has it: there are tens of thousands.
std::string chip(const CaseResult& c, const FieldResult& f, std::size_t index) {
  if (mark(f.verdict) == Mark::Good) return "<td>✔";
  return fmt::format("<td><a class=\"chip {}{}\" href=\"#{}\" aria-label=\"{}: {}\">{}</a>",
                     css_class(f.verdict), inherited(c, f) ? " inherited" : "", field_id(index, f.field),
                     name(f.field), words(f), sign(mark(f.verdict)));
}

}  // namespace

std::int64_t count_marks(const Report& report, Mark kind) {
  return std::ranges::count_if(report.cases, [=](const CaseResult& c) { return mark(c.verdict) == kind; });
}

std::string matrix(const Report& report, const CaseOrder& order) {
  std::array<bool, kFieldCount> present{};
  for (const CaseResult& c : report.cases)
    for (const FieldResult& f : c.fields) present[static_cast<std::size_t>(f.field)] = true;
  const bool many = order.size() > kCasesAtOnce;
  // Columns of a given width: those of both tables stand below each other, and a row more moves none.
  const std::string table = many ? "<table class=\"matrix many\">" : "<table class=\"matrix\">";
  std::string out = "<section id=\"matrix\"><h2>Cases and fields</h2><div class=\"filter\" hidden>";
  out += filter_button("all", "all", static_cast<std::int64_t>(report.cases.size())) +
         filter_button("bad", "✘ failed", count_marks(report, Mark::Bad)) +
         filter_button("doubt", "~ in doubt", count_marks(report, Mark::Doubt)) +
         filter_button("good", "✔ passed", count_marks(report, Mark::Good)) +
         filter_button("absent", "- not compared", count_marks(report, Mark::Absent));
  out +=
      "<input type=\"search\" placeholder=\"filter by name\" aria-label=\"Filter cases by name\"></div><div "
      "class=\"scroll turned-room long\" tabindex=\"0\">" +
      table +
      "<caption class=\"hidden-caption\">Verdict of every field of every case</caption><thead><tr><th "
      "scope=\"col\">case</th>";
  for (const FieldRow& field : kFields)
    if (present[static_cast<std::size_t>(field.id)])
      out += fmt::format("<th scope=\"col\" class=\"turned\"><span>{}</span></th>", field.name);
  out += "</tr></thead><tbody>";
  for (std::size_t place = 0; place < order.size(); ++place) {
    if (place == kCasesAtOnce) out += fmt::format("</tbody></table>{}{}<tbody>", kLaterStart, table);
    const std::size_t i = order[place];
    const CaseResult& c = report.cases[i];
    out += fmt::format(
        "<tr data-kind=\"{}\" data-case=\"{}\"><th scope=\"row\"><a href=\"#{}\">{} "
        "{}<small>{}</small></a></th>",
        css_class(c.verdict), case_id(i), case_id(i), verdict_badge(c.verdict), escaped(c.problem),
        escaped(c.candidate));
    for (const FieldRow& field : kFields) {
      if (!present[static_cast<std::size_t>(field.id)]) continue;
      const auto found = std::ranges::find(c.fields, field.id, &FieldResult::field);
      out += found == c.fields.end() ? "<td>" : chip(c, *found, i);
    }
    out += "</tr>\n";
  }
  out += fmt::format("</tbody></table>{}</div>", many ? kLaterEnd : "");
  return out + "</section>\n";
}

}  // namespace assay::html
