// The order in which a declared accumulator adds: what predictions and running bounds both walk.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/contract/accumulator.h"

namespace assay {

/// Elements [begin, end) of K, ascending, added to the running partial sum. After the last stretch of a
/// partial sum (`closes`) it is added to the total in fp32 and the next one starts from zero, with a new step
/// of the tensor core.
struct SumStretch {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool closes = true;
  friend bool operator==(const SumStretch&, const SumStretch&) = default;
};

enum class StepRule {
  RoundEach,   // one product at a time, rounded to nearest
  RoundTree,   // pairs, rounded to nearest
  Truncate8,   // tensor core: 8 products and the running sum aligned, 24 fractional bits kept, truncated
  Truncate16,  // the same with 16 products and 25 bits
};

struct Summation {
  StepRule rule = StepRule::Truncate16;
  std::vector<SumStretch> stretches;
};

/// The order for a product of k terms. Undeclared orders (`unknown`, `hopper_any_split`) are walked as
/// `hopper`. Splits that do not add up to k: the last one takes the rest.
Summation summation(const Accumulator& accumulator, std::int64_t k);

/// Whether the accumulator says in which order K is summed, so that the running bound holds.
bool order_declared(const Accumulator& accumulator);

}  // namespace assay
