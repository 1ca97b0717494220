// The plain layer's results under the names of the field table: as a candidate stores them, and in float64.
#pragma once

#include <span>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay::plain {

/// The pipeline: the fields that the contract stores, each rounded there and nowhere else, and the integers;
/// gradients where the problem has one of the output, all experts' matrices at once.
Candidate run_plain_layer(const Problem& problem, const PrecisionContract& contract);

/// Every field of both passes as float64, and the integers, with the routing `selected` [T, K] replayed. The
/// gradients of all experts' matrices are held at once: for small problems. Throws InputError as `forward`.
FieldSet run_both_passes(const Problem& problem, const PrecisionContract& contract,
                         std::span<const std::int32_t> selected, const Tensor& d_hidden_states);

/// Some tokens of a problem of any size: every field with a row per token or slot. Their rows stand in the
/// order of `tokens`, ascending, rows in expert order in that of `rows_of_tokens` (harness/subproblem.h);
/// what sums over tokens is absent.
FieldSet run_tokens(const Problem& problem, const PrecisionContract& contract,
                    std::span<const std::int32_t> selected, const Tensor& d_hidden_states,
                    std::span<const std::int64_t> tokens);

/// One expert of a problem of any size: d_gate_up_proj [2I, H] and d_down_proj [H, I], from the tokens that
/// chose it.
FieldSet run_expert(const Problem& problem, const PrecisionContract& contract,
                    std::span<const std::int32_t> selected, const Tensor& d_hidden_states,
                    std::int64_t expert);

}  // namespace assay::plain
