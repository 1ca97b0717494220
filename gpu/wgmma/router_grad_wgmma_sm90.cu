// Both gradients of the router's product for Hopper. A block makes a tile of 128 rows, 64 of each of two
// multiplying warpgroups, and 64 or 128 columns of H; one warp feeds the copy engine. d_x sums over the
// experts, d_gate over the tokens, for which d_logits is read as it is, along its rows; so are gate and x.
#include "gpu/cuda_check.h"
#include "gpu/kernels/gradient_store.cuh"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/router_wgmma.h"
#include "gpu/wgmma/router_ring.cuh"
#include "gpu/wgmma/tensor_map.h"

namespace assay::gpu {
namespace wgmma {
namespace {

constexpr int kConsumers = 2;
constexpr int kRows = kConsumers * 64;
constexpr int kThreads = kConsumers * 128 + 32;

struct RouterGradMaps {
  CUtensorMap d_logits;
  CUtensorMap right;  // gate, or x
};

struct RouterGradArguments {
  bf16* d_x;
  WeightGradient d_gate;
  std::int64_t height;  // of the result: T or E
  int width;            // H
  int depth;            // of the sums: E or T
};

template <bool kOfGate>
struct RouterGradShape {
  static constexpr int kColumns = kOfGate ? 64 : 128;
  static constexpr int kStages = kOfGate ? 8 : 3;
  static constexpr int kLeftBytes = kRows * 128;
  static constexpr int kStageBytes = kLeftBytes + kColumns * 128;
  static constexpr int kSharedBytes = kStages * kStageBytes + kRouterAlignment;
};

// Grid: x = tiles of columns, y = tiles of rows.
template <bool kOfGate>
__global__ void __launch_bounds__(kThreads, kOfGate ? 1 : 2)
    router_grad_kernel(const RouterGradArguments arguments, const __grid_constant__ RouterGradMaps maps) {
  using Shape = RouterGradShape<kOfGate>;
  constexpr int kColumns = Shape::kColumns;
  constexpr Lies kLiesLeft = kOfGate ? Lies::AlongRows : Lies::AlongColumns;
  extern __shared__ char unaligned[];
  __shared__ RouterBarriers<Shape::kStages> barriers;
  char* const aligned =
      unaligned + (kRouterAlignment - ptx::shared_address(unaligned) % kRouterAlignment) % kRouterAlignment;
  const std::uint32_t base = ptx::shared_address(aligned);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * kRows;
  const int first_column = blockIdx.x * kColumns;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  if (threadIdx.x == 0) {
    barriers.init(kConsumers * 4);
    ptx::prefetch_map(&maps.d_logits);
    ptx::prefetch_map(&maps.right);
  }
  __syncthreads();
  ptx::let_next_start();
  ptx::wait_for_previous();

  float d[kColumns / 2];
  if (warp == kConsumers * 4) {
    if (lane == 0)
      fill_stages<Shape::kStageBytes>(
          barriers, base, steps, [&](std::uint32_t to, std::uint32_t full, int step) {
            const int k = step * kBoxDepth;
            if constexpr (kOfGate)
              for (int panel = 0; panel < kRows / 64; ++panel)
                ptx::tensor_load_2d(to + panel * ptx::kPanelBytes, &maps.d_logits, full,
                                    static_cast<int>(first_row) + panel * 64, k);
            else
              ptx::tensor_load_2d(to, &maps.d_logits, full, k, static_cast<int>(first_row));
            for (int panel = 0; panel < kColumns / 64; ++panel)
              ptx::tensor_load_2d(to + Shape::kLeftBytes + panel * ptx::kPanelBytes, &maps.right, full,
                                  first_column + panel * 64, k);
          });
  } else {
    multiply_stages<Shape::kStageBytes, kLiesLeft, Lies::AlongRows, kColumns>(
        d, barriers, base, warp / 4 * ptx::kPanelBytes, Shape::kLeftBytes, steps);
  }

  // Register 4 b + 2 h + i is row lane / 4 + 8 h of the warp's 16, column 8 b + 2 (lane mod 4) + i.
  const int row = warp * 16 + lane / 4;
  const int column = lane % 4 * 2;
  if constexpr (kOfGate) {
    if (warp == kConsumers * 4) return;
#pragma unroll
    for (int i = 0; i < kColumns / 2; i += 2) {
      const std::int64_t at_row = first_row + row + i / 2 % 2 * 8;
      const int at_column = first_column + i / 4 * 8 + column;
      if (at_row < arguments.height && at_column < arguments.width)
        store_gradient_pair(arguments.d_gate, at_row * arguments.width + at_column, d[i], d[i + 1]);
    }
  } else {
    __syncthreads();                       // nothing is read or written in the stages any more
    constexpr int kStaged = kColumns + 8;  // of a row in shared memory: other banks for the next
    bf16* const staged = reinterpret_cast<bf16*>(aligned);  // [kRows, kStaged]
    static_assert(kRows * kStaged * 2 <= Shape::kStages * Shape::kStageBytes, "in the stages' place");
    if (warp < kConsumers * 4)
#pragma unroll
      for (int i = 0; i < kColumns / 2; i += 2)
        *reinterpret_cast<__nv_bfloat162*>(staged + (row + i / 2 % 2 * 8) * kStaged + i / 4 * 8 + column) =
            __floats2bfloat162_rn(d[i], d[i + 1]);
    __syncthreads();
    constexpr int kChunks = kColumns / 8;
    for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
      const std::int64_t at_row = first_row + i / kChunks;
      const int at_column = first_column + i % kChunks * 8;
      if (at_row < arguments.height && at_column < arguments.width)
        *reinterpret_cast<uint4*>(arguments.d_x + at_row * arguments.width + at_column) =
            *reinterpret_cast<const uint4*>(staged + i / kChunks * kStaged + i % kChunks * 8);
    }
  }
}

template <bool kOfGate>
void launch_router_grad(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream) {
  using Shape = RouterGradShape<kOfGate>;
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t experts = sizes.config.num_experts;
  ASSAY_CHECK(hidden % 8 == 0, "expected hidden_size to be a multiple of 8");
  ASSAY_CHECK(sizes.tokens < (std::int64_t{1} << 31), "expected fewer than 2^31 tokens");
  const std::int64_t height = kOfGate ? experts : sizes.tokens;
  const std::int64_t depth = kOfGate ? sizes.tokens : experts;
  const RouterGradMaps maps{
      matrix_map(product.d_logits, sizes.tokens, padded_experts(experts), kOfGate ? kBoxDepth : kRows),
      matrix_map(kOfGate ? product.x : product.gate, depth, hidden, kBoxDepth)};
  const RouterGradArguments arguments{product.d_x, product.d_gate, height, static_cast<int>(hidden),
                                      static_cast<int>(depth)};
  const dim3 grid(static_cast<unsigned>((hidden + Shape::kColumns - 1) / Shape::kColumns),
                  static_cast<unsigned>((height + kRows - 1) / kRows));
  ASSAY_CHECK(grid.y <= 65535, "expected fewer than 65536 tiles of tokens");
  launch_kernel(router_grad_kernel<kOfGate>, {grid, kThreads, Shape::kSharedBytes}, stream, arguments, maps);
}

}  // namespace
}  // namespace wgmma

void router_dx_wgmma_sm90(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream) {
  if (sizes.tokens > 0) wgmma::launch_router_grad<false>(product, sizes, stream);
}

void router_dw_wgmma_sm90(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream) {
  // A sum without terms is the portable kernel's.
  if (sizes.tokens == 0) return router_dw(product, sizes, stream);
  wgmma::launch_router_grad<true>(product, sizes, stream);
}

}  // namespace assay::gpu
