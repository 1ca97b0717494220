// torch's sum over the last axis of a matrix, as its CUDA reduction adds it.
#pragma once

#include <cstdint>
#include <span>

#include "reference_cpu/arithmetic.h"

namespace assay {

/// Sum of one of `rows` equally long rows that one kernel reduces (pytorch: ATen/native/cuda/Reduce.cuh). A
/// block's threads share a row: w of them, the fewer the more rows there are, 32 at least where the row is
/// that long. Thread t adds elements t + w (4 m + i) into partial sum i of four, and those in order; a lone
/// row of 128 or more is read in vectors of four, element i of each into partial sum i. Then partners at
/// distances w/2, ..., 2, 1 are added. Not determined where the kernel would split a row further.
PredictedValue row_sum_torch(std::span<const PredictedValue> row, std::int64_t rows);

}  // namespace assay
