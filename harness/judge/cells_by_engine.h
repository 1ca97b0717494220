// Comparisons by an engine (engine.h), accepted only where sampled cells equal the CPU's and every cell is
// sound.
#pragma once

#include <optional>

#include "harness/contract/engine.h"
#include "harness/judge/statistics.h"

namespace assay {

/// The field's cells, or nothing where there is no engine (null) or it leaves the field to the CPU; with
/// intervals that it keeps they are compared there. Throws
/// InputError when a sampled cell is not the CPU's to the last bit, or any cell holds what no field can give:
/// a NaN, a count above its elements.
std::optional<FieldCells> cells_by_engine(const Engine* engine, const StatisticsContext& context,
                                          StoredSpan out, const StretchIntervals& reference);

}  // namespace assay
