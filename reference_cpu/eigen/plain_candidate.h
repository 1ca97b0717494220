// The plain layer as a pipeline: its results as the tensors that a candidate stores.
#pragma once

#include "harness/candidate.h"
#include "harness/problem.h"

namespace assay::plain {

/// The forward fields that the contract stores, each rounded there and nowhere else, and the integers.
Candidate run_plain_layer(const Problem& problem, const PrecisionContract& contract);

}  // namespace assay::plain
