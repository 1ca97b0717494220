// How bits under a change are compared, and what a difference means for the verdict.
#pragma once

#include <vector>

#include "harness/contract/invariant.h"
#include "harness/contract/report.h"
#include "harness/judge/matched_rows.h"

namespace assay {

/// Adds one run to a change: `tokens`[t] is the token of `base` that token t of `run` repeats, -1 for a
/// neighbour. Fields whose rows cannot be told, or that sum over other tokens, are left out. Returns whether
/// any bit differs.
bool add_run(InvarianceChange& change, const FieldSet& base, const Sizes& sizes, const FieldSet& run,
             const Sizes& run_sizes, const RowNumbers& tokens);

/// Tells a case what its changes showed: a run that is not legal is that verdict, other bits run to run are
/// Unstable, what was promised and is not kept is Failed, the rest is information. Headline, remarks and the
/// fields' notes say so.
void mark_invariance(CaseResult& result, const std::vector<InvarianceChange>& changes,
                     const std::vector<Invariant>& promised);

/// "hidden_states of 3 of 12 tokens in a batch of 16 (legal)"; the change must differ.
std::string in_words(const InvarianceChange& change);

}  // namespace assay
