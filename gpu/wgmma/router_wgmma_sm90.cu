// The router's product for Hopper, and with at most 128 experts what follows it: softmax, top-k and the
// counts of a chunk. A tile is 64 or 128 experts, wgmma's rows, and 16 to 64 tokens, its columns. One warp
// feeds the copy engine, K in stages of 64; a warpgroup per 64 experts multiplies. Every element's sum is one
// chain of wgmma steps, K ascending by 16. The logits leave through shared memory, where all warps of a block
// that has all experts choose its tokens' own.
#include "gpu/cuda_check.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/order.cuh"
#include "gpu/kernels/router_wgmma.h"
#include "gpu/kernels/select.cuh"
#include "gpu/wgmma/router_ring.cuh"
#include "gpu/wgmma/tensor_map.h"

namespace assay::gpu {
namespace wgmma {
namespace {

struct RouterMaps {
  CUtensorMap gate;
  CUtensorMap x;
};

struct RouterArguments {
  DeviceRouting routing;  // of a kernel that chooses
  bf16* logits;           // [T, E]
  std::int64_t tokens;
  int experts;
  int hidden;
  int top_k;
  bool renormalise;
};

/// A tile of kTokens tokens and 64 experts of each of kConsumers multiplying warpgroups. Blocks that choose
/// have more warps than multiply.
template <int kTokens_, int kConsumers, int kStages_, int kBlocks_, bool kChooses_>
struct RouterShape {
  static constexpr int kTokens = kTokens_;
  static constexpr int kStages = kStages_;
  static constexpr int kBlocks = kBlocks_;  // per multiprocessor
  static constexpr bool kChooses = kChooses_;
  static constexpr int kExperts = kConsumers * 64;
  static constexpr int kProducer = kConsumers * 4;  // the warp
  static constexpr int kThreads = kChooses ? 512 : (kProducer + 1) * 32;
  static constexpr int kExpertBytes = kExperts * 128;  // of a stage, before its tokens
  static constexpr int kStageBytes = kExpertBytes + kTokens * 128;
  static constexpr int kStaged =
      kExperts + 8;  // of a token's logits in shared memory: other banks for the next
  static constexpr int kSharedBytes = kStages * kStageBytes + kRouterAlignment;
  static_assert(kTokens * kStaged * 2 <= kStages * kStageBytes, "the logits take the place of the stages");
  static_assert(kBlocks * (kSharedBytes + 2048) <= 227 * 1024, "as many blocks fit a multiprocessor");
};

// Grid: x = tiles of tokens, y = tiles of experts.
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    router_wgmma_kernel(const RouterArguments arguments, const __grid_constant__ RouterMaps maps) {
  extern __shared__ char unaligned[];
  __shared__ RouterBarriers<Shape::kStages> barriers;
  __shared__ int histogram[Shape::kExperts];  // of blocks that choose
  char* const aligned =
      unaligned + (kRouterAlignment - ptx::shared_address(unaligned) % kRouterAlignment) % kRouterAlignment;
  const std::uint32_t base = ptx::shared_address(aligned);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const std::int64_t first_token = static_cast<std::int64_t>(blockIdx.x) * Shape::kTokens;
  const int first_expert = blockIdx.y * Shape::kExperts;
  if (threadIdx.x == 0) {
    barriers.init(Shape::kProducer);
    ptx::prefetch_map(&maps.gate);
    ptx::prefetch_map(&maps.x);
  }
  for (int e = threadIdx.x; e < Shape::kExperts; e += Shape::kThreads) histogram[e] = 0;
  __syncthreads();
  ptx::let_next_start();
  ptx::wait_for_previous();

  float d[Shape::kTokens / 2];
  const int steps = (arguments.hidden + kBoxDepth - 1) / kBoxDepth;
  if (warp == Shape::kProducer && lane == 0)
    fill_stages<Shape::kStageBytes>(
        barriers, base, steps, [&](std::uint32_t to, std::uint32_t full, int step) {
          const int k = step * kBoxDepth;
          ptx::tensor_load_2d(to, &maps.gate, full, k, first_expert);
          ptx::tensor_load_2d(to + Shape::kExpertBytes, &maps.x, full, k, static_cast<int>(first_token));
        });
  if (warp < Shape::kProducer)
    multiply_stages<Shape::kStageBytes, Lies::AlongColumns, Lies::AlongColumns, Shape::kTokens>(
        d, barriers, base, warp / 4 * ptx::kPanelBytes, Shape::kExpertBytes, steps);
  __syncthreads();                                        // nothing is read or written in the stages any more
  bf16* const staged = reinterpret_cast<bf16*>(aligned);  // [kTokens, kStaged], where the stages were
  if (warp < Shape::kProducer) {
    const int expert = warp * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < Shape::kTokens / 2; ++i)
      staged[(i / 4 * 8 + lane % 4 * 2 + i % 2) * Shape::kStaged + expert + i / 2 % 2 * 8] =
          __float2bfloat16_rn(d[i]);
  }
  __syncthreads();

  const int experts = min(Shape::kExperts, arguments.experts - first_expert);
  const int tokens =
      static_cast<int>(min(static_cast<std::int64_t>(Shape::kTokens), arguments.tokens - first_token));
  for (int t = warp; t < tokens; t += Shape::kThreads / 32) {
    const bf16* const row = staged + t * Shape::kStaged;
    const std::int64_t token = first_token + t;
#pragma unroll
    for (int e = lane; e < Shape::kExperts; e += 32)
      if (e < experts) arguments.logits[token * arguments.experts + first_expert + e] = row[e];
    if constexpr (Shape::kChooses)
      keep_choice(arguments.routing,
                  choose_experts<Shape::kExperts / 32>(row, experts, arguments.top_k, arguments.renormalise),
                  token, arguments.top_k, histogram);
  }
  if constexpr (Shape::kChooses) {
    __syncthreads();
    keep_chunk_counts(arguments.routing, blockIdx.x, experts, histogram);
  }
}

// The routing is what blocks that choose fill in.
template <class Shape>
void launch_router(const RouterProduct& router, const DeviceRouting& routing, const Sizes& sizes,
                   cudaStream_t stream) {
  const auto& config = sizes.config;
  ASSAY_CHECK(config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  ASSAY_CHECK(sizes.tokens < (std::int64_t{1} << 31), "expected fewer than 2^31 tokens");
  if (sizes.tokens == 0) return;
  const RouterMaps maps{matrix_map(router.gate, config.num_experts, config.hidden_size, Shape::kExperts),
                        matrix_map(router.x, sizes.tokens, config.hidden_size, Shape::kTokens)};
  const RouterArguments arguments{.routing = routing,
                                  .logits = router.logits,
                                  .tokens = sizes.tokens,
                                  .experts = static_cast<int>(config.num_experts),
                                  .hidden = static_cast<int>(config.hidden_size),
                                  .top_k = static_cast<int>(config.top_k),
                                  .renormalise = config.norm_topk_prob};
  const dim3 grid(static_cast<unsigned>((sizes.tokens + Shape::kTokens - 1) / Shape::kTokens),
                  static_cast<unsigned>((config.num_experts + Shape::kExperts - 1) / Shape::kExperts));
  launch_kernel(router_wgmma_kernel<Shape>, {grid, Shape::kThreads, Shape::kSharedBytes}, stream, arguments,
                maps);
}

}  // namespace
}  // namespace wgmma

// For a token or two the portable kernel has all of K on its way at once.
void router_wgmma_sm90(const RouterProduct& router, const Sizes& sizes, cudaStream_t stream) {
  using namespace wgmma;
  constexpr std::int64_t kFewTokens = 16;
  if (sizes.tokens <= kFewTokens) return router_product(router.x, router.gate, router.logits, sizes, stream);
  if (sizes.tokens <= 512) return launch_router<RouterShape<16, 1, 16, 1, false>>(router, {}, sizes, stream);
  if (sizes.tokens <= 2048) return launch_router<RouterShape<64, 1, 10, 1, false>>(router, {}, sizes, stream);
  launch_router<RouterShape<128, 2, 6, 1, false>>(router, {}, sizes, stream);
}

bool router_chooses_wgmma_sm90(const Sizes& sizes) {
  return sizes.config.num_experts <= 128 && sizes.tokens > 512;
}

// A tile has the tokens of a chunk.
void router_topk_wgmma_sm90(const RouterProduct& router, const DeviceRouting& routing, const Sizes& sizes,
                            cudaStream_t stream) {
  using namespace wgmma;
  ASSAY_CHECK(router_chooses_wgmma_sm90(sizes), "expected sizes for which the router chooses");
  ASSAY_CHECK(sizes.config.top_k <= kMaxTopK, "expected at most 32 experts per token");
  switch (chunks_of(sizes.tokens).tokens_per_chunk) {
    case 16: return launch_router<RouterShape<16, 2, 10, 1, true>>(router, routing, sizes, stream);
    case 32: return launch_router<RouterShape<32, 2, 8, 1, true>>(router, routing, sizes, stream);
    case 64: return launch_router<RouterShape<64, 2, 4, 2, true>>(router, routing, sizes, stream);
    default: ASSAY_CHECK(false, "expected a tile for the tokens of a chunk");
  }
}

}  // namespace assay::gpu
