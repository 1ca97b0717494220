// The judge's float64 values held against the plain Eigen layer, step by step: two programs that share no
// line must agree within what float64 loses, or nothing that is judged by them means anything.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "harness/contract/engine.h"
#include "harness/contract/field.h"
#include "reference_cpu/stages.h"

namespace assay {

/// Stored values of what a step reads, whole; null where it reads none.
using StepReads = std::array<const Values<Bounded>*, kFieldCount>;

/// Those of rows `rows` of the field that confirm_by_plain_layer compares, ascending.
std::vector<std::int64_t> confirmed_rows(Field field, const Layer& layer, RowRange rows);

/// `values`: rows `rows` of the field before they are stored. All are compared where the step takes up to
/// 2^30 multiply-adds, else as many rows of the whole field, spread evenly over rows or, of experts'
/// rows and gradients, over experts that have rows,
/// the fullest among them. Throws InputError naming the field and the element where
/// both differ by more than float64 loses.
ConfirmedValues confirm_by_plain_layer(Field field, const Layer& layer, const StepReads& reads,
                                       const Values<Bounded>& values, RowRange rows);
/// The same of values that an engine keeps: it brings those rows.
ConfirmedValues confirm_by_plain_layer(Field field, const Layer& layer, const StepReads& reads,
                                       const KeptIntervals& values, RowRange rows);

}  // namespace assay
