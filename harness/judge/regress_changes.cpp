#include "harness/judge/regress_changes.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/digits.h"
#include "harness/judge/regress.h"

namespace assay {
namespace {

bool grew(double before, double now) { return now > before * kRatioGrowth && now > before + kRatioStep; }

std::string places(double ratio) { return fmt::format("{:.3g}", ratio); }

/// Clauses of one field's finding, the gravest deciding.
struct Clauses {
  bool fails_now = false;
  Severity severity = Severity::Same;
  std::vector<std::string> words = {};
  std::vector<Figure> figures = {};

  /// `within`: a change inside the bound. Of a field that fails it is said, and is not called legal.
  void add(Severity graver, std::string clause) {
    severity = std::max(severity, graver == Severity::Legal && fails_now ? Severity::Same : graver);
    words.push_back(std::move(clause));
  }
  void count(std::string what, std::int64_t before, std::int64_t now) {
    figures.push_back({std::move(what), static_cast<double>(before), static_cast<double>(now)});
  }
};

/// What two judgements of one field say differently, beyond the field's verdict.
void compare_judgements(std::string_view way, Field field, const Judgement& before, const Judgement& now,
                        Clauses& clauses) {
  if (!compared(before.verdict) || !compared(now.verdict)) return;
  // Fields that must match exactly have no ratio.
  const bool has_ratio = row(field).match == Match::Rounded;
  const bool more_wrong = now.rejected > before.rejected;
  if (more_wrong) clauses.count(fmt::format("{} elements wrong", way), before.rejected, now.rejected);
  if (failed(now.verdict) && more_wrong)
    clauses.add(Severity::Regression,
                fmt::format("{}: {} of {} elements {}, {} before", way, grouped_digits(now.rejected),
                            grouped_digits(now.elements), has_ratio ? "outside the bound" : "wrong",
                            grouped_digits(before.rejected)));
  if (has_ratio && grew(before.max_ratio, now.max_ratio)) {
    const bool legal = now.verdict <= Verdict::Passed && now.max_ratio <= 1.0;
    clauses.add(
        legal ? Severity::Legal : Severity::Regression,
        fmt::format("{}: the largest error grew from {} to {} of what is allowed{}", way,
                    places(before.max_ratio), places(now.max_ratio), legal ? ", and is still legal" : ""));
    clauses.figures.push_back({fmt::format("{} worst error", way), before.max_ratio, now.max_ratio});
  }
  if (before.elements == now.elements && before.mismatched != now.mismatched) {
    clauses.add(Severity::Legal,
                fmt::format("{}: {} of {} elements differ from the rounded reference, {} before", way,
                            grouped_digits(now.mismatched), grouped_digits(now.elements),
                            grouped_digits(before.mismatched)));
    clauses.count(fmt::format("{} other bits", way), before.mismatched, now.mismatched);
  }
}

void compare_predictions(std::string_view way, const Prediction& before, const Prediction& now,
                         Clauses& clauses) {
  const auto not_predicted = [](const Prediction& bits) {
    return bits.available ? bits.elements - bits.as_predicted : 0;
  };
  if (before.available != now.available) {
    clauses.add(Severity::Legal,
                fmt::format("{}: bits are {} predicted", way, now.available ? "now" : "no longer"));
  } else if (now.available && (before.elements != now.elements || before.as_predicted != now.as_predicted ||
                               before.differing != now.differing)) {
    clauses.add(Severity::Legal,
                fmt::format("{}: bits as predicted: {} of {}, {} of {} before", way,
                            grouped_digits(now.as_predicted), grouped_digits(now.elements),
                            grouped_digits(before.as_predicted), grouped_digits(before.elements)));
  } else {
    return;
  }
  clauses.count(fmt::format("{} bits not as predicted", way), not_predicted(before), not_predicted(now));
}

void compare_verdicts(Verdict before, Verdict now, Clauses& clauses) {
  if (before == now) return;
  const auto clause = fmt::format("{}, {} before", name(now), name(before));
  if (failed(now) && !failed(before))
    clauses.add(Severity::Regression, clause + ": it fails now");
  else if (failed(now) && now > before)
    clauses.add(Severity::Regression, clause + ": it fails worse");
  else if (compared(before) && !compared(now))
    clauses.add(Severity::Regression, clause + ": it is no longer compared");
  else if (before == Verdict::Passed && now > Verdict::Passed)
    clauses.add(Severity::Regression, clause + ": it no longer passes");
  else
    clauses.add(Severity::Legal, clause);
}

/// What both ways of judging say in the same words is said once.
void say_once(std::vector<std::string>& words) {
  constexpr std::string_view kIsolated = "isolated: ";
  constexpr std::string_view kChained = "chained: ";
  for (std::string& word : words) {
    if (!word.starts_with(kIsolated)) continue;
    const std::string rest = word.substr(kIsolated.size());
    const auto same = std::ranges::find(words, fmt::format("{}{}", kChained, rest));
    if (same == words.end()) continue;
    word = fmt::format("isolated and chained: {}", rest);
    same->clear();
  }
  std::erase(words, "");
}

}  // namespace

std::optional<Finding> field_change(const std::string& where, const FieldResult& before,
                                    const FieldResult& now) {
  Clauses clauses{.fails_now = failed(now.verdict)};
  compare_verdicts(before.verdict, now.verdict, clauses);
  const std::size_t why = clauses.words.size();
  compare_judgements("isolated", now.field, before.isolated, now.isolated, clauses);
  compare_judgements("chained", now.field, before.chained, now.chained, clauses);
  compare_predictions("isolated", before.isolated_bits, now.isolated_bits, clauses);
  compare_predictions("chained", before.chained_bits, now.chained_bits, clauses);
  if (clauses.words.empty()) return std::nullopt;
  say_once(clauses.words);
  if (const Cause* cause = named_cause(now.causes))
    clauses.words.insert(clauses.words.begin() + static_cast<std::ptrdiff_t>(why), in_words(*cause));
  if (clauses.fails_now && clauses.severity == Severity::Same) clauses.words.push_back("it still fails");
  Finding finding{clauses.severity,
                  fmt::format("{}{}: {}", where, name(now.field), fmt::join(clauses.words, "; "))};
  finding.field = now.field;
  finding.before = before.verdict;
  finding.now = now.verdict;
  finding.figures = std::move(clauses.figures);
  return finding;
}

std::optional<Finding> verdict_change(const std::string& what, Verdict before, Verdict now) {
  Clauses clauses{.fails_now = failed(now)};
  compare_verdicts(before, now, clauses);
  if (clauses.words.empty()) return std::nullopt;
  Finding finding{clauses.severity, fmt::format("{}: {}", what, clauses.words.front())};
  finding.before = before;
  finding.now = now;
  return finding;
}

}  // namespace assay
