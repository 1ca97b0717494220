// A check that cannot fail proves nothing: wrong copies of the reference are shown to the checks of a field,
// in every run.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "harness/contract/selection.h"
#include "harness/judge/compare.h"

namespace assay {

/// Gives the predicted bits that bind; null where none do. Asked only where intervals reject nothing of a
/// copy.
using BindingBits = std::function<std::span<const PredictedBits>()>;

/// Zeros, rows rotated by one, half-scaled and columns shifted by one copies of the rounded reference,
/// against the intervals and the predicted bits. A copy that equals the rounded reference is not applicable.
/// Stops at the first rejected element, so that it costs next to nothing. Empty without elements.
std::vector<VacuityCheck> vacuity_of_rounded(const CompareContext& context,
                                             std::span<const Interval> reference,
                                             const BindingBits& predicted);

/// The same copies of further rows, each shown to its own rows: rejected where any rows reject it, by
/// intervals before predicted bits; it would pass where none rejects it and some would let it pass. `checks`:
/// of the rows before, empty at first.
void add_vacuity_of_rounded(const CompareContext& context, const StretchIntervals& reference,
                            const BindingBits& predicted, std::vector<VacuityCheck>& checks);

/// Zeros and rotated by one, against equality.
std::vector<VacuityCheck> vacuity_of_integers(const CompareContext& context,
                                              std::span<const std::int32_t> expected);

/// Zeros, rotated by one token, and every expert's right neighbour, against the selection test. `right` is a
/// legal selection of `logits`. A copy that is legal by the values alone, without any slack for errors, is
/// not applicable.
std::vector<VacuityCheck> vacuity_of_selection(const MoeConfig& config, const PrecisionContract& contract,
                                               const LogitModel& logits, std::span<const std::int32_t> right);

/// "a half-scaled copy of the reference would have passed" for the checks that would; empty when all reject.
std::string in_words(const std::vector<VacuityCheck>& checks);

}  // namespace assay
