// What the 32 lanes of a warp find out together. Sums are torch's: a butterfly over distances 16, 8, 4, 2, 1.
#pragma once

namespace assay::gpu {

inline constexpr unsigned kAllLanes = 0xffffffffu;

/// Every lane gets the sum.
__device__ inline float sum_of_lanes(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

__device__ inline float max_of_lanes(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

}  // namespace assay::gpu
