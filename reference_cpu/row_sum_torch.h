// torch's sum over the last axis of a bf16 matrix, as its CUDA reduction adds it.
#pragma once

#include <cstdint>
#include <span>

#include "reference_cpu/arithmetic.h"

namespace assay {

/// Sum of row `index` of `rows` equally long rows that one kernel reduces (pytorch:
/// ATen/native/cuda/Reduce.cuh). A block's threads share a row: w of them, the fewer the more rows there are.
/// Short rows: thread t adds elements t + w (4 m + i) into partial sum i of four. From 128 elements on rows
/// are read in aligned vectors of eight: thread t adds element i of vectors t + w m into partial sum i;
/// elements before the first whole vector, and after the last one, go to partial sum 0 of one thread each.
/// Partial sums are added in order, then partners at distances w/2, ..., 2, 1. Seen of torch 2.11.0+cu130 on
/// an NVIDIA H200 (driver 580.159, 2026-11-29): every bit of 18,700 fp32 sums, 1 to 1,000 rows of 8 to 4,096
/// elements. Not determined where a row is split further, from 8,192 elements on.
PredictedValue row_sum_torch(std::span<const PredictedValue> row, std::int64_t index, std::int64_t rows);

}  // namespace assay
