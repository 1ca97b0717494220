#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "reports/escape.h"
#include "reports/html/html_assets.h"
#include "reports/sensitivity_report.h"

namespace assay {
namespace {

using ScoredFault = Sensitivity::Fault;
using Curve = Sensitivity::Curve;

constexpr std::string_view kMoreStyle =
    "main > section{background:var(--card);border:1px solid var(--edge);border-radius:10px;padding:18px "
    "22px;margin:0 0 18px}"
    ".hero{margin-bottom:18px}.tile dd{font-size:17px}.rules th,.rules "
    "td:nth-child(4){white-space:nowrap}.rules td:nth-child(2){min-width:240px}"
    ".matrix td.ours{background:var(--soft)}.matrix tbody th "
    "small{font-weight:400}.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),"
    "1fr));gap:24px}"
    "svg.curve{width:100%;max-width:560px;height:auto}svg.curve "
    "path{fill:none;stroke:var(--muted);stroke-width:1.6}svg.curve "
    "path.ours{stroke:var(--good);stroke-width:3}"
    "svg.curve line{stroke:var(--edge)}.dash1{stroke-dasharray:2 3}.dash2{stroke-dasharray:7 "
    "4}.dash3{stroke-dasharray:1 5}.dash4{stroke-dasharray:9 3 2 3}.dash5{stroke-dasharray:12 6}"
    ".routing td,.routing "
    "th{padding-right:16px}.legend{display:inline-block;width:34px;height:10px;vertical-align:middle}"
    // Narrow: the explanation of a rule stands below its name and its figures.
    "@media screen and (max-width:760px){main>section{padding:14px}.rules,.rules tbody{display:block}.rules "
    "thead{display:none}"
    ".rules tr{display:grid;grid-template-columns:1fr auto;gap:0 14px;padding:6px 0;border-top:1px solid "
    "var(--edge)}.rules th,.rules td{padding:0}"
    ".rules td:nth-child(2){grid-row:2;grid-column:1/-1;color:var(--muted)}.rules "
    "td:nth-child(4){grid-column:1/-1;color:var(--muted)}"
    ".rules td[data-label]::before{content:attr(data-label) \": \"}}";

std::string chip(const ScoredFault& fault, std::size_t rule, const Sensitivity::Rule& what) {
  const std::int64_t caught = fault.caught[rule];
  const bool all = caught == fault.problems;
  const bool none = caught == 0;
  return fmt::format(
      "<td{}><span class=\"chip {}\" title=\"{}: {} of {} problems\"><span class=\"sign\">{}</span><span "
      "class=\"spoken\"> {} of {}</span></span></td>",
      what.ours ? " class=\"ours\"" : "",
      all    ? "good"
      : none ? "absent"
             : "doubt",
      escaped(what.name), caught, fault.problems,
      all    ? "✔"
      : none ? "-"
             : "~",
      caught, fault.problems);
}

std::string matrix(const Sensitivity& all) {
  std::string out =
      "<section id=\"matrix\"><h2>Who catches what</h2><p class=\"muted\">✔ on every problem it was planted "
      "on, ~ on some, - on none. Shaded columns are assay's detectors, each by itself; "
      "the others look at what leaves the layer.</p><div class=\"scroll turned-room\" tabindex=\"0\"><table "
      "class=\"matrix\"><caption class=\"hidden-caption\">Planted faults by rule</caption>"
      "<thead><tr><th scope=\"col\">fault</th>";
  for (const auto& rule : all.rules)
    out += fmt::format("<th scope=\"col\" class=\"turned\"><span>{}</span></th>", escaped(rule.name));
  out += "</tr></thead><tbody>";
  std::string stage;
  for (const auto& fault : all.faults) {
    if (fault.stage != stage)
      out +=
          fmt::format("<tr><th scope=\"rowgroup\"><code>{}</code></th></tr>", escaped(stage = fault.stage));
    out += fmt::format("<tr><th scope=\"row\">{}<small>{}{}</small></th>", escaped(fault.id),
                       escaped(fault.sentence),
                       fault.note.empty() ? "" : fmt::format(" <b>({})</b>", escaped(fault.note)));
    for (std::size_t i = 0; i < all.rules.size(); ++i) out += chip(fault, i, all.rules[i]);
    out += "</tr>\n";
  }
  return out + "</tbody></table></div></section>\n";
}

std::string rules(const Sensitivity& all) {
  const bool wrongly = std::ranges::any_of(
      all.rules, [](const auto& rule) { return !rule.wrongly.empty(); });  // else it was not looked at
  std::string out = fmt::format(
      "<section id=\"rules\"><h2>The rules</h2><div class=\"scroll\" tabindex=\"0\"><table class=\"routing "
      "rules\"><thead><tr><th scope=\"col\">rule</th><th scope=\"col\">accepts when</th>"
      "<th scope=\"col\" class=\"number\">faults caught</th>{}</tr></thead><tbody>",
      wrongly ? "<th scope=\"col\">correct runs rejected</th>" : "");
  for (std::size_t i = 0; i < all.rules.size(); ++i) {
    const auto caught = std::ranges::count_if(
        all.faults, [&](const ScoredFault& f) { return f.note != "equivalent" && f.caught[i] > 0; });
    const auto counted =
        std::ranges::count_if(all.faults, [](const ScoredFault& f) { return f.note != "equivalent"; });
    out +=
        fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"number\">{} of {}</td>{}</tr>",
                    escaped(all.rules[i].name), escaped(all.rules[i].sentence), caught, counted,
                    wrongly ? fmt::format("<td data-label=\"correct runs rejected\">{}</td>",
                                          all.rules[i].wrongly.empty() ? "-" : escaped(all.rules[i].wrongly))
                            : "");
  }
  return out + "</tbody></table></div></section>\n";
}

std::string scopes(const Sensitivity& all) {
  if (all.scopes.empty()) return "";
  std::string out =
      "<section id=\"scopes\"><h2>By contract and width</h2><div class=\"scroll\" tabindex=\"0\"><table "
      "class=\"routing scores\"><thead><tr>";
  for (const char* head : {"contract", "problems", "planted", "killed", "in the right stage",
                           "with nothing declared", "cause named rightly"})
    out += fmt::format("<th scope=\"col\">{}</th>", head);
  out += "</tr></thead><tbody>";
  for (const auto& s : all.scopes) {
    out += fmt::format("<tr><th scope=\"row\">{}</th>", escaped(s.contract));
    for (const auto* cell : {&s.problems, &s.planted, &s.killed, &s.right_stage, &s.undeclared, &s.cause})
      out += fmt::format("<td>{}</td>", escaped(*cell));
    out += "</tr>";
  }
  return out + "</tbody></table></div></section>\n";
}

constexpr double kWidth = 430;
constexpr double kHeight = 180;
constexpr double kLeft = 44;
constexpr double kTop = 10;

double x_of(const Curve& curve, std::size_t i) {
  return kLeft + (kWidth - kLeft - 10) * static_cast<double>(i) /
                     std::max<double>(1.0, static_cast<double>(curve.sizes.size()) - 1);
}
double y_of(double share) { return kTop + (1.0 - share) * (kHeight - kTop - 30); }

/// Sizes are spaced evenly: they are chosen about logarithmically.
std::string drawing(const Curve& curve) {
  std::string out = fmt::format(
      "<svg class=\"curve\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\"><title>{}: share of {} problems on "
      "which each rule finds it, by {}</title>",
      kWidth, kHeight, escaped(curve.title), curve.seeds, escaped(curve.size));
  for (const double share : {0.0, 0.5, 1.0})
    out += fmt::format(
        "<line x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/><text x=\"{:.0f}\" y=\"{:.1f}\" "
        "text-anchor=\"end\">{:.0f} %</text>",
        kLeft, kWidth - 10, y_of(share), y_of(share), kLeft - 5, y_of(share) + 4, share * 100);
  const std::size_t step = (curve.sizes.size() + 5) / 6;
  for (std::size_t i = 0; i < curve.sizes.size(); i += step)
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{:.2g}</text>", x_of(curve, i),
                       kHeight - 12, curve.sizes[i]);
  for (std::size_t l = 0; l < curve.lines.size(); ++l) {
    std::string points;
    for (std::size_t i = 0; i < curve.sizes.size(); ++i)
      points +=
          fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : "L", x_of(curve, i), y_of(curve.lines[l].share[i]));
    out += fmt::format("<path class=\"{} dash{}\" d=\"{}\"><title>{}</title></path>",
                       curve.lines[l].ours ? "ours" : "rival", l % 6, points, escaped(curve.lines[l].rule));
  }
  return out + "</svg>";
}

std::string curves(const Sensitivity& all) {
  if (all.curves.empty()) return "";
  const auto size = [](const std::optional<double>& s) {
    return s ? fmt::format("{:.3g}", *s) : std::string("never");
  };
  std::string out = "<section id=\"curves\"><h2>From which size on</h2><div class=\"curves\">";
  for (const auto& curve : all.curves) {
    out += fmt::format(
        "<figure><h3>{}</h3>{}<div class=\"scroll\" tabindex=\"0\"><table "
        "class=\"routing\"><caption>Smallest {} found on a share of {} problems, and so for every larger "
        "one</caption><thead><tr><th scope=\"col\">rule</th>"
        "<th scope=\"col\" class=\"number\">50 %</th><th scope=\"col\" class=\"number\">99 "
        "%</th></tr></thead><tbody>",
        escaped(curve.title), drawing(curve), escaped(curve.size), curve.seeds);
    for (std::size_t l = 0; l < curve.lines.size(); ++l) {
      const auto& line = curve.lines[l];
      out += fmt::format(
          "<tr><th scope=\"row\"><svg class=\"curve legend\" viewBox=\"0 0 34 10\" "
          "aria-hidden=\"true\"><path class=\"{} dash{}\" d=\"M0 5L34 5\"/></svg> {}</th><td "
          "class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
          line.ours ? "ours" : "rival", l % 6, escaped(line.rule), size(line.half), size(line.nearly_all));
    }
    out += "</tbody></table></div></figure>";
  }
  return out + "</div></section>\n";
}

}  // namespace

std::string render_sensitivity_html(const Sensitivity& all) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta "
      "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"referrer\" "
      "content=\"no-referrer\"><title>What assay catches</title><style>{}{}</style></head><body>"
      "<a class=\"skip\" href=\"#matrix\">Skip to the results</a><main><header class=\"hero good\"><p "
      "class=\"kicker\">sensitivity</p><h1>What assay catches</h1>"
      "<p class=\"lead\">Faults planted one at a time in a correct layer, and who notices.</p><dl "
      "class=\"tiles\">",
      html::kStyle, kMoreStyle);
  for (const auto& [what, value] : all.facts)
    out += fmt::format("<div class=\"tile\"><dt>{}</dt><dd>{}</dd></div>", escaped(what), escaped(value));
  out += "</dl></header>\n";
  out += scopes(all) + rules(all) + matrix(all) + curves(all);
  return out + fmt::format("<section><h2>Command</h2><code>{}</code></section></main></body></html>\n",
                           escaped(all.command));
}

}  // namespace assay
