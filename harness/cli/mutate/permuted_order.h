// A correct layer whose products walk K in a random order: legal, and described by no accumulator.
#pragma once

#include <cstdint>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay::cli {

/// The predicted run of both passes of the problem with H and I permuted wherever a product sums over them;
/// its fields are put back in place. Rows of an expert are summed in their own order.
Candidate predict_in_random_order(const Problem& problem, const PrecisionContract& contract,
                                  std::uint64_t seed);

}  // namespace assay::cli
