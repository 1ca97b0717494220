#include "harness/judge/regress.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <cmath>
#include <tuple>

#include "harness/contract/counted_words.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/judge/regress_changes.h"

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
  return fmt::format("{}, {}, seed {}", counted(c.tokens, "token"), to_string(c.config), c.seed);
}

/// Fields that fail with another: how far off each is, so that one which gets worse is told apart.
Finding followers_finding(const std::string& where, const CaseResult& before, const CaseResult& now) {
  Finding finding{Severity::Regression, ""};
  std::vector<std::string_view> names;
  for (const FieldResult& field : before.fields) {
    const FieldResult* match = find(now, field.field);
    if (match == nullptr || !follows(*match, now) || failed(field.verdict)) continue;
    names.push_back(name(field.field));
    const auto figure = [&](std::string_view what, double from, double to) {
      finding.figures.push_back({fmt::format("{} {}", name(field.field), what), from, to});
    };
    figure("chained elements wrong", static_cast<double>(field.chained.rejected),
           static_cast<double>(match->chained.rejected));
    figure("chained worst error", field.chained.max_ratio, match->chained.max_ratio);
  }
  if (!names.empty())
    finding.sentence = fmt::format("{}{} fail{} with {}", where, fmt::join(names, ", "),
                                   names.size() == 1 ? "s" : "", name(*now.first_own_error));
  return finding;
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

Finding missing_field(const std::string& where, const FieldResult& before) {
  Finding finding{Severity::Regression,
                  fmt::format("{}{} is missing, {} before", where, name(before.field), name(before.verdict))};
  finding.field = before.field;
  return finding;
}

Finding new_field(const std::string& where, const FieldResult& now) {
  Finding finding{failed(now.verdict) ? Severity::Regression : Severity::Legal,
                  fmt::format("{}{} is new: {}", where, name(now.field), name(now.verdict))};
  finding.field = now.field;
  return finding;
}

/// False where the two are of different problems: then that is said.
bool compare_cases(const std::string& where, const CaseResult& before, const CaseResult& now,
                   Findings& findings) {
  if (before.tokens != now.tokens || before.config != now.config || before.seed != now.seed) {
    findings.push_back(
        {Severity::Regression, fmt::format("{}the problems differ and cannot be compared: {}; before: {}",
                                           where, sizes_text(now), sizes_text(before))});
    findings.back().incomparable = true;
    return false;
  }
  const std::size_t first = findings.size();
  for (const FieldResult& field : before.fields) {
    const FieldResult* match = find(now, field.field);
    if (match != nullptr && follows(*match, now) && !failed(field.verdict)) continue;
    if (match != nullptr) {
      if (auto change = field_change(where, field, *match)) findings.push_back(std::move(*change));
    } else if (compared(field.verdict)) {
      findings.push_back(missing_field(where, field));
    }
  }
  if (auto followers = followers_finding(where, before, now); !followers.sentence.empty())
    findings.push_back(std::move(followers));
  for (const FieldResult& field : now.fields)
    if (find(before, field.field) == nullptr && compared(field.verdict))
      findings.push_back(new_field(where, field));
  sort_by_cause(std::span(findings).subspan(first), now.first_own_error);
  // A case can change as a whole, without a field that did: it could not run at all.
  if (findings.size() == first)
    if (auto change = verdict_change(where + "the case", before.verdict, now.verdict))
      findings.push_back(std::move(*change));
  compare_settings(where, before, now, findings);
  for (std::size_t i = first; i < findings.size(); ++i) {
    findings[i].problem = before.problem;
    findings[i].candidate = before.candidate;
  }
  return true;
}

std::string label(const CaseResult& result) {
  return fmt::format("{}, {}", result.problem, result.candidate);
}

/// Changes of a field's bits join what its judgements say: one line per field. That a field is newly
/// written, or no longer, its verdicts say. What has no figures joins no line that has some: an approval
/// covers it word for word.
void join_line(Finding bits, const FieldResult& before, const FieldResult& now, Findings& findings) {
  const auto line = std::ranges::find_if(
      findings, [&](const Finding& one) { return one.field == bits.field && one.now.has_value(); });
  const bool said = bits.figures.empty() && line != findings.end() &&
                    (before.verdict == Verdict::NotMaterialised || now.verdict == Verdict::NotMaterialised);
  if (said) return;
  if (!bits.figures.empty()) {
    bits.before = before.verdict;
    bits.now = now.verdict;
  }
  if (line == findings.end() || (bits.figures.empty() && !line->figures.empty()))
    return findings.push_back(std::move(bits));
  const std::string head = fmt::format("{}: ", name(now.field));
  const auto without_head = [&](const std::string& sentence) {
    return sentence.substr(sentence.starts_with(head) ? head.size() : 0);
  };
  // A verdict that changed is said first, else the bits.
  if (line->before != line->now)
    line->sentence += "; " + without_head(bits.sentence);
  else
    line->sentence = bits.sentence + "; " + without_head(line->sentence);
  line->severity = std::max(line->severity, bits.severity);
  std::ranges::move(bits.figures, std::back_inserter(line->figures));
  line->incomparable |= bits.incomparable;
}

/// Changed bits that a judgement stands beside: legal only of a field that passes. What changed with the
/// first cause, and is wrong by it alone, becomes one finding.
void add_bits(Findings bits, const CaseResult& before, const CaseResult& now, Findings& findings) {
  Finding folded{Severity::Regression, "", before.problem, before.candidate};
  std::vector<std::string_view> followers;
  bool newly = true;  // they did not fail before
  for (Finding& change : bits) {
    change.problem = before.problem;
    change.candidate = before.candidate;
    const FieldResult* was = change.field ? find(before, *change.field) : nullptr;
    const FieldResult* judged = change.field ? find(now, *change.field) : nullptr;
    if (judged != nullptr && change.severity == Severity::Legal && judged->verdict > Verdict::Passed) {
      if (follows(*judged, now)) {
        followers.push_back(name(judged->field));
        newly = newly && was != nullptr && !failed(was->verdict);
        for (Figure& one : change.figures)
          folded.figures.push_back(
              {fmt::format("{} {}", name(judged->field), one.what), one.before, one.now});
        continue;
      }
      change.severity = Severity::Regression;
      if (was == nullptr || was->verdict == judged->verdict)
        change.sentence += fmt::format("; it is {}", name(judged->verdict));
    }
    if (was != nullptr && judged != nullptr)
      join_line(std::move(change), *was, *judged, findings);
    else
      findings.push_back(std::move(change));
  }
  if (followers.empty()) return;
  // Then they are said to fail with it already.
  const std::string failing = followers_finding("", before, now).sentence;
  const auto named = std::ranges::find_if(findings, [&](const Finding& one) {
    return !failing.empty() && one.sentence.ends_with(failing) && one.problem == before.problem &&
           one.candidate == before.candidate;
  });
  if (newly && named != findings.end()) {
    std::ranges::move(folded.figures, std::back_inserter(named->figures));
    return;
  }
  folded.sentence = fmt::format("{} changed with {}", fmt::join(followers, ", "), name(*now.first_own_error));
  findings.push_back(std::move(folded));
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
  bool one_problem = true;
  for (const Pair& pair : pairing.pairs) {
    if (!compare_cases(where(pair), *pair.before, *pair.now, findings)) {
      one_problem = false;
      continue;
    }
    fields += std::min(compared_fields(*pair.before), compared_fields(*pair.now));
  }
  for (const CaseResult* one : pairing.added) {
    const Severity severity = failed(one->verdict) ? Severity::Regression : Severity::Legal;
    findings.push_back({severity, fmt::format("case {} is new: {}", label(*one), name(one->verdict))});
  }
  if (fields == 0 && !one_problem)
    throw InputError("the two reports are of different problems: " +
                     std::ranges::find(findings, true, &Finding::incomparable)->sentence);
  if (fields == 0) {
    findings.push_back({Severity::Regression, "nothing was compared: no field was judged on both sides"});
    findings.back().incomparable = true;
  }
  if (findings.empty())
    findings.push_back(
        {Severity::Same,
         fmt::format("no difference in {} and {}: verdicts, error ratios and counts of bits are the same",
                     counted(std::ssize(pairing.pairs), "case"), counted(fields, "field"))});
  // Last: time alone leaves "no difference" true.
  for (const Pair& pair : pairing.pairs) compare_times(where(pair), *pair.before, *pair.now, findings);
  return findings;
}

std::vector<Finding> regress(const Report* baseline, const Report* candidate,
                             const Candidate* baseline_results, const Candidate* candidate_results) {
  if ((baseline == nullptr) != (candidate == nullptr) ||
      (baseline_results == nullptr) != (candidate_results == nullptr))
    throw UsageError("regress compares two reports or two dumps, found one of each");
  if (baseline == nullptr && baseline_results == nullptr)
    throw UsageError("regress needs two reports or two dumps, found neither");
  Findings findings;
  if (baseline != nullptr) findings = regress(*baseline, *candidate);
  const bool one_case = baseline != nullptr && baseline->cases.size() == 1 && candidate->cases.size() == 1;
  if (baseline_results != nullptr) {
    auto bits = regress(baseline_results->fields, candidate_results->fields);
    std::ranges::move(regress(baseline_results->held, candidate_results->held), std::back_inserter(bits));
    if (one_case)
      add_bits(std::move(bits), baseline->cases.front(), candidate->cases.front(), findings);
    else
      std::ranges::move(bits, std::back_inserter(findings));
  }
  if (one_case)
    sort_by_cause(findings, candidate->cases.front().first_own_error);
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
    case Severity::Same:
    case Severity::Approved: return ExitCode::Passed;
    case Severity::Legal: return ExitCode::Suspect;
    default: return ExitCode::Failed;
  }
}

}  // namespace assay
