// What a file's gradients of weights are on a part of its problem.
#pragma once

#include <cstdint>
#include <span>

#include "harness/contract/candidate.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/subproblem.h"

namespace assay::cli {

/// How the file's candidate is judged.
struct CutRules {
  const PrecisionContract& contract;
  const Accumulators& accumulators;
  bool predict = false;
};

/// `cut` has the fields of `candidate` on the part (subfields): adds what of its weight gradients the part
/// can have. A matrix of d_gate_up_proj or d_down_proj is the candidate's where all rows of its expert are in
/// the part, and what the part gives where some are not: computed from the candidate's own upstream fields,
/// so that nothing of it is wrong. A field whose experts have all lost rows is left out. Of fields held by
/// hashes the same is held, and what one hash stands for stays only where nothing was cut.
void cut_weight_gradients(const Candidate& candidate, const Problem& problem,
                          std::span<const std::int32_t> selected, const Part& part,
                          const Problem& cut_problem, const CutRules& rules, Candidate& cut);

}  // namespace assay::cli
