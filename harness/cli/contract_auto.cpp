#include "harness/cli/contract_auto.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/bf16.h"
#include "harness/contract/layer.h"
#include "harness/judge/contract_fit.h"

namespace assay::cli {
namespace {

std::pair<Verdict, std::int64_t> misfit(const CaseResult& result) {
  std::int64_t rejected = 0;
  for (const auto& field : result.fields) rejected += field.isolated.rejected;
  return {result.verdict, rejected};
}

std::int64_t elements(const CaseResult& result) {
  std::int64_t all = 0;
  for (const auto& field : result.fields) all += field.isolated.elements;
  return all;
}

bool wide(Field field, const Candidate& candidate) {
  return candidate.fields.has(field) && candidate.fields.at(field).dtype() == DType::Float32;
}

/// Whether the candidate can follow the contract, and tells it from those before that differ in nothing it
/// shows: float32 fields are kept by some contracts and no others, gradients of before are added to, and a
/// backward pass may be missing.
bool in_question(const PrecisionContract& contract, const Problem& problem, const Candidate& candidate) {
  if (contract.unit_roundoff != kFp32UnitRoundoff) return false;
  for (const Field field : {Field::router_logits, Field::topk_weights})
    if (candidate.fields.has(field) && dtype_of(field, contract) == DType::Float32 && !wide(field, candidate))
      return false;
  if (contract.weight_gradients == Store::Unrounded)
    return std::ranges::any_of(kFields, [&](const FieldRow& field) {
      return is_weight_gradient(field.id) && wide(field.id, candidate);
    });
  if (contract.weight_products == Store::Unrounded) return problem.has_previous();
  return has_gradients(candidate.fields) ||
         std::none_of(kContracts.data(), &contract, [&](const PrecisionContract& before) {
           return differing_points(contract, before, false).empty();
         });
}

}  // namespace

ContractTrials try_contracts(const Problem& problem, const Candidate& candidate,
                             const JudgeOptions& options) {
  ContractTrials trials;
  std::vector<CaseResult> results;
  std::string tried;
  for (const auto& contract : kContracts) {
    if (!in_question(contract, problem, candidate)) continue;
    JudgeOptions under = options;
    under.contract = contract.name;
    under.causes = false;  // of what is wrong under the best one alone
    results.push_back(judge(problem, candidate, under));
    const CaseResult& result = results.back();
    if (result.verdict == Verdict::Passed) trials.passed.push_back(result.contract);
    tried += fmt::format("{}{}: {} of {} elements rejected", tried.empty() ? "" : ", ", contract.name,
                         misfit(result).second, elements(result));
  }
  auto best = std::ranges::min_element(results, {}, misfit);
  std::vector<std::string> remarks;
  if (candidate.fields.has(Field::hidden_states) && problem.sizes().tokens > 0) {
    const auto declared = options.accumulators.value_or(candidate.accumulators);
    const ContractFit fit = fit_contract(problem, candidate, *best, assumed_where_unknown(declared),
                                         options.reference, options.engine);
    // Where none is followed, the one with the fewest other rounding points says more than the one with the
    // fewest rejections.
    const bool same_points =
        differing_points(find_contract(best->contract), *fit.closest, has_gradients(candidate.fields))
            .empty();
    if (best->verdict > Verdict::Passed && !same_points)
      best = std::ranges::find(results, fit.closest->name, &CaseResult::contract);
    trials.fitted = fit.fitted;
    std::vector<std::string> named = {best->contract};
    if (candidate.contract != kContractAuto && candidate.contract != best->contract)
      named.push_back(candidate.contract);
    for (const auto& name : named)
      if (const auto points =
              differing_points(fit.fitted, find_contract(name), has_gradients(candidate.fields));
          !points.empty())
        remarks.push_back(
            fmt::format("the candidate differs from contract {}: {}", name, fmt::join(points, "; ")));
  }
  if (options.causes && best->verdict > Verdict::Passed) {
    JudgeOptions under = options;
    under.contract = best->contract;
    *best = judge(problem, candidate, under);
  }
  best->remarks.push_back(fmt::format("contract auto: the data follow {} best ({})", best->contract, tried));
  best->remarks.insert(best->remarks.end(), remarks.begin(), remarks.end());
  trials.best = std::move(*best);
  return trials;
}

CaseResult judge_best_contract(const Problem& problem, const Candidate& candidate,
                               const JudgeOptions& options) {
  return try_contracts(problem, candidate, options).best;
}

}  // namespace assay::cli
