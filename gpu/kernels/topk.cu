// Softmax over the experts, exact top-k, renormalisation and weights. One warp per token: lane l holds
// experts l, l + 32, ... in registers. A single block also orders its slots by expert. Sums run over 32 lanes
// (each lane ascending, then a butterfly over 16, 8, 4, 2, 1), which is how torch sums.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/order.cuh"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {
namespace {

constexpr int kWarps = 8;

__device__ float sum_of_lanes(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

__device__ float max_of_lanes(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

// Order-preserving key of a probability (never negative); NaN is the greatest, as for torch; 0 means "not a
// candidate".
__device__ unsigned key_of(float probability) {
  return isnan(probability) ? 0x80000000u : __float_as_uint(probability) + 1u;
}

template <int kPerLane>
__global__ void __launch_bounds__(kWarps * 32)
    softmax_topk_kernel(const bf16* logits, DeviceRouting routing, std::int64_t tokens, int experts,
                        int top_k, bool renormalise, int tokens_per_chunk) {
  __shared__ int histogram[kMaxExperts];
  for (int e = threadIdx.x; e < experts; e += blockDim.x) histogram[e] = 0;
  __syncthreads();
  ptx::let_next_start();
  ptx::wait_for_previous();

  const int lane = threadIdx.x % 32;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * tokens_per_chunk;
  const std::int64_t end = min(first + tokens_per_chunk, tokens);
  for (std::int64_t token = first + threadIdx.x / 32; token < end; token += kWarps) {
    float value[kPerLane];
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int e = lane + 32 * i;
      value[i] = e < experts ? __bfloat162float(logits[token * experts + e]) : -INFINITY;
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

    unsigned key[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      value[i] = __fdiv_rn(value[i], sum);
      key[i] = lane + 32 * i < experts ? key_of(value[i]) : 0u;
    }

    float mine = 0.0f;  // lane j ends up with the j-th probability
    int my_expert = 0;
    for (int j = 0; j < top_k; ++j) {
      unsigned best = 0;
      int expert = 0;
      float probability = 0.0f;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i)
        if (key[i] > best) {  // strictly: the lowest index of this lane stays
          best = key[i];
          expert = lane + 32 * i;
          probability = value[i];
        }
      const unsigned winner = __reduce_max_sync(kAllLanes, best);
      const int chosen = static_cast<int>(
          __reduce_min_sync(kAllLanes, best == winner ? static_cast<unsigned>(expert) : ~0u));
      const float chosen_probability = __shfl_sync(kAllLanes, probability, chosen % 32);
      if (lane == j) {
        mine = chosen_probability;
        my_expert = chosen;
      }
#pragma unroll
      for (int i = 0; i < kPerLane; ++i)
        if (lane + 32 * i == chosen) key[i] = 0;
    }

    if (renormalise) mine = __fdiv_rn(mine, sum_of_lanes(mine));
    if (lane < top_k) {
      routing.selected_experts[token * top_k + lane] = my_expert;
      routing.topk_weights[token * top_k + lane] = __float2bfloat16_rn(mine);
      atomicAdd(&histogram[my_expert], 1);
    }
  }
  __syncthreads();
  for (int e = threadIdx.x; e < experts; e += blockDim.x)
    routing.chunk_counts[static_cast<std::int64_t>(e) * gridDim.x + blockIdx.x] = histogram[e];
  if (gridDim.x > 1 || threadIdx.x >= 32) return;

  // The only chunk: one warp orders it here and saves a launch.
  __shared__ int next_row[kMaxExperts];
  scan_experts(
      experts, [&](int expert) { return histogram[expert]; },
      [&](int expert, int first_row, int count) {
        next_row[expert] = first_row;
        routing.counts[expert] = count;
      });
  __syncwarp();
  write_tiles(routing, experts, next_row, histogram);
  __syncwarp();
  place_slots(routing, 0, tokens * top_k, next_row);
}

using SelectionKernel = decltype(&softmax_topk_kernel<1>);

SelectionKernel kernel_for(std::int64_t experts) {
  if (experts <= 32) return softmax_topk_kernel<1>;
  if (experts <= 64) return softmax_topk_kernel<2>;
  if (experts <= 128) return softmax_topk_kernel<4>;
  if (experts <= 256) return softmax_topk_kernel<8>;
  if (experts <= 512) return softmax_topk_kernel<16>;
  return softmax_topk_kernel<32>;
}

}  // namespace

Chunks chunks_of(std::int64_t tokens) {
  // At least one token per warp of a block, at most 512 chunks: the scan over chunks is one warp's work per
  // expert.
  Chunks chunks;
  chunks.tokens_per_chunk = std::max<std::int64_t>(kWarps, (tokens + 511) / 512);
  chunks.count = (tokens + chunks.tokens_per_chunk - 1) / chunks.tokens_per_chunk;
  return chunks;
}

void softmax_topk(const bf16* logits, const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream) {
  const auto& config = sizes.config;
  ASSAY_CHECK(config.num_experts <= kMaxExperts, "expected at most 1024 experts");
  ASSAY_CHECK(config.top_k <= kMaxTopK && config.top_k <= config.num_experts,
              "expected at most 32 experts per token");
  if (sizes.tokens == 0) return;
  const Chunks chunks = chunks_of(sizes.tokens);
  launch_kernel(kernel_for(config.num_experts), {static_cast<unsigned>(chunks.count), kWarps * 32}, stream,
                logits, routing, sizes.tokens, config.num_experts, config.top_k, config.norm_topk_prob,
                chunks.tokens_per_chunk);
}

}  // namespace assay::gpu
