// All checks of one rounded field in one mode: intervals, statistics, predicted bits and vacuity, block by
// block, so that the intervals of all experts' matrices are never held at once.
#pragma once

#include <span>
#include <vector>

#include "harness/contract/reference.h"
#include "harness/judge/error_pattern.h"
#include "harness/judge/statistics.h"

namespace assay {

struct RoundedChecks {
  Judgement judgement;
  Prediction bits;
  std::vector<VacuityCheck> vacuity;
  std::shared_ptr<const PatternGatherer> pattern;  // of rejected elements, where there are any
};

/// `out`: the whole field, [rows, width]. The reference is asked for `blocks` (blocks_of), in order; blocks
/// of experts' matrices are judged a matrix at a time, so that no figure depends on the cut. `binding`: a
/// difference from predicted bits counts, and so does what they reject of wrong copies. `engine` is offered
/// the comparisons, and experts' matrices are compared with intervals that it keeps, where it does; null for
/// none. `isolated`: how the bits compared in isolated mode, for the chained one;
/// an expert's matrix that both predict alike is predicted once.
RoundedChecks check_rounded(StatisticsContext context, StoredSpan out, Reference& reference, Mode mode,
                            bool binding, std::span<const RowRange> blocks, const Engine* engine,
                            const Prediction* isolated = nullptr);

}  // namespace assay
