// Which of its two bounds judged a field: for the worst element, and typically.
#pragma once

#include <span>

#include "harness/judge/compare.h"

namespace assay {

/// Fills the judgement's `bounds` and both bounds of its worst element. `reference`: the intervals it was
/// judged by.
void account_for_bounds(const CompareContext& context, std::span<const Interval> reference,
                        Reference& accounts, Mode mode, Judgement& judgement);

}  // namespace assay
