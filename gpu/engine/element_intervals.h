// Intervals of a product's elements on the device: made of the sums over their terms
// (harness/contract/element_constants.h), and some of them brought together. Pointers are device memory.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "gpu/engine/cell_arithmetic.h"
#include "gpu/engine/engine_kernels.h"
#include "harness/contract/element_constants.h"

namespace assay::gpu {

/// What an element's interval depends on beside its sums.
struct ElementOperands {
  std::int64_t rows = 0;
  std::int64_t n = 0;
  ElementConstants constants;
  // A product of weights, or of a matrix of values; null where both operands have errors.
  const std::int32_t* source = nullptr;               // [rows]: row of the left operand
  const std::int32_t* group = nullptr;                // [rows]
  const double* row_granularity = nullptr;            // [left_rows]: 0 where the row is not exact
  const std::uint8_t* exact_row = nullptr;            // [left_rows]: no operand has a width
  const double* const* column_granularity = nullptr;  // [groups] of [n]
  // CommonErrors (harness/contract/engine.h); null where there are none.
  const double* row_errors = nullptr;     // [rows]
  const double* column_errors = nullptr;  // [n]
  bool above_underflow = false;
};

/// out [rows, n].
void element_intervals(const ElementOperands& operands, const DeviceSums* sums, DeviceInterval* out,
                       cudaStream_t stream);
void element_intervals(const ElementOperands& operands, const TwoSidedSums* sums, DeviceInterval* out,
                       cudaStream_t stream);

/// out [starts, count]: `count` neighbours from each of these elements on.
void bring_intervals(const DeviceInterval* from, const std::int64_t* starts, std::int64_t start_count,
                     std::int64_t count, DeviceInterval* out, cudaStream_t stream);

}  // namespace assay::gpu
