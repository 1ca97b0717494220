// Tokens that took other experts than the reference: how many noise explains, and whether they are as
// predicted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/contract/selection.h"
#include "harness/judge/compare.h"

namespace assay {

/// From reference values before storing. Where the noise is not modelled, it is infinite and the probable
/// ends are the bound's.
LogitModel model_logits(std::span<const Interval> reference, Store store);

/// Flips that are no exact ties, and those of them that are suspicious, against how many are expected: a
/// token's set can only change where an expert inside exceeds one outside by a gap g that both errors
/// together bridge, of chance at most (noise_i + noise_j)^2 / g^2 (Chebyshev, whatever their dependence),
/// nothing beyond the bound. Tokens with equal logits count once. `log_share`: natural logarithm of the
/// false-alarm probability of both tests together.
Statistics flip_statistics(const MoeConfig& config, const LogitModel& logits,
                           std::span<const RoutingFlip> flips, double log_share);

/// Predicted [T, K] against found, index by index; tokens flagged as undetermined are counted as such.
Prediction compare_predicted_selection(const CompareContext& context, std::span<const std::int32_t> selected,
                                       std::span<const std::int32_t> predicted,
                                       const std::vector<bool>& undetermined_tokens);

}  // namespace assay
