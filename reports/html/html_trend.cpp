#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <iterator>

#include "harness/contract/finding.h"
#include "reports/escape.h"
#include "reports/history.h"
#include "reports/html/html.h"
#include "reports/html/html_case.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

constexpr std::size_t kMostFindings = 12;
constexpr std::size_t kMostCasesInFull = 20;  // the file is to be mailed

std::string findings_list(const std::vector<Finding>& findings) {
  constexpr std::string_view signs[] = {
      "<span class=\"absent\"><span class=\"sign\">=</span> same</span>",
      "<span class=\"good\"><span class=\"sign\">✔</span> approved</span>",
      "<span class=\"doubt\"><span class=\"sign\">~</span> legal change</span>",
      "<span class=\"bad\"><span class=\"sign\">✘</span> regression</span>"};
  std::string out = "<ul class=\"findings\">";
  for (std::size_t i = 0; i < std::min(kMostFindings, findings.size()); ++i)
    out += fmt::format("<li>{}: {}</li>", signs[static_cast<std::size_t>(findings[i].severity)],
                       escaped(findings[i].sentence));
  if (findings.size() > kMostFindings)
    out += fmt::format("<li>and {} more</li>", findings.size() - kMostFindings);
  return out + "</ul>";
}

std::string times(const CaseHistory& one) {
  const auto& runs = one.runs;
  return fmt::format("{}<small>{} before</small>", seconds_text(runs.back()->seconds),
                     seconds_text(runs[runs.size() - 2]->seconds));
}

std::string trend_row(const Report& report, const CaseHistory* one, std::size_t index) {
  const CaseResult& now = report.cases[index];
  std::vector<double> ratios;
  std::vector<std::optional<Verdict>> verdicts;
  if (one != nullptr)
    for (const CaseResult* run : one->runs) {
      ratios.push_back(totals(*run).max_ratio);
      verdicts.push_back(run->verdict);
    }
  else
    ratios.push_back(totals(now).max_ratio);
  const auto changes = one == nullptr ? std::vector<std::string>{} : verdict_changes(verdicts, one->created);
  return fmt::format(
      "<tr><th scope=\"row\"><a href=\"#{}\">{}, {}</a></th><td>{}</td><td class=\"number\">{}</td><td "
      "class=\"number\">{}</td><td>{}{}</td><td class=\"number\">{}</td></tr>\n",
      case_id(index), escaped(now.problem), escaped(now.candidate),
      svg::trend_line(ratios, fmt::format("worst error in {} runs", ratios.size())),
      one == nullptr ? "new" : ratio_text(ratios[ratios.size() - 2]), ratio_text(ratios.back()),
      verdict_badge(now.verdict),
      changes.empty() ? "" : fmt::format("<small>{}</small>", escaped(changes.front())),
      one == nullptr ? seconds_text(now.seconds) : times(*one));
}

/// Its fields over time: a line each, and what each run said.
std::string fields_over_time(const Report& report, const CaseHistory& one) {
  const auto shown = runs_shown(one.runs.size());
  const CaseResult& now = report.cases[one.index];
  std::string out = fmt::format(
      "<details class=\"field\"><summary>{}, {}: field by field in {} reports</summary><div class=\"scroll\" "
      "tabindex=\"0\"><table class=\"brief\"><thead><tr><th scope=\"col\">field</th><th scope=\"col\">worst "
      "error over time</th>",
      escaped(now.problem), escaped(now.candidate), one.runs.size());
  for (const std::size_t run : shown)
    out += fmt::format("<th scope=\"col\">{}</th>", escaped(one.created[run]));
  out += "<th scope=\"col\">verdict</th></tr></thead><tbody>";
  for (const FieldHistory& field : one.fields) {
    std::vector<double> ratios;
    std::ranges::copy_if(field.worst, std::back_inserter(ratios), [](double x) { return !std::isnan(x); });
    out += fmt::format("<tr><th scope=\"row\"><code>{}</code></th><td>{}</td>", name(field.field),
                       ratios.empty() ? "<span class=\"muted\">must match exactly</span>"
                                      : svg::trend_line(ratios, "worst error over time"));
    for (const std::size_t run : shown) {
      const auto& verdict = field.verdicts[run];
      out += verdict ? fmt::format("<td><span class=\"{}\"><span class=\"sign\">{}</span> {}</span></td>",
                                   css_class(*verdict), sign(mark(*verdict)), history_cell(field, run))
                     : "<td>–</td>";
    }
    const auto changes = verdict_changes(field.verdicts, one.created);
    out += fmt::format("<td>{}</td></tr>\n", changes.empty() ? "no change" : escaped(changes.front()));
  }
  out += "<tr><th scope=\"row\">verified in</th><td></td>";
  for (const std::size_t run : shown) out += fmt::format("<td>{}</td>", seconds_text(one.runs[run]->seconds));
  return out + "<td></td></tr></tbody></table></div></details>\n";
}

}  // namespace

std::string trend_section(const Report& report, const History& earlier) {
  const auto history = earlier.reports;
  if (history.empty()) return "";
  auto findings = earlier.since_last;
  std::ranges::stable_sort(findings, std::ranges::greater{}, &Finding::severity);
  std::string out =
      fmt::format("<section id=\"trend\"><h2>Since {}</h2>{}",
                  escaped(history.back().created.empty() ? "the last report" : history.back().created),
                  findings_list(findings));
  out +=
      "<div class=\"scroll\" tabindex=\"0\"><table class=\"routing\"><caption>Worst error of each case over "
      "the reports given, oldest first; the dashed line at 1 is the "
      "limit.</caption><thead><tr><th scope=\"col\">case</th><th scope=\"col\">worst error over time</th><th "
      "scope=\"col\" class=\"number\">before</th>"
      "<th scope=\"col\" class=\"number\">now</th><th scope=\"col\">verdict</th><th scope=\"col\" "
      "class=\"number\">verified in</th></tr></thead><tbody>";
  const auto cases = case_histories(report, history);
  for (std::size_t i = 0; i < report.cases.size(); ++i) {
    const auto one = std::ranges::find(cases, i, &CaseHistory::index);
    out += trend_row(report, one == cases.end() ? nullptr : &*one, i);
  }
  out += "</tbody></table></div>";
  for (std::size_t i = 0; i < std::min(kMostCasesInFull, cases.size()); ++i)
    out += fields_over_time(report, cases[i]);
  return out + "</section>\n";
}

}  // namespace assay::html
