#include "harness/judge/approvals.h"

#include <algorithm>
#include <functional>
#include <ranges>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/error.h"

namespace assay {
namespace {

/// The sentence without the case that it names where a report has several.
std::string_view own_words(const Finding& finding) {
  const std::string head = fmt::format("{}, {}: ", finding.problem, finding.candidate);
  std::string_view words = finding.sentence;
  if (words.starts_with(head)) words.remove_prefix(head.size());
  return words;
}

bool same_subject(const Finding& a, const Finding& b) {
  return a.problem == b.problem && a.candidate == b.candidate && a.field == b.field;
}

bool within(const Figure& figure, const std::vector<Figure>& approved) {
  const auto limit = std::ranges::find(approved, figure.what, &Figure::what);
  return limit != approved.end() && figure.now <= limit->now;
}

/// "isolated worst error 0.4 to 0.9, isolated other bits 3 to 12"
std::string figures_text(const Finding& finding) {
  std::vector<std::string> parts;
  if (finding.before && finding.now && finding.before != finding.now)
    parts.push_back(fmt::format("{} to {}", name(*finding.before), name(*finding.now)));
  for (const Figure& one : finding.figures)
    parts.push_back(fmt::format("{} {:.6g} to {:.6g}", one.what, one.before, one.now));
  return parts.empty() ? std::string(own_words(finding)) : fmt::format("{}", fmt::join(parts, ", "));
}

std::string approval_text(const Approval& approval) {
  return fmt::format("by {} on {}: {}", approval.by, approval.when.substr(0, 10), approval.why);
}

}  // namespace

bool covers(const ApprovedFinding& approved, const Finding& finding) {
  if (finding.incomparable || !same_subject(approved, finding) || finding.severity > approved.severity)
    return false;
  if (finding.now.has_value() != approved.now.has_value() || (finding.now && *finding.now > *approved.now))
    return false;
  if (finding.figures.empty() && !finding.now) return own_words(finding) == own_words(approved);
  return std::ranges::all_of(finding.figures,
                             [&](const Figure& one) { return within(one, approved.figures); });
}

std::vector<Finding> with_approvals(std::vector<Finding> findings,
                                    std::span<const ApprovedFinding> approved) {
  for (Finding& finding : findings) {
    if (finding.severity <= Severity::Approved) continue;
    // The last approval counts: it is what was decided since.
    const auto latest = std::views::reverse(approved);
    const auto covering =
        std::ranges::find_if(latest, [&](const Finding& one) { return covers(one, finding); });
    const auto about = std::ranges::find_if(
        latest, [&](const Finding& one) { return finding.field && same_subject(one, finding); });
    if (covering != latest.end()) {
      finding.severity = Severity::Approved;
      finding.approval = covering->approval;
      finding.sentence += fmt::format(" (approved {})", approval_text(*covering->approval));
    } else if (about != latest.end()) {
      finding.sentence += fmt::format("; beyond what was approved, {} ({})", figures_text(*about),
                                      approval_text(*about->approval));
    }
  }
  std::ranges::stable_sort(findings, std::ranges::greater{}, &Finding::severity);
  return findings;
}

std::vector<Finding> to_approve(std::span<const Finding> findings) {
  std::vector<Finding> open;
  for (const Finding& one : findings) {
    if (one.incomparable)
      throw InputError("expected changes to approve, found what could not be compared: " + one.sentence);
    if (one.severity > Severity::Approved) open.push_back(one);
  }
  return open;
}

}  // namespace assay
