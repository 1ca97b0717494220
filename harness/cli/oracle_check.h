// A golden's float64 oracle against our own float64 layer: two independent computations of the same numbers.
#pragma once

#include <optional>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"
#include "harness/contract/report.h"

namespace assay::cli {

/// Every oracle field recomputed from the oracle's own upstream fields, routing replayed. Nothing if there is
/// no oracle.
std::optional<CaseResult> check_oracle(const Problem& problem, const Candidate& candidate);

}  // namespace assay::cli
