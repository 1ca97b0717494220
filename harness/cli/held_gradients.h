// Which gradients a golden holds by their hashes, as the exporter chooses.
#pragma once

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay::cli {

/// Whether the exporter stores every field of the problem: its weights are small.
bool stores_everything(const Problem& problem);

/// Moves a full-width layer's gradients from the candidate's fields to what it holds: those of weights, and
/// of an eager run all of backward, with some rows stored (golden/python/assay_golden/held.py).
void hold_large_gradients(const Problem& problem, Candidate& candidate);

}  // namespace assay::cli
