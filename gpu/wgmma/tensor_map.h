// Tensor maps: what the copy engine needs to know about a tensor in device memory. Encoded by the driver,
// found at run time so that the program starts without one.
#pragma once

#include <array>
#include <cstdint>

#include <cuda.h>

#include "gpu/kernels/kernels.h"

namespace assay::gpu {

inline constexpr int kBoxDepth = 64;  // 64 bf16 are 128 bytes: one row of the 128-byte swizzle

/// One axis, innermost first. `stride` in elements; that of the innermost axis is 1. `box` is what one copy
/// takes.
struct MapAxis {
  std::int64_t extent;
  std::int64_t stride;
  int box;
};

/// Map of a bf16 tensor with the 128-byte swizzle; reads outside are zeros, writes outside are dropped.
/// Throws InputError with the driver's error number when it refuses (strides must be multiples of 8 elements,
/// the pointer of 16 bytes).
CUtensorMap tensor_map(const bf16* base, const MapAxis* axes, int rank);

/// [rows, columns] row-major in boxes of 64 columns and `box_rows` rows.
CUtensorMap matrix_map(const bf16* base, std::int64_t rows, std::int64_t columns, int box_rows);

}  // namespace assay::gpu
