// What is wrong with ids, counts and indices: why, and where.
#pragma once

#include <span>

#include "harness/contract/candidate.h"
#include "harness/contract/reference.h"

namespace assay {

/// Adds causes and places to the results of selection and index fields that failed, entries out of range
/// among them; leaves other fields, and those of another shape or dtype, as they are. A selection is
/// explained from the candidate's own logits where they are usable.
void find_index_causes(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract,
                       const Upstream& upstream, Reference& reference, std::span<FieldResult> results);

}  // namespace assay
