// The plain layer's results under the names of the field table: as a candidate stores them, and in float64.
#pragma once

#include <span>

#include "harness/candidate.h"
#include "harness/problem.h"

namespace assay::plain {

/// The pipeline: the forward fields that the contract stores, each rounded there and nowhere else, and the
/// integers.
Candidate run_plain_layer(const Problem& problem, const PrecisionContract& contract);

/// Every field of both passes as float64, and the integers, with the routing `selected` [T, K] replayed. The
/// gradients of all experts' matrices are held at once: for small problems. Throws InputError as `forward`.
FieldSet run_both_passes(const Problem& problem, const PrecisionContract& contract,
                         std::span<const std::int32_t> selected, const Tensor& d_hidden_states);

}  // namespace assay::plain
