#include "harness/contract/summation.h"

#include <algorithm>

namespace assay {
namespace {

std::vector<SumStretch> split_at(const std::vector<std::int64_t>& lengths, std::int64_t k) {
  std::vector<SumStretch> stretches;
  std::int64_t begin = 0;
  for (std::size_t part = 0; part < lengths.size() && begin < k; ++part) {
    const std::int64_t end = part + 1 == lengths.size() ? k : std::min(k, begin + lengths[part]);
    stretches.push_back({begin, end, true});
    begin = end;
  }
  return stretches;
}

/// Blocks first, first + step, ... of K: one partial sum.
void add_partial_sum(std::vector<SumStretch>& stretches, std::int64_t k, std::int64_t block,
                     std::int64_t first, std::int64_t step) {
  const std::int64_t blocks = (k + block - 1) / block;
  for (std::int64_t b = first; b >= 0 && b < blocks; b += step)
    stretches.push_back({b * block, std::min(k, (b + 1) * block), false});
  if (!stretches.empty()) stretches.back().closes = true;
}

}  // namespace

Summation summation(const Accumulator& accumulator, std::int64_t k) {
  const SumStretch all{0, k, true};
  switch (accumulator.kind) {
    case AccumulatorKind::Fp32Sequential: return {StepRule::RoundEach, {all}};
    case AccumulatorKind::Fp32Pairwise: return {StepRule::RoundTree, {all}};
    case AccumulatorKind::Ampere: return {StepRule::Truncate8, {all}};
    default: break;
  }
  Summation order{StepRule::Truncate16, {}};
  const std::int64_t block = std::max<std::int64_t>(1, accumulator.block);
  if (accumulator.kind == AccumulatorKind::HopperDescending) {
    add_partial_sum(order.stretches, k, block, (k + block - 1) / block - 1, -1);
  } else if (accumulator.kind == AccumulatorKind::HopperInterleaved) {
    // Parts beyond the blocks get none.
    for (std::int64_t part = 0; part < std::min(accumulator.parts, (k + block - 1) / block); ++part)
      add_partial_sum(order.stretches, k, block, part, accumulator.parts);
  } else {
    order.stretches = accumulator.splits.empty() ? std::vector{all} : split_at(accumulator.splits, k);
  }
  return order;
}

bool order_declared(const Accumulator& accumulator) {
  return accumulator.kind != AccumulatorKind::Unknown && accumulator.kind != AccumulatorKind::HopperAnySplit;
}

}  // namespace assay
