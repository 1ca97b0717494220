#include "harness/cli/mutate/false_alarms.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "harness/cli/environment.h"
#include "harness/cli/mutate/mutation.h"
#include "harness/cli/mutate/permuted_order.h"
#include "harness/cli/mutate/rivals.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/contract/precision_contract.h"
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

constexpr std::string_view kKinds[] = {"tiny",         "odd",      "wide", "one_sign",
                                       "cancellation", "integers", "ties", "long"};

Candidate run_in(const LegalOrder& order, const Ground& ground, std::uint64_t seed, const Fault& planted) {
  const auto& contract = find_contract(ground.contract);
  if (order.of == nullptr) return predict_in_random_order(ground.problem, contract, seed);
  const Sizes sizes = ground.problem.sizes();
  Accumulators accumulators;
  for (const ProductRow& product : kProducts) {
    // Experts differ in how many rows there are to sum: no split is of all of them.
    const bool ragged = product.summed == Dim::S;
    accumulators[product.id] = order.of(ragged ? 0 : extent(product.summed, sizes));
    if (ragged) accumulators[product.id].splits.clear();
  }
  return predict_both_passes(ground.problem, contract, accumulators, planted);
}

/// What one seed adds to the sums.
void judge_seed(std::uint64_t seed, std::string_view fixture, const Fault& planted, FalseAlarms& sums) {
  for (const auto contract : kKernelContracts) {
    const Ground ground = make_ground(fixture, contract, Spoil::Nothing, seed, 0, true);
    for (const auto& order : kOrders) {
      Candidate candidate = run_in(order, ground, seed, planted);
      ++sums.runs;
      const auto accepting = accepting_rivals(candidate.fields.at(Field::hidden_states),
                                              ground.reference.fields.at(Field::hidden_states));
      for (auto& rival : sums.rivals)
        rival.runs += std::ranges::find(accepting, rival.rival) == accepting.end();
      for (const bool declared : {true, false}) {
        if (declared && order.of == nullptr) continue;
        if (!declared) candidate.accumulators = {};
        JudgeOptions options;
        options.reference = make_reference;
        const CaseResult result = judge(ground.problem, candidate, options);
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

void add(FalseAlarms& all, const FalseAlarms& part) {
  all.runs += part.runs;
  all.judgements += part.judgements;
  all.elements += part.elements;
  all.unjudged += part.unjudged;
  all.alarms.insert(all.alarms.end(), part.alarms.begin(), part.alarms.end());
  for (std::size_t i = 0; i < all.rivals.size(); ++i) all.rivals[i].runs += part.rivals[i].runs;
}

std::map<std::string_view, std::int64_t> by_verdict(const FalseAlarms& result) {
  std::map<std::string_view, std::int64_t> counts;
  for (const auto& alarm : result.alarms) ++counts[name(alarm.verdict)];
  return counts;
}

}  // namespace

FalseAlarms judge_correct_runs(std::int64_t seeds, std::uint64_t first_seed, const Fault& planted) {
  const auto start = std::chrono::steady_clock::now();
  FalseAlarms all = empty_sums();
  all.seeds = seeds;
  all.fixtures.assign(std::begin(kKinds), std::end(kKinds));
  for (const auto& order : kOrders) all.orders.push_back(order.id);
  all.contracts.assign(kKernelContracts.begin(), kKernelContracts.end());
  std::exception_ptr error;
  std::int64_t done = 0;
  // The problems are small: one thread each.
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t i = 0; i < seeds; ++i) {
    FalseAlarms part = empty_sums();
    try {
      judge_seed(first_seed + static_cast<std::uint64_t>(i),
                 kKinds[static_cast<std::size_t>(i) % std::size(kKinds)], planted, part);
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

ExitCode exit_code(const FalseAlarms& result) {
  if (result.judgements == 0) return ExitCode::NothingCompared;
  return result.alarms.empty() && result.unjudged == 0 ? ExitCode::Passed : ExitCode::Failed;
}

std::string text(const FalseAlarms& result) {
  std::string out = fmt::format(
      "{} correct runs ({} seeds x {} orders of summation x {} contracts), {} judgements, {} elements "
      "compared: {} alarms\n",
      result.runs, result.seeds, result.orders.size(), result.contracts.size(), result.judgements,
      result.elements, result.alarms.size());
  for (const auto& [verdict, count] : by_verdict(result)) out += fmt::format("  {} {}\n", count, verdict);
  constexpr std::size_t kShown = 20;
  for (std::size_t i = 0; i < std::min(kShown, result.alarms.size()); ++i) {
    const auto& a = result.alarms[i];
    out += fmt::format("  {} seed {}, {}, {}, {}: {}: {}\n", a.fixture, a.seed, a.order, a.contract,
                       a.declared ? "declared" : "undeclared", name(a.verdict), a.headline);
  }
  if (result.unjudged > 0) out += fmt::format("  {} judgements compared nothing\n", result.unjudged);
  out += "  correct runs rejected by rules of thumb:\n";
  for (const auto& rival : result.rivals)
    out += fmt::format(
        "    {:<16} {} of {} ({:.2f} %)\n", rival.rival, rival.runs, result.runs,
        result.runs == 0 ? 0.0 : 100.0 * static_cast<double>(rival.runs) / static_cast<double>(result.runs));
  return out;
}

std::string json(const FalseAlarms& result, const std::string& command) {
  nlohmann::ordered_json json{{"command", command}, {"created", utc_now()}};
  for (const auto& [what, value] : environment()) json["environment"][what] = value;
  json["seeds"] = result.seeds;
  json["fixtures"] = result.fixtures;
  json["orders"] = result.orders;
  json["contracts"] = result.contracts;
  json["modes"] = {"accumulators declared: predicted bits are binding",
                   "nothing declared: intervals and statistics alone"};
  json["runs"] = result.runs;
  json["judgements"] = result.judgements;
  json["elements_compared"] = result.elements;
  json["judgements_without_elements"] = result.unjudged;
  json["alarms"] = result.alarms.size();
  json["alarms_by_verdict"] = nlohmann::json::object();
  for (const auto& [verdict, count] : by_verdict(result))
    json["alarms_by_verdict"][std::string(verdict)] = count;
  json["first_alarms"] = nlohmann::json::array();
  for (std::size_t i = 0; i < std::min<std::size_t>(100, result.alarms.size()); ++i) {
    const auto& a = result.alarms[i];
    json["first_alarms"].push_back({{"fixture", a.fixture},
                                    {"seed", a.seed},
                                    {"order", a.order},
                                    {"contract", a.contract},
                                    {"declared", a.declared},
                                    {"verdict", name(a.verdict)},
                                    {"headline", a.headline}});
  }
  for (const auto& rival : result.rivals)
    json["correct_runs_rejected_by_rules_of_thumb"][std::string(rival.rival)] = rival.runs;
  json["seconds"] = result.seconds;
  return json.dump(1) + "\n";
}

FalseAlarms read_false_alarms(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    FalseAlarms result;
    result.seeds = json.at("seeds");
    result.runs = json.at("runs");
    result.judgements = json.at("judgements");
    result.elements = json.at("elements_compared");
    result.alarms.resize(json.at("alarms").get<std::size_t>());
    for (const auto& rival : rivals())
      result.rivals.push_back(
          {rival.id,
           json.at("correct_runs_rejected_by_rules_of_thumb").at(std::string(rival.id)).get<std::int64_t>()});
    return result;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("expected counts of correct runs as assay mutate --correct writes them: {}",
                                 error.what()));
  }
}

}  // namespace assay::cli
