// One thread's part of the weighted sum over a token's slots, in torch's order: four interleaved sums, slots
// ascending in each, then added in order.
#pragma once

#include <cuda_bf16.h>

#include "gpu/kernels/rounding.h"

namespace assay::gpu {

inline constexpr int kInterleaved = 4;

/// value * weight; under Hf rounded to bf16 first.
template <Rounding kRounding>
__device__ float weighted(__nv_bfloat16 value, float weight) {
  const float product = __fmul_rn(__bfloat162float(value), weight);
  if constexpr (kRounding == Rounding::Hf) return __bfloat162float(__float2bfloat16_rn(product));
  return product;
}

/// Of neighbouring columns.
template <int kColumns>
struct InterleavedSums {
  float sums[kInterleaved][kColumns] = {};

  __device__ __nv_bfloat16 rounded(int column) const {
    return __float2bfloat16_rn(
        __fadd_rn(__fadd_rn(__fadd_rn(sums[0][column], sums[1][column]), sums[2][column]), sums[3][column]));
  }
};

}  // namespace assay::gpu
