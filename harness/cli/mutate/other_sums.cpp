#include "harness/cli/mutate/other_sums.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/contract/upstream.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {
namespace {

constexpr std::string_view kNames[] = {"recorded", "float64", "pairwise", "split_k"};

/// K in four whole numbers of tensor-core steps. Experts differ in how many rows there are to sum: those are
/// not split.
Accumulators split_in_four(const Sizes& sizes) {
  Accumulators all = every_product({AccumulatorKind::Hopper, {}});
  for (const ProductRow& product : kProducts) {
    if (product.summed == Dim::S) continue;
    const std::int64_t part = (extent(product.summed, sizes) / 4 + 15) / 16 * 16;
    all[product.id].splits = {part, part, part, part};
  }
  return all;
}

/// The field in float64 from the fields that the candidate has, stored.
Tensor in_float64(const Problem& problem, const PrecisionContract& contract, const FieldSet& fields,
                  Field field) {
  Tensor tensor(dtype_of(field, contract), expected_shape(field, problem.sizes()));
  const auto reference = make_reference(problem, usable_upstream(problem, fields), contract, {}, false);
  if (row(field).match == Match::Exact && row(field).dtype == DType::Int32) {
    std::ranges::copy(reference->expected_integers(field), tensor.as<std::int32_t>().begin());
    return tensor;
  }
  if (row(field).match == Match::Selection) {  // chosen from the logits that the candidate has so far
    std::ranges::copy(reference->routing().selected, tensor.as<std::int32_t>().begin());
    return tensor;
  }
  std::size_t i = 0;
  for (const RowRange block : blocks_of(field, problem.sizes()))
    for (const Interval& x : reference->bounded(field, Mode::Isolated, block))
      if (tensor.dtype() == DType::Float32)
        tensor.as<float>()[i++] = static_cast<float>(x.ref);
      else
        tensor.as<Bf16>()[i++] = round_to_bf16(x.ref);
  return tensor;
}

Candidate float64_candidate(const Problem& problem, const PrecisionContract& contract, const Fault& fault,
                            bool backward) {
  Candidate candidate = backward ? both_passes(problem, contract) : forward(problem, contract);
  if (fault.kind == FaultKind::None) return candidate;
  const Accumulators pairwise = every_product({AccumulatorKind::Fp32Pairwise, {}});
  const auto predicted = [&](const Fault& planted) {
    return backward ? predict_both_passes(problem, contract, pairwise, planted)
                    : predict_forward(problem, contract, pairwise, planted);
  };
  const Candidate right = predicted({});
  const Candidate wrong = predicted(fault);
  // Where the contract stores no such field, the first one computed from it.
  Field struck = fault.field;
  for (const Field later : kEvaluationOrder)
    if (!candidate.fields.has(struck) && descends_from(later, fault.field, contract) &&
        candidate.fields.has(later))
      struck = later;
  const auto from = wrong.fields.at(struck).bytes();
  const auto beside = right.fields.at(struck).bytes();
  const auto to = candidate.fields.at(struck).bytes();
  const std::size_t size = row(candidate.fields.at(struck).dtype()).size;
  for (std::size_t i = 0; i + size <= to.size(); i += size)
    if (!std::ranges::equal(from.subspan(i, size), beside.subspan(i, size)))
      std::ranges::copy(from.subspan(i, size), to.begin() + static_cast<std::ptrdiff_t>(i));
  FieldSet made;
  for (const Field field : kEvaluationOrder) {
    if (!candidate.fields.has(field)) continue;
    const bool follows = descends_from(field, struck, contract);
    made.set(field, follows ? in_float64(problem, contract, made, field) : candidate.fields.at(field));
  }
  candidate.fields = std::move(made);
  return candidate;
}

}  // namespace

std::string_view name(SumsOf sums) { return kNames[static_cast<std::size_t>(sums)]; }

SumsOf find_sums(std::string_view wanted) {
  for (const SumsOf sums : kSums)
    if (name(sums) == wanted) return sums;
  throw UsageError(fmt::format("unknown sums '{}'; valid: recorded, float64, pairwise, split_k", wanted));
}

Candidate summed_candidate(const Problem& problem, const PrecisionContract& contract, SumsOf sums,
                           const Fault& fault, bool backward) {
  if (sums == SumsOf::Float64) {
    Candidate candidate = float64_candidate(problem, contract, fault, backward);
    candidate.accumulators = {};
    return candidate;
  }
  const Accumulators accumulators = sums == SumsOf::Pairwise
                                        ? every_product({AccumulatorKind::Fp32Pairwise, {}})
                                        : split_in_four(problem.sizes());
  return backward ? predict_both_passes(problem, contract, accumulators, fault)
                  : predict_forward(problem, contract, accumulators, fault);
}

}  // namespace assay::cli
