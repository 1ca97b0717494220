// The router product. cuBLAS may split K here and would change bits; this one never does. Small problems take small tiles, so
// that enough blocks stream the gate's rows.
#include "gpu/cuda_check.h"
#include "gpu/kernels.h"
#include "gpu/launch.h"
#include "gpu/mma_tile.cuh"

namespace assay::gpu {
namespace {

// Grid: x = tiles of experts, y = tiles of tokens.
template <class Tile, int kRows, int kColumns>
__global__ void __launch_bounds__(Tile::kThreads)
    router_product_kernel(const bf16* x, const bf16* gate, bf16* logits, std::int64_t tokens, int experts, int hidden) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t first_token = static_cast<std::int64_t>(blockIdx.y) * kRows;
  const int first_expert = blockIdx.x * kColumns;
  Tile tile;
  tile.run(
      shared, hidden,
      [&](int row) { return first_token + row < tokens ? x + (first_token + row) * hidden : nullptr; },
      [&](int row) { return first_expert + row < experts ? gate + static_cast<std::int64_t>(first_expert + row) * hidden : nullptr; });

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m)
#pragma unroll
    for (int n = 0; n < Tile::kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::int64_t token = first_token + Tile::warp_row() + m * 16 + lane / 4 + i / 2 * 8;
        const int expert = first_expert + Tile::warp_column() + n * 8 + lane % 4 * 2 + i % 2;
        if (token < tokens && expert < experts) logits[token * experts + expert] = __float2bfloat16_rn(tile.d[m][n][i]);
      }
}

template <int kRows, int kColumns, int kWarpRows, int kWarpColumns>
void launch(const bf16* x, const bf16* gate, bf16* logits, const Sizes& sizes, cudaStream_t stream) {
  using Tile = MmaTile<kRows, kColumns, kWarpRows, kWarpColumns>;
  const auto kernel = router_product_kernel<Tile, kRows, kColumns>;
  const auto& config = sizes.config;
  const dim3 grid(static_cast<unsigned>((config.num_experts + kColumns - 1) / kColumns),
                  static_cast<unsigned>((sizes.tokens + kRows - 1) / kRows));
  ASSAY_CHECK(grid.y <= 65535, "expected fewer than 65536 tiles of tokens");
  launch_kernel(kernel, {grid, Tile::kThreads, Tile::kSharedBytes}, stream, x, gate, logits, sizes.tokens, config.num_experts,
                config.hidden_size);
}

}  // namespace

void router_product(const bf16* x, const bf16* gate, bf16* logits, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  if (sizes.tokens == 0) return;
  if (sizes.tokens <= 2048)
    launch<32, 32, 16, 16>(x, gate, logits, sizes, stream);
  else if (sizes.tokens <= 8192)
    launch<64, 64, 32, 32>(x, gate, logits, sizes, stream);
  else
    launch<128, 64, 32, 32>(x, gate, logits, sizes, stream);
}

}  // namespace assay::gpu
