#include "harness/judge/regress.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <cmath>
#include <tuple>

#include "harness/contract/digits.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"

namespace assay {
namespace {

using Findings = std::vector<Finding>;

struct Pair {
  const CaseResult* before;
  const CaseResult* now;
};

struct Pairing {
  std::vector<Pair> pairs;
  std::vector<const CaseResult*> missing;
  std::vector<const CaseResult*> added;
};

/// Moves from `missing` and `added` to `pairs` what `key` says is the same, one to one; ambiguous keys are
/// left.
template <class Key>
void pair_up(Pairing& pairing, Key key) {
  const std::vector<const CaseResult*> left = pairing.missing;
  for (const CaseResult* one : left) {
    const auto same = [&](const CaseResult* other) { return key(*other) == key(*one); };
    if (std::ranges::count_if(pairing.missing, same) != 1 || std::ranges::count_if(pairing.added, same) != 1)
      continue;
    const auto found = std::ranges::find_if(pairing.added, same);
    pairing.pairs.push_back({one, *found});
    pairing.added.erase(found);
    std::erase(pairing.missing, one);
  }
}

Pairing paired(const Report& baseline, const Report& candidate) {
  Pairing pairing;
  for (const CaseResult& one : baseline.cases) pairing.missing.push_back(&one);
  for (const CaseResult& one : candidate.cases) pairing.added.push_back(&one);
  pair_up(pairing, [](const CaseResult& c) { return std::tie(c.problem, c.candidate, c.contract); });
  pair_up(pairing, [](const CaseResult& c) { return std::tie(c.problem, c.candidate); });
  pair_up(pairing, [](const CaseResult& c) { return std::tie(c.problem, c.producer); });
  pair_up(pairing, [](const CaseResult& c) { return std::tie(c.problem); });
  return pairing;
}

bool grew(double before, double now) { return now > before * kRatioGrowth && now > before + kRatioStep; }

std::string places(double ratio) { return fmt::format("{:.3g}", ratio); }

/// What two judgements of one field say differently, beyond the field's verdict.
void compare_judgements(const std::string& what, Field field, const Judgement& before, const Judgement& now,
                        Findings& findings) {
  if (!compared(before.verdict) || !compared(now.verdict)) return;
  // Fields that must match exactly have no ratio: there, more wrong elements are further off.
  const bool has_ratio = row(field).match == Match::Rounded;
  if (!has_ratio && failed(before.verdict) && failed(now.verdict) && now.rejected > before.rejected)
    findings.push_back(
        {Severity::Regression, fmt::format("{}: {} elements wrong, {} before", what,
                                           grouped_digits(now.rejected), grouped_digits(before.rejected))});
  if (has_ratio && grew(before.max_ratio, now.max_ratio)) {
    const bool legal = now.verdict <= Verdict::Passed && now.max_ratio <= 1.0;
    findings.push_back(
        {legal ? Severity::Legal : Severity::Regression,
         fmt::format("{}: the largest error grew from {} to {} of what is allowed{}", what,
                     places(before.max_ratio), places(now.max_ratio), legal ? ", and is still legal" : "")});
  }
  if (before.elements == now.elements && before.mismatched != now.mismatched)
    findings.push_back(
        {Severity::Legal, fmt::format("{}: {} of {} elements differ from the rounded reference, {} before",
                                      what, grouped_digits(now.mismatched), grouped_digits(now.elements),
                                      grouped_digits(before.mismatched))});
}

void compare_predictions(const std::string& what, const Prediction& before, const Prediction& now,
                         Findings& findings) {
  if (before.available != now.available) {
    findings.push_back({Severity::Legal,
                        fmt::format("{}: bits are {} predicted", what, now.available ? "now" : "no longer")});
    return;
  }
  if (!now.available || (before.elements == now.elements && before.as_predicted == now.as_predicted &&
                         before.differing == now.differing))
    return;
  findings.push_back(
      {Severity::Legal, fmt::format("{}: bits as predicted: {} of {}, {} of {} before", what,
                                    grouped_digits(now.as_predicted), grouped_digits(now.elements),
                                    grouped_digits(before.as_predicted), grouped_digits(before.elements))});
}

void compare_verdicts(const std::string& what, Verdict before, Verdict now, Findings& findings) {
  if (before == now) return;
  const auto sentence = fmt::format("{}: {}, {} before", what, name(now), name(before));
  if (failed(now) && !failed(before))
    findings.push_back({Severity::Regression, sentence + ": it fails now"});
  else if (compared(before) && !compared(now))
    findings.push_back({Severity::Regression, sentence + ": it is no longer compared"});
  else if (before == Verdict::Passed && now > Verdict::Passed)
    findings.push_back({Severity::Regression, sentence + ": it no longer passes"});
  else
    findings.push_back({Severity::Legal, sentence});
}

void compare_fields(const std::string& where, const FieldResult& before, const FieldResult& now,
                    Findings& findings) {
  const std::string field = fmt::format("{}{}", where, name(now.field));
  const std::size_t first = findings.size();
  compare_verdicts(field, before.verdict, now.verdict, findings);
  compare_judgements(field + " (isolated)", now.field, before.isolated, now.isolated, findings);
  compare_judgements(field + " (chained)", now.field, before.chained, now.chained, findings);
  compare_predictions(field + " (isolated)", before.isolated_bits, now.isolated_bits, findings);
  compare_predictions(field + " (chained)", before.chained_bits, now.chained_bits, findings);
  for (std::size_t i = first; i < findings.size(); ++i) findings[i].field = now.field;
}

const FieldResult* find(const CaseResult& result, Field field) {
  const auto found = std::ranges::find(result.fields, field, &FieldResult::field);
  return found == result.fields.end() ? nullptr : &*found;
}

/// Whether a field fails by what it inherits alone, from the field that is named as the first of its own.
bool follows(const FieldResult& field, const CaseResult& result) {
  return result.first_own_error && descends_from(field.field, *result.first_own_error) &&
         field.verdict == Verdict::Failed && !failed(field.isolated.verdict) &&
         compared(field.isolated.verdict);
}

/// The gravest first; of equally grave ones what is the first cause, then as fields are computed, then what
/// is about no field.
void sort_by_cause(std::span<Finding> findings, std::optional<Field> cause) {
  const auto place = [&](const Finding& one) {
    if (!one.field) return std::ssize(kEvaluationOrder);
    if (one.field == cause) return std::ptrdiff_t{-1};
    return std::ranges::find(kEvaluationOrder, *one.field) - kEvaluationOrder.begin();
  };
  std::ranges::stable_sort(findings, [&](const Finding& a, const Finding& b) {
    return a.severity != b.severity ? a.severity > b.severity : place(a) < place(b);
  });
}

std::string sizes_text(const CaseResult& c) {
  return fmt::format("{} tokens, {}, seed {}", c.tokens, to_string(c.config), c.seed);
}

void compare_settings(const std::string& where, const CaseResult& before, const CaseResult& now,
                      Findings& findings) {
  if (before.candidate != now.candidate)
    findings.push_back(
        {Severity::Same, fmt::format("{}{} is compared with {}", where, now.candidate, before.candidate)});
  if (before.contract != now.contract)
    findings.push_back({Severity::Legal, fmt::format("{}contract changed from {} to {}", where,
                                                     before.contract, now.contract)});
  if (before.accumulators != now.accumulators)
    findings.push_back({Severity::Legal, fmt::format("{}accumulators changed from \"{}\" to \"{}\"", where,
                                                     before.accumulators, now.accumulators)});
  if (before.flips.size() != now.flips.size())
    findings.push_back({Severity::Legal, fmt::format("{}tokens routed unlike the reference: {}, {} before",
                                                     where, now.flips.size(), before.flips.size())});
}

void compare_times(const std::string& where, const CaseResult& before, const CaseResult& now,
                   Findings& findings) {
  if (std::max(before.seconds, now.seconds) >= kTimeFloor && before.seconds > 0 &&
      std::fabs(now.seconds / before.seconds - 1) >= kTimeChange)
    findings.push_back({Severity::Same, fmt::format("{}verification took {:.3g} s, {:.3g} s before", where,
                                                    now.seconds, before.seconds)});
}

void compare_cases(const std::string& where, const CaseResult& before, const CaseResult& now,
                   Findings& findings) {
  if (before.tokens != now.tokens || before.config != now.config || before.seed != now.seed) {
    findings.push_back(
        {Severity::Regression, fmt::format("{}the problems differ and cannot be compared: {}; before: {}",
                                           where, sizes_text(now), sizes_text(before))});
    return;
  }
  const std::size_t first = findings.size();
  std::vector<std::string_view> followers;
  for (const FieldResult& field : before.fields) {
    const FieldResult* match = find(now, field.field);
    if (match != nullptr && follows(*match, now) && !failed(field.verdict))
      followers.push_back(name(field.field));
    else if (match != nullptr)
      compare_fields(where, field, *match, findings);
    else if (compared(field.verdict))
      findings.push_back(
          {Severity::Regression,
           fmt::format("{}{} is missing, {} before", where, name(field.field), name(field.verdict)),
           field.field});
  }
  if (!followers.empty())
    findings.push_back(
        {Severity::Regression, fmt::format("{}{} fail{} with {}", where, fmt::join(followers, ", "),
                                           followers.size() == 1 ? "s" : "", name(*now.first_own_error))});
  for (const FieldResult& field : now.fields) {
    if (find(before, field.field) != nullptr || !compared(field.verdict)) continue;
    const Severity severity = failed(field.verdict) ? Severity::Regression : Severity::Legal;
    findings.push_back({severity,
                        fmt::format("{}{} is new: {}", where, name(field.field), name(field.verdict)),
                        field.field});
  }
  sort_by_cause(std::span(findings).subspan(first), now.first_own_error);
  // A case can change as a whole, without a field that did: it could not run at all.
  if (findings.size() == first) compare_verdicts(where + "the case", before.verdict, now.verdict, findings);
  compare_settings(where, before, now, findings);
}

std::string label(const CaseResult& result) {
  return fmt::format("{}, {}", result.problem, result.candidate);
}

std::int64_t compared_fields(const CaseResult& result) {
  return std::ranges::count_if(result.fields, [](const FieldResult& f) { return compared(f.verdict); });
}

}  // namespace

std::vector<Finding> regress(const Report& baseline, const Report& candidate) {
  Findings findings;
  const Pairing pairing = paired(baseline, candidate);
  for (const CaseResult* one : pairing.missing)
    findings.push_back({Severity::Regression, fmt::format("case {} is missing", label(*one))});
  std::int64_t fields = 0;
  const auto where = [one_case = pairing.pairs.size() == 1 && pairing.missing.empty() &&
                                 pairing.added.empty()](const Pair& pair) {
    return one_case ? "" : label(*pair.now) + ": ";
  };
  for (const Pair& pair : pairing.pairs) {
    compare_cases(where(pair), *pair.before, *pair.now, findings);
    fields += std::min(compared_fields(*pair.before), compared_fields(*pair.now));
  }
  for (const CaseResult* one : pairing.added) {
    const Severity severity = failed(one->verdict) ? Severity::Regression : Severity::Legal;
    findings.push_back({severity, fmt::format("case {} is new: {}", label(*one), name(one->verdict))});
  }
  if (fields == 0)
    findings.push_back({Severity::Regression, "nothing was compared: no field was judged on both sides"});
  if (findings.empty())
    findings.push_back(
        {Severity::Same, fmt::format("no difference in {} case{} and {} fields: verdicts, error ratios and "
                                     "counts of bits are the same",
                                     pairing.pairs.size(), pairing.pairs.size() == 1 ? "" : "s", fields)});
  // Last: time alone leaves "no difference" true.
  for (const Pair& pair : pairing.pairs) compare_times(where(pair), *pair.before, *pair.now, findings);
  return findings;
}

namespace {

/// Changed bits that a judgement stands beside: legal only of a field that passes. What changed with the
/// first cause, and is wrong by it alone, becomes one finding.
void hold_against(const CaseResult& now, Findings& changes) {
  std::vector<std::string_view> followers;
  std::erase_if(changes, [&](Finding& change) {
    const FieldResult* field = change.field ? find(now, *change.field) : nullptr;
    if (field == nullptr || change.severity != Severity::Legal || field->verdict <= Verdict::Passed)
      return false;
    if (follows(*field, now)) {
      followers.push_back(name(field->field));
      return true;
    }
    change.severity = Severity::Regression;
    change.sentence += fmt::format("; it is {}", name(field->verdict));
    return false;
  });
  if (!followers.empty())
    changes.push_back({Severity::Regression, fmt::format("{} changed with {}", fmt::join(followers, ", "),
                                                         name(*now.first_own_error))});
}

}  // namespace

std::vector<Finding> regress(const Report* baseline, const Report* candidate,
                             const Candidate* baseline_results, const Candidate* candidate_results) {
  if ((baseline == nullptr) != (candidate == nullptr) ||
      (baseline_results == nullptr) != (candidate_results == nullptr))
    throw UsageError("regress compares two reports or two dumps, found one of each");
  if (baseline == nullptr && baseline_results == nullptr)
    throw UsageError("regress needs two reports or two dumps, found neither");
  Findings findings;
  if (baseline != nullptr) findings = regress(*baseline, *candidate);
  const CaseResult* now =
      candidate != nullptr && candidate->cases.size() == 1 ? &candidate->cases.front() : nullptr;
  if (baseline_results != nullptr) {
    auto changes = regress(baseline_results->fields, candidate_results->fields);
    std::ranges::move(regress(baseline_results->held, candidate_results->held), std::back_inserter(changes));
    if (now != nullptr) hold_against(*now, changes);
    std::ranges::move(changes, std::back_inserter(findings));
  }
  if (now != nullptr)
    sort_by_cause(findings, now->first_own_error);
  else
    std::ranges::stable_sort(findings, std::ranges::greater{}, &Finding::severity);
  return findings;
}

Severity worst(std::span<const Finding> findings) {
  Severity all = Severity::Same;
  for (const Finding& one : findings) all = std::max(all, one.severity);
  return all;
}

ExitCode exit_code(Severity severity) {
  switch (severity) {
    case Severity::Same: return ExitCode::Passed;
    case Severity::Legal: return ExitCode::Suspect;
    default: return ExitCode::Failed;
  }
}

}  // namespace assay
