#include "reports/html/html_plain.h"

#include <fmt/format.h>

#include "reports/escape.h"
#include "reports/html/html_assets.h"
#include "reports/html/html_case.h"

namespace assay::html {

std::string plain_page(const PlainPage& page) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta "
      "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "img-src data:\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"referrer\" "
      "content=\"no-referrer\"><title>{0}</title><style>{1}</style></head><body class=\"plain\">"
      "<a class=\"skip\" href=\"#{2}\">Skip to the results</a><main><header class=\"hero {3}\"><p "
      "class=\"kicker\">{4} <time>{5}</time></p><h1>{0}</h1>{6}</header>\n{7}</main></body></html>\n",
      escaped(page.title), kStyle, page.first, page.kind, escaped(page.command), escaped(page.created),
      page.hero, page.body);
}

std::string environment_section(const Report& report) {
  std::string out = "<section id=\"environment\"><h2>Environment</h2><table class=\"facts\">";
  for (const auto& [what, value] : report.environment)
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(what), escaped(value));
  return out + "</table>" + command_line("command", report.command) + "</section>\n";
}

std::string case_as_judged(const CaseResult& result, std::size_t index, std::string_view label) {
  std::string out = fmt::format("<h3>{}</h3>\n{}", label, case_start(result, index, false, false));
  for (const SectionPiece& piece : case_rest(result, index, Detail::Failures)) out += piece.markup;
  return out + std::string(kCaseEnd);
}

std::string tile(std::string_view what, const std::string& value, const std::string& below) {
  return fmt::format("<div class=\"tile\"><dt>{}</dt><dd>{}<small>{}</small></dd></div>", what, value, below);
}

}  // namespace assay::html
