// Random problems for the GPU self-check: values from a counter and a seed, so that any problem can be made
// again.
#pragma once

#include <cstdint>

#include "harness/contract/problem.h"

namespace assay::gpu {

enum class Load {
  Natural,      // Gaussian gate and input
  OneTakesAll,  // every token's first choices are the same top_k experts
  Skewed,       // the lower an expert's number, the more tokens prefer it
  Ties,         // input and gate of small integers: many equal logits
};

/// Input and output gradient N(0, 1), weights N(0, 1 / sqrt(fan in)) approximately; T = tokens.
Problem selfcheck_problem(const MoeConfig& config, std::int64_t tokens, std::uint64_t seed, Load load);

}  // namespace assay::gpu
