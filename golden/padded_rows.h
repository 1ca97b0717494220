// Rows in expert order of which every expert's begin at a multiple of some number: kernels that work on tiles
// of rows pad each expert's to whole ones. The rows between are nobody's, and are not read.
#pragma once

#include <cstdint>

#include "harness/contract/candidate.h"
#include "harness/contract/config.h"

namespace assay {

/// The most rows that an alignment can ask for: every expert's last tile as good as empty.
std::int64_t most_padded_rows(const Sizes& sizes, std::int64_t alignment);

/// Leaves the rows between out of every field in expert order and says how many there were. Where the rows of
/// expert e begin follows from the experts before it, by selected_experts, or without it by
/// token_counts_by_expert. A field with fewer rows than that asks for is misstored; more at the end are
/// padding.
void leave_padding_out(Candidate& candidate, const Sizes& sizes, std::int64_t alignment);

}  // namespace assay
