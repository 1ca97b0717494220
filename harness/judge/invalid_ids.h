// Ids that are no experts: they exclude their own rows, not everybody's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "harness/contract/reference.h"

namespace assay {

/// Whether each entry of selected_experts [T, K] is no expert.
std::vector<bool> invalid_slots(std::span<const std::int32_t> selected, std::int64_t experts);

/// The selection with each invalid entry replaced by an expert of the token's own right choice that the token
/// does not have: later stages of other slots are then judged as the candidate routed them. `right`: [T, K].
std::vector<std::int32_t> repaired_selection(std::span<const std::int32_t> selected,
                                             std::span<const std::int32_t> right,
                                             const std::vector<bool>& invalid, std::int64_t top_k);

/// A reference that accepts whatever stands in rows of invalid slots (of fields by token: of their tokens)
/// and predicts nothing there. Fields that the selection cannot reach, and rows of experts, are left alone.
/// `fields` are the candidate's; all arguments but `reference` must outlive the result.
std::unique_ptr<Reference> without_invalid_rows(std::unique_ptr<Reference> reference, const Sizes& sizes,
                                                const FieldSet& fields, const std::vector<bool>& invalid);

/// Notes how many rows of the field are left out so, where there are any.
void note_rows_left_out(FieldResult& result, const Sizes& sizes, const Routing& routing,
                        const std::vector<bool>& invalid);

}  // namespace assay
