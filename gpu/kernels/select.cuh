// A token's experts from its logits, by one warp: lane l holds experts l, l + 32, ... in registers. Device
// functions shared by the kernels that choose. Sums run over 32 lanes (each lane ascending, then a butterfly
// over 16, 8, 4, 2, 1), which is how torch sums.
#pragma once

#include "gpu/kernels/kernels.h"
#include "gpu/kernels/lanes.cuh"

namespace assay::gpu {

/// value[i]: the probability of expert lane + 32 i among a token's logits [E], in fp32; 0 behind the last
/// expert.
template <int kPerLane>
__device__ void softmax_of_token(const bf16* logits, int experts, float (&value)[kPerLane]) {
  const int lane = threadIdx.x % 32;
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = lane + 32 * i;
    value[i] = e < experts ? __bfloat162float(logits[e]) : -INFINITY;
    largest = fmaxf(largest, value[i]);
  }
  largest = max_of_lanes(largest);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    value[i] = lane + 32 * i < experts ? expf(__fsub_rn(value[i], largest)) : 0.0f;
    sum = __fadd_rn(sum, value[i]);
  }
  sum = sum_of_lanes(sum);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) value[i] = __fdiv_rn(value[i], sum);
}

// Order-preserving key of a probability (never negative); NaN is the greatest, as for torch; 0 means "not a
// candidate".
__device__ inline unsigned key_of(float probability) {
  return isnan(probability) ? 0x80000000u : __float_as_uint(probability) + 1u;
}
__device__ inline float probability_of(unsigned key) { return __uint_as_float(key - 1u); }

/// Lane j < top_k has the token's j-th choice.
struct Choice {
  int expert;
  bf16 weight;
};

/// The K largest probabilities, lowest index first among equals, and their weights. `logits` [E].
template <int kPerLane>
__device__ Choice choose_experts(const bf16* logits, int experts, int top_k, bool renormalise) {
  const int lane = threadIdx.x % 32;
  unsigned key[kPerLane];
  {
    float value[kPerLane];
    softmax_of_token(logits, experts, value);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) key[i] = lane + 32 * i < experts ? key_of(value[i]) : 0u;
  }
  float mine = 0.0f;
  int my_expert = 0;
  for (int j = 0; j < top_k; ++j) {
    unsigned best = 0;
    unsigned expert = ~0u;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (key[i] > best) {  // strictly: the lowest index of this lane stays
        best = key[i];
        expert = lane + 32 * i;
      }
    const unsigned winner = __reduce_max_sync(kAllLanes, best);
    const auto chosen = static_cast<int>(__reduce_min_sync(kAllLanes, best == winner ? expert : ~0u));
    if (lane == j) {
      mine = probability_of(winner);
      my_expert = chosen;
    }
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (lane + 32 * i == chosen) key[i] = 0;
  }
  if (renormalise) mine = __fdiv_rn(mine, sum_of_lanes(mine));
  return {my_expert, __float2bfloat16_rn(mine)};
}

/// What a warp chose for a token, where later steps look for it.
__device__ inline void keep_choice(const DeviceRouting& routing, const Choice& choice, std::int64_t token,
                                   int top_k, int* histogram) {
  const int lane = threadIdx.x % 32;
  if (lane >= top_k) return;
  routing.selected_experts[token * top_k + lane] = choice.expert;
  routing.topk_weights[token * top_k + lane] = choice.weight;
  atomicAdd(&histogram[choice.expert], 1);
}

}  // namespace assay::gpu
