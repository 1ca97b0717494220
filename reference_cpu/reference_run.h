// The reference beside one candidate: every forward field, isolated (from the candidate's own upstream
// fields) and chained (from the problem's inputs, the candidate's routing replayed), in both arithmetics.
#pragma once

#include <memory>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"
#include "harness/contract/reference.h"

namespace assay {

/// A ReferenceFactory (harness/contract/reference.h).
std::unique_ptr<Reference> make_reference(const Problem& problem, const Upstream& upstream,
                                          const PrecisionContract& contract, const Accumulators& accumulators,
                                          bool predict, const Engine* engine = nullptr);

}  // namespace assay
