// Rows of an expert in another order, found by their values where no indices are written.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/reference.h"

namespace assay {

/// The gather_indices [S] under which every row of a field in expert order lies in its intervals, each
/// expert's rows exchanged among themselves; nothing where there is no such order, or an expert has so many
/// rows that comparing each with each would take long. `out`, `reference`: [S, width], in the routing's
/// order.
std::optional<std::vector<std::int32_t>> align_rows(const Routing& routing, std::span<const Bf16> out,
                                                    std::span<const Interval> reference);

/// "rows of expert 3 stand in another order than ascending slots", and what follows from what is declared.
std::string in_another_order(const Routing& ascending, std::span<const std::int32_t> gather,
                             ExpertRowOrder declared);

/// An order of rows that was found by the values of a field.
struct FoundOrder {
  Field seen_in;
  std::vector<std::int32_t> gather;  // [S]
};

/// The candidate as if it had written these gather_indices.
Candidate with_indices(const Candidate& candidate, const FoundOrder& order);

/// Tells in the result of such a candidate that the indices are found, not written: their judgement becomes
/// that of the field in which they were seen.
void tell_found_order(CaseResult& result, Field seen_in);

}  // namespace assay
