// Softmax over the experts, exact top-k, renormalisation and weights. One warp per token: lane l holds
// experts l, l + 32, ... in registers. A single block also orders its slots by expert. Sums run over 32 lanes
// (each lane ascending, then a butterfly over 16, 8, 4, 2, 1), which is how torch sums. Its gradient, through
// renormalisation and softmax, has a warp per token as well.
#include <algorithm>
#include <type_traits>

#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/lanes.cuh"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/order.cuh"
#include "gpu/kernels/ptx.cuh"
#include "gpu/kernels/select.cuh"

namespace assay::gpu {
namespace {

constexpr int kGradWarps = 8;

// Warps of a block that holds kPerLane experts per lane: a chunk's tokens at once where registers allow it.
template <int kPerLane>
constexpr int kMostWarps = kPerLane <= 16 ? 32 : 8;

template <int kPerLane>
__global__ void __launch_bounds__(kMostWarps<kPerLane> * 32)
    softmax_topk_kernel(const bf16* logits, DeviceRouting routing, std::int64_t tokens, int experts,
                        int top_k, bool renormalise, int tokens_per_chunk) {
  __shared__ int histogram[kMaxExperts];
  for (int e = threadIdx.x; e < experts; e += blockDim.x) histogram[e] = 0;
  __syncthreads();
  ptx::let_next_start();
  ptx::wait_for_previous();

  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * tokens_per_chunk;
  const std::int64_t end = min(first + tokens_per_chunk, tokens);
  for (std::int64_t token = first + threadIdx.x / 32; token < end; token += blockDim.x / 32)
    keep_choice(routing, choose_experts<kPerLane>(logits + token * experts, experts, top_k, renormalise),
                token, top_k, histogram);
  __syncthreads();
  keep_chunk_counts(routing, blockIdx.x, experts, histogram);
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

// d_router_logits of a token from the gradients of its weights. v_j are the chosen probabilities, D their
// sum: g_j = dw_j / D + sum over i of -dw_i ((v_i / D) / D), or dw_j where nothing was renormalised; then,
// with g 0 for experts that were not chosen, dL_e = g_e p_e - S p_e in one rounding, S the sum of g p over
// the experts.
template <int kPerLane>
__global__ void __launch_bounds__(kGradWarps * 32)
    softmax_topk_grad_kernel(const bf16* logits, const std::int32_t* selected_experts,
                             const bf16* d_topk_weights, bf16* d_logits, bf16* padded, std::int64_t tokens,
                             int experts, int top_k, bool renormalise) {
  ptx::let_next_start();
  ptx::wait_for_previous();
  const int lane = threadIdx.x % 32;
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kGradWarps + threadIdx.x / 32;
  if (token >= tokens) return;
  float probability[kPerLane];
  softmax_of_token(logits + token * experts, experts, probability);

  // Lane j has the j-th choice.
  const bool chooses = lane < top_k;
  const int expert = chooses ? selected_experts[token * top_k + lane] : 0;
  float gradient = chooses ? __bfloat162float(d_topk_weights[token * top_k + lane]) : 0.0f;
  if (renormalise) {
    float chosen = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const float there = __shfl_sync(kAllLanes, probability[i], expert % 32);
      if (chooses && expert / 32 == i) chosen = there;
    }
    const float sum = sum_of_lanes(chosen);
    const float through_sum =
        sum_of_lanes(chooses ? __fmul_rn(-gradient, __fdiv_rn(__fdiv_rn(chosen, sum), sum)) : 0.0f);
    gradient = __fadd_rn(__fdiv_rn(gradient, sum), through_sum);
  }

  float product[kPerLane] = {};  // of the probability with its gradient, which is 0 for most
  for (int j = 0; j < top_k; ++j) {
    const int its_expert = __shfl_sync(kAllLanes, expert, j);
    const float its_gradient = __shfl_sync(kAllLanes, gradient, j);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (lane + 32 * i == its_expert) product[i] = __fmul_rn(its_gradient, probability[i]);
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) sum = __fadd_rn(sum, product[i]);
  sum = sum_of_lanes(sum);
  const int stride = static_cast<int>(padded_experts(experts));
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = lane + 32 * i;
    const bf16 result = __float2bfloat16_rn(__fmaf_rn(-sum, probability[i], product[i]));
    if (e < experts) d_logits[token * experts + e] = result;
    if (padded != nullptr && e < stride) padded[token * stride + e] = e < experts ? result : bf16(0.0f);
  }
}

/// visit(std::integral_constant): how many experts a lane holds.
template <class Visit>
void with_experts_per_lane(std::int64_t experts, Visit visit) {
  if (experts <= 32) return visit(std::integral_constant<int, 1>{});
  if (experts <= 64) return visit(std::integral_constant<int, 2>{});
  if (experts <= 128) return visit(std::integral_constant<int, 4>{});
  if (experts <= 256) return visit(std::integral_constant<int, 8>{});
  if (experts <= 512) return visit(std::integral_constant<int, 16>{});
  return visit(std::integral_constant<int, 32>{});
}

void check_limits(const MoeConfig& config) {
  ASSAY_CHECK(config.num_experts <= kMaxExperts, "expected at most 1024 experts");
  ASSAY_CHECK(config.top_k <= kMaxTopK && config.top_k <= config.num_experts,
              "expected at most 32 experts per token");
}

}  // namespace

Chunks chunks_of(std::int64_t tokens) {
  // A block chooses for a chunk's tokens. Fewer chunks are too few blocks, and of more the counts are more to
  // read for all blocks that place slots.
  Chunks chunks;
  chunks.tokens_per_chunk = tokens <= 512 ? 8 : tokens <= 2048 ? 16 : tokens <= 4096 ? 32 : 64;
  chunks.count = (tokens + chunks.tokens_per_chunk - 1) / chunks.tokens_per_chunk;
  return chunks;
}

void softmax_topk(const bf16* logits, const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream) {
  const auto& config = sizes.config;
  check_limits(config);
  if (sizes.tokens == 0) return;
  const Chunks chunks = chunks_of(sizes.tokens);
  with_experts_per_lane(config.num_experts, [&](auto per_lane) {
    constexpr int kPerLane = decltype(per_lane)::value;
    const auto warps =
        static_cast<int>(std::min<std::int64_t>(chunks.tokens_per_chunk, kMostWarps<kPerLane>));
    launch_kernel(softmax_topk_kernel<kPerLane>, {static_cast<unsigned>(chunks.count), warps * 32}, stream,
                  logits, routing, sizes.tokens, config.num_experts, config.top_k, config.norm_topk_prob,
                  chunks.tokens_per_chunk);
  });
}

void softmax_topk_grad(const bf16* logits, const std::int32_t* selected_experts, const bf16* d_topk_weights,
                       bf16* d_logits, bf16* padded, const Sizes& sizes, cudaStream_t stream) {
  const auto& config = sizes.config;
  check_limits(config);
  if (sizes.tokens == 0) return;
  const std::int64_t blocks = (sizes.tokens + kGradWarps - 1) / kGradWarps;
  ASSAY_CHECK(blocks < (std::int64_t{1} << 31), "expected the tokens to fit one grid");
  with_experts_per_lane(config.num_experts, [&](auto per_lane) {
    launch_kernel(softmax_topk_grad_kernel<decltype(per_lane)::value>,
                  {static_cast<unsigned>(blocks), kGradWarps * 32}, stream, logits, selected_experts,
                  d_topk_weights, d_logits, padded, sizes.tokens, config.num_experts, config.top_k,
                  config.norm_topk_prob);
  });
}

}  // namespace assay::gpu
