#include "harness/cli/mutate/mutation.h"

#include <algorithm>

#include "fixtures/fixtures.h"
#include "harness/cli/mutate/rivals.h"
#include "harness/cli/pipelines.h"
#include "harness/contract/layer.h"
#include "harness/contract/precision_contract.h"
#include "harness/judge/judge.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {
namespace {

constexpr std::string_view kOutcomes[] = {"killed", "SURVIVED", "WRONG STAGE", "equivalent", "UNREACHED"};
constexpr std::size_t kExpertCacheBytes = std::size_t{1} << 30;

Detectors detectors(const CaseResult& result) {
  Detectors by;
  for (const auto& field : result.fields) {
    const auto& what = row(field.field);
    const bool wrong = failed(field.isolated.verdict) || field.verdict == Verdict::WrongShape ||
                       field.verdict == Verdict::WrongDtype;
    by.bits = by.bits || (field.isolated_bits.binding && field.isolated_bits.differing > 0);
    if (what.match == Match::Selection) {
      by.selection = by.selection || wrong;
    } else if (what.dtype == DType::Int32) {
      by.integers = by.integers || wrong;
    } else {
      by.isolated = by.isolated || wrong;
      by.chained = by.chained || failed(field.chained.verdict);
    }
    for (const auto* judgement : {&field.isolated, &field.chained})
      by.statistics =
          by.statistics || (!judgement->statistics.suspicion.empty() && !judgement->statistics.explained);
  }
  return by;
}

/// Whether both are computed from a field that was not written, so that its error is seen in each.
bool share_unwritten(Field a, Field b, const CaseResult& result, const PrecisionContract& contract) {
  return std::ranges::any_of(result.fields, [&](const FieldResult& field) {
    return field.verdict == Verdict::NotMaterialised && descends_from(a, field.field, contract) &&
           descends_from(b, field.field, contract);
  });
}

Sentence sentence(const CaseResult& result, Field expected) {
  const PrecisionContract& contract = find_contract(result.contract);
  Sentence said;
  said.verdict = result.verdict;
  said.killed = result.verdict >= Verdict::Suspect;
  said.right_stage = result.first_own_error == expected;
  for (const auto& field : result.fields)
    if (field.verdict >= Verdict::Suspect && field.field != expected &&
        !descends_from(field.field, expected, contract) &&
        !share_unwritten(field.field, expected, result, contract))
      said.right_stage = false;
  said.by = detectors(result);
  said.headline = result.headline;
  return said;
}

/// The stage that must show a fault in `planted`: itself, or the first one computed from it that the
/// candidate stores.
Field expected_stage(Field planted, const Candidate& candidate) {
  if (candidate.fields.has(planted)) return planted;
  const PrecisionContract& contract = find_contract(candidate.contract);
  for (const Field later : kEvaluationOrder)
    if (descends_from(later, planted, contract) && candidate.fields.has(later)) return later;
  return planted;
}

bool listed(std::string_view alternatives, std::string_view wanted) {
  while (!alternatives.empty()) {
    const auto end = std::min(alternatives.find('|'), alternatives.size());
    if (alternatives.substr(0, end) == wanted) return true;
    alternatives.remove_prefix(std::min(end + 1, alternatives.size()));
  }
  return false;
}

/// Changes that are legal of a candidate that promises no bits: a sum is within its bound in any order, and
/// zeros of both signs are one number to an interval (NUMERICS 2, 3).
bool in_bits_alone(FaultKind kind) {
  return kind == FaultKind::RowsDescending || kind == FaultKind::SlotsAscending ||
         kind == FaultKind::PositiveZero;
}

CaseResult judged(const Ground& ground, const Candidate& candidate, bool causes) {
  JudgeOptions options;
  options.reference = make_reference;
  options.causes = causes;
  return judge(ground.problem, candidate, options);
}

Outcome outcome_of(const Sentence& declared) {
  if (!declared.killed) return Outcome::Survived;
  return declared.right_stage ? Outcome::Killed : Outcome::WrongStage;
}

}  // namespace

std::string_view name(Outcome outcome) { return kOutcomes[static_cast<std::size_t>(outcome)]; }

Ground make_ground(std::string_view fixture, std::string_view contract, Spoil spoilt, std::uint64_t seed,
                   std::int64_t tokens, bool backward, SumsOf sums) {
  Ground ground;
  ground.backward = backward;
  ground.sums = sums;
  Fixture row = find_fixture(fixture);
  if (seed != 0) row.seed = seed;
  if (tokens != 0) row.batch = 1, row.sequence = tokens;
  ground.problem = make_problem(row);
  ground.problem.experts = cached_experts(ground.problem.experts, kExpertCacheBytes);
  ground.contract = contract;
  spoil(ground.problem, spoilt);
  ground.right = faulty_candidate({}, ground);
  ground.answers = right_answers(ground.problem, find_contract(contract), backward);
  return ground;
}

bool strikes_backward(const Fault& fault) { return row(fault.field).group == Group::Backward; }

Candidate faulty_candidate(const Fault& fault, const Ground& ground) {
  const auto& contract = find_contract(ground.contract);
  if (ground.sums != SumsOf::Recorded)
    return summed_candidate(ground.problem, contract, ground.sums, fault, ground.backward);
  const auto accumulators = huggingface_accumulators(ground.problem, ground.contract);
  return ground.backward ? predict_both_passes(ground.problem, contract, accumulators, fault)
                         : predict_forward(ground.problem, contract, accumulators, fault);
}

bool same_bits(const Candidate& a, const Candidate& b) {
  return std::ranges::all_of(kFields, [&](const FieldRow& what) {
    if (a.fields.has(what.id) != b.fields.has(what.id)) return false;
    return !a.fields.has(what.id) ||
           std::ranges::equal(a.fields.at(what.id).bytes(), b.fields.at(what.id).bytes());
  });
}

Sentence judge_declared(const Ground& ground, const Candidate& candidate, Field expected, CaseResult* whole) {
  Candidate hopper = candidate;
  hopper.compute_capability = "9.0";
  auto result = judged(ground, hopper, whole != nullptr);
  const auto said = sentence(result, expected);
  if (whole != nullptr) *whole = std::move(result);
  return said;
}

Sentence judge_open(const Ground& ground, const Candidate& candidate, Field expected, CaseResult* whole) {
  Candidate unknown = candidate;
  unknown.accumulators = {};
  unknown.compute_capability = "";
  auto result = judged(ground, unknown, whole != nullptr);
  const auto said = sentence(result, expected);
  if (whole != nullptr) *whole = std::move(result);
  return said;
}

Mutation plant(const FaultRow& fault, const Ground& ground, std::string_view fixture) {
  Mutation mutation;
  mutation.fault = fault.id;
  mutation.fixture = fixture;
  mutation.contract = ground.contract;
  mutation.sums = ground.sums;
  mutation.hint_expected = fault.hint;
  const Candidate candidate = faulty_candidate(fault.fault, ground);
  mutation.expected = expected_stage(fault.shows_in(), candidate);
  const bool equivalent = std::ranges::find(fault.equivalent, ground.contract) != fault.equivalent.end() ||
                          (ground.sums == SumsOf::Float64 && in_bits_alone(fault.fault.kind));
  if (same_bits(candidate, ground.right)) {
    // What a contract stores nowhere cannot be stored wrongly.
    const bool stored = store_of(fault.fault.field, find_contract(ground.contract)) == Store::Bf16;
    mutation.outcome = equivalent || !stored ? Outcome::Equivalent : Outcome::Unreached;
    return mutation;
  }
  CaseResult result;
  const bool recorded = ground.sums == SumsOf::Recorded;
  mutation.open = judge_open(ground, candidate, mutation.expected, recorded ? nullptr : &result);
  mutation.declared = ground.sums == SumsOf::Float64 ? mutation.open
                                                     : judge_declared(ground, candidate, mutation.expected,
                                                                      recorded ? &result : nullptr);
  for (const auto& field : result.fields)
    if (field.field == mutation.expected && !field.causes.empty())
      mutation.hint = field.causes.front().hypothesis;
  mutation.hint_right = !mutation.hint.empty() && listed(fault.hint, mutation.hint);
  mutation.missed_by = accepting_rivals(candidate.fields, ground.answers);
  mutation.outcome = equivalent ? Outcome::Equivalent : outcome_of(mutation.declared);
  return mutation;
}

}  // namespace assay::cli
