#include "harness/cli/mutate/false_alarms.h"

#include <algorithm>
#include <chrono>
#include <exception>

#include <fmt/format.h>

#include "fixtures/fixtures.h"
#include "harness/cli/environment.h"
#include "harness/cli/mutate/permuted_order.h"
#include "harness/cli/mutate/rivals.h"
#include "harness/contract/layer.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/subproblem.h"
#include "harness/judge/judge.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {
namespace {

/// An order of summation that a correct kernel may use, for a product over k.
struct LegalOrder {
  std::string_view id;
  Accumulator (*of)(std::int64_t k);
};

Accumulator split_in_four(std::int64_t k) {
  const std::int64_t part = (k / 4 + 15) / 16 * 16;  // whole steps of the tensor core
  return {AccumulatorKind::Hopper, {part, part, part, part}};
}

constexpr std::int64_t kPermutedBlock = 16;  // the smallest product of the kinds below has two
constexpr std::string_view kRandomOrder = "hopper, K permuted at random";  // no accumulator declares it

// clang-format off
constexpr LegalOrder kOrders[] = {
    {"fp32_sequential",       [](std::int64_t) { return Accumulator{AccumulatorKind::Fp32Sequential, {}}; }},
    {"fp32_pairwise",         [](std::int64_t) { return Accumulator{AccumulatorKind::Fp32Pairwise, {}}; }},
    {"hopper",                [](std::int64_t) { return Accumulator{AccumulatorKind::Hopper, {}}; }},
    {"hopper, K split in 4",  split_in_four},
    {"hopper, K descending",  [](std::int64_t) { return Accumulator{AccumulatorKind::HopperDescending, {}, kPermutedBlock}; }},
    {kRandomOrder,            nullptr},
};
// clang-format on

constexpr std::size_t kExpertCacheBytes = std::size_t{1} << 30;

constexpr std::string_view kLong = "long";
constexpr std::string_view kKinds[] = {"tiny",         "odd",      "wide", "one_sign",
                                       "cancellation", "integers", "ties", kLong};

/// Nearly all elements of `long` are gradients of weights, sums of few rows. With half of its experts and of
/// their columns a quarter of them is left, each a sum of twice the rows, beside the sums of 2,048 terms.
Problem with_fewer_gradients(const Problem& problem) {
  Part part = whole(problem.sizes());
  part.experts.resize(part.experts.size() / 2);
  part.intermediate.count /= 2;
  return subproblem(problem, part);
}

Problem seeded_problem(std::string_view fixture, std::uint64_t seed) {
  Fixture row = find_fixture(fixture);
  row.seed = seed;
  Problem problem = make_problem(row);
  if (fixture == kLong) problem = with_fewer_gradients(problem);
  problem.experts = cached_experts(problem.experts, kExpertCacheBytes);
  return problem;
}

Candidate run_in(const LegalOrder& order, const Problem& problem, const PrecisionContract& contract,
                 std::uint64_t seed, const Fault& planted) {
  if (order.of == nullptr) return predict_in_random_order(problem, contract, seed);
  const Sizes sizes = problem.sizes();
  Accumulators accumulators;
  for (const ProductRow& product : kProducts) {
    // Experts differ in how many rows there are to sum: no split is of all of them.
    const bool ragged = product.summed == Dim::S;
    accumulators[product.id] = order.of(ragged ? 0 : extent(product.summed, sizes));
    if (ragged) accumulators[product.id].splits.clear();
  }
  return predict_both_passes(problem, contract, accumulators, planted);
}

/// What one seed adds to the sums.
void judge_seed(std::uint64_t seed, std::string_view fixture, const Fault& planted, FalseAlarms& sums) {
  const Problem problem = seeded_problem(fixture, seed);
  RightAnswers right = right_answers(problem, find_contract("hf"), true);
  for (const auto contract : kKernelContracts) {
    const PrecisionContract& rounds = find_contract(contract);
    right.reference = both_passes(problem, rounds);
    for (const auto& order : kOrders) {
      Candidate candidate = run_in(order, problem, rounds, seed, planted);
      ++sums.runs;
      const auto accepting = accepting_rivals(candidate.fields, right);
      for (auto& rival : sums.rivals)
        rival.runs += std::ranges::find(accepting, rival.rival) == accepting.end();
      for (const bool declared : {true, false}) {
        if (declared && order.of == nullptr) continue;
        if (!declared) candidate.accumulators = {};
        JudgeOptions options;
        options.reference = make_reference;
        const CaseResult result = judge(problem, candidate, options);
        ++sums.judgements;
        std::int64_t elements = 0;
        for (const auto& field : result.fields) elements += field.isolated.elements + field.chained.elements;
        sums.elements += elements;
        sums.unjudged += elements == 0;
        if (result.verdict != Verdict::Passed)
          sums.alarms.push_back({std::string(fixture), std::string(order.id), std::string(contract), seed,
                                 declared, result.verdict, result.headline});
      }
    }
  }
}

FalseAlarms empty_sums() {
  FalseAlarms sums;
  for (const auto& rival : rivals()) sums.rivals.push_back({rival.id, 0});
  return sums;
}

}  // namespace

void add(FalseAlarms& all, const FalseAlarms& part) {
  all.runs += part.runs;
  all.judgements += part.judgements;
  all.elements += part.elements;
  all.unjudged += part.unjudged;
  all.alarms.insert(all.alarms.end(), part.alarms.begin(), part.alarms.end());
  for (std::size_t i = 0; i < all.rivals.size(); ++i) all.rivals[i].runs += part.rivals[i].runs;
}

FalseAlarms judge_correct_runs(std::int64_t seeds, std::uint64_t first_seed, const Fault& planted) {
  const auto start = std::chrono::steady_clock::now();
  FalseAlarms all = empty_sums();
  all.seeds = {{first_seed, seeds}};
  for (const auto kind : kKinds)
    all.fixtures.push_back(
        fmt::format("{}{}", kind, kind == kLong ? ", half of its experts and columns" : ""));
  for (const auto& order : kOrders) all.orders.emplace_back(order.id);
  all.contracts.assign(kKernelContracts.begin(), kKernelContracts.end());
  std::exception_ptr error;
  std::int64_t done = 0;
  // The problems are small: one thread each.
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t i = 0; i < seeds; ++i) {
    FalseAlarms part = empty_sums();
    try {
      const std::uint64_t seed = first_seed + static_cast<std::uint64_t>(i);
      judge_seed(seed, kKinds[(seed - 1) % std::size(kKinds)], planted, part);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
#pragma omp critical
    {
      add(all, part);
      progress(fmt::format("{} of {} seeds, {} alarms", ++done, seeds, all.alarms.size()));
    }
  }
  progress_done();
  if (error) std::rethrow_exception(error);
  std::ranges::stable_sort(all.alarms, {}, &Alarm::seed);
  all.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return all;
}

}  // namespace assay::cli
