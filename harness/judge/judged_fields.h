// Which fields a case is about, and which of a candidate's it passes over.
#pragma once

#include <string>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"
#include "harness/judge/not_judged.h"

namespace assay {

/// What the case is about: every field that the problem has the inputs for. Gradients are asked for of
/// candidates that hold some.
FieldFlags judged_fields(const Problem& problem, const Candidate& candidate);

/// The computed fields that a candidate holds and that the problem has no d_hidden_states for.
std::vector<Unjudged> without_gradient(const Candidate& candidate, const FieldFlags& judged);

/// Names the computed fields that a candidate holds and that are not judged: a pass says nothing of them.
/// `hashes`: whether those that it holds by hashes are.
void add_not_judged(const Candidate& candidate, const FieldFlags& judged, bool hashes,
                    std::vector<std::string>& remarks);

}  // namespace assay
