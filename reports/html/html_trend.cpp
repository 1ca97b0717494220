#include <fmt/format.h>
#include <algorithm>

#include "harness/contract/finding.h"
#include "reports/escape.h"
#include "reports/html/html.h"
#include "reports/html/html_case.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

constexpr std::size_t kMostFindings = 12;

const CaseResult* same_case(const Report& report, const CaseResult& wanted) {
  const auto found = std::ranges::find_if(report.cases, [&](const CaseResult& c) {
    return c.problem == wanted.problem && c.candidate == wanted.candidate;
  });
  return found == report.cases.end() ? nullptr : &*found;
}

std::string findings_list(const std::vector<Finding>& findings) {
  constexpr std::string_view signs[] = {
      "<span class=\"absent\"><span class=\"sign\">=</span> same</span>",
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

std::string trend_row(const Report& report, std::span<const Report> history, std::size_t index) {
  const CaseResult& now = report.cases[index];
  std::vector<double> ratios;
  for (const Report& earlier : history)
    if (const CaseResult* before = same_case(earlier, now)) ratios.push_back(totals(*before).max_ratio);
  const std::string before = ratios.empty() ? "new" : ratio_text(ratios.back());
  ratios.push_back(totals(now).max_ratio);
  return fmt::format(
      "<tr><th scope=\"row\"><a href=\"#{}\">{}, {}</a></th><td>{}</td><td class=\"number\">{}</td><td "
      "class=\"number\">{}</td><td>{}</td></tr>\n",
      case_id(index), escaped(now.problem), escaped(now.candidate),
      svg::trend_line(ratios, fmt::format("worst error in {} runs", ratios.size())), before,
      ratio_text(ratios.back()), verdict_badge(now.verdict));
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
      "<th scope=\"col\" class=\"number\">now</th><th scope=\"col\">verdict</th></tr></thead><tbody>";
  for (std::size_t i = 0; i < report.cases.size(); ++i) out += trend_row(report, history, i);
  return out + "</tbody></table></div></section>\n";
}

}  // namespace assay::html
