// torch's sum of a row by one warp: 32 lanes, then a butterfly.
#pragma once

#include <span>

#include "reference_cpu/arithmetic.h"

namespace assay {

/// Lane t adds elements t, t + 32, t + 64, ... in order; then each lane adds its partner's value at distances
/// 16, 8, 4, 2, 1. Lanes without elements hold 0: as torch's kernels on an H200.
inline float warp_sum(std::span<const float> values) {
  float lanes[32] = {};
  for (std::size_t i = 0; i < values.size(); ++i) lanes[i % 32] += values[i];
  for (int distance = 16; distance > 0; distance /= 2) {
    float sums[32];
    for (int t = 0; t < 32; ++t) sums[t] = lanes[t] + lanes[t ^ distance];
    for (int t = 0; t < 32; ++t) lanes[t] = sums[t];
  }
  return lanes[0];
}

}  // namespace assay
