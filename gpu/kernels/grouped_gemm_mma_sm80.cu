// Portable grouped products: one block per row tile and 128 columns of weights, `mma.sync` on tiles copied by
// cp.async. For gate_up, blocks of 8 gate rows alternate with blocks of 8 up rows, so a thread holds both
// halves of its elements.
#include "gpu/cuda_check.h"
#include "gpu/kernels/grouped_gemm.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/mma_tile.cuh"
#include "gpu/kernels/swiglu.cuh"

namespace assay::gpu {
namespace {

constexpr int kColumns = 128;
using ForwardTile = MmaTile<kTileRows, kColumns, 32, 64>;

__device__ void store_pair(bf16* to, bf16 first, bf16 second) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __nv_bfloat162(first, second);
}

// Grid: x = column tiles, y = row tiles (an upper bound).
template <bool kGather, Rounding kRounding>
__global__ void __launch_bounds__(ForwardTile::kThreads)
    gate_up_kernel(GateUp product, DeviceRouting routing, int hidden, int inter, int top_k) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (static_cast<int>(blockIdx.y) >= routing.counters->row_tiles) return;
  const RowTile rows = routing.tiles[blockIdx.y];
  const int first_column = blockIdx.x * (kColumns / 2);  // of intermediate
  const bf16* weights = product.gate_up_proj + static_cast<std::int64_t>(rows.expert) * 2 * inter * hidden;
  ForwardTile tile;
  tile.run(
      shared, hidden,
      [&](int row) -> const bf16* {
        if (row >= rows.rows) return nullptr;
        const std::int64_t r = rows.first + row;
        return product.x + (kGather ? routing.gather_indices[r] / top_k : r) * hidden;
      },
      [&](int row) -> const bf16* {
        const int column = first_column + row / 16 * 8 + row % 8;
        const bool up = row / 8 % 2 == 1;
        return column < inter ? weights + static_cast<std::int64_t>(up ? inter + column : column) * hidden
                              : nullptr;
      });

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < ForwardTile::kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = ForwardTile::warp_row() + m * 16 + lane / 4 + half * 8;
      if (row >= rows.rows) continue;
      const std::int64_t r = rows.first + row;
#pragma unroll
      for (int n = 0; n < ForwardTile::kN; n += 2) {
        const int column = first_column + ForwardTile::warp_column() / 2 + n * 4 + lane % 4 * 2;
        if (column >= inter) continue;
        const float* gate = &tile.d[m][n][half * 2];
        const float* up = &tile.d[m][n + 1][half * 2];
        store_pair(product.intermediate + r * inter + column, swiglu<kRounding>(gate[0], up[0]),
                   swiglu<kRounding>(gate[1], up[1]));
        if (product.first_gemm == nullptr) continue;
        bf16* stored = product.first_gemm + r * 2 * inter + column;
        store_pair(stored, __float2bfloat16_rn(gate[0]), __float2bfloat16_rn(gate[1]));
        store_pair(stored + inter, __float2bfloat16_rn(up[0]), __float2bfloat16_rn(up[1]));
      }
    }
}

template <Rounding kRounding>
auto gate_up_of(bool gather) {
  return gather ? gate_up_kernel<true, kRounding> : gate_up_kernel<false, kRounding>;
}

template <bool kScatter>
__global__ void __launch_bounds__(ForwardTile::kThreads)
    down_kernel(Down product, DeviceRouting routing, int hidden, int inter) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (static_cast<int>(blockIdx.y) >= routing.counters->row_tiles) return;
  const RowTile rows = routing.tiles[blockIdx.y];
  const int first_column = blockIdx.x * kColumns;
  const bf16* weights = product.down_proj + static_cast<std::int64_t>(rows.expert) * hidden * inter;
  ForwardTile tile;
  tile.run(
      shared, inter,
      [&](int row) {
        return row < rows.rows ? product.intermediate + static_cast<std::int64_t>(rows.first + row) * inter
                               : nullptr;
      },
      [&](int row) {
        return first_column + row < hidden ? weights + static_cast<std::int64_t>(first_column + row) * inter
                                           : nullptr;
      });

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < ForwardTile::kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = ForwardTile::warp_row() + m * 16 + lane / 4 + half * 8;
      if (row >= rows.rows) continue;
      const std::int64_t r = kScatter ? routing.gather_indices[rows.first + row] : rows.first + row;
#pragma unroll
      for (int n = 0; n < ForwardTile::kN; ++n) {
        const int column = first_column + ForwardTile::warp_column() + n * 8 + lane % 4 * 2;
        const float* value = &tile.d[m][n][half * 2];
        if (column < hidden)
          store_pair(product.out + r * hidden + column, __float2bfloat16_rn(value[0]),
                     __float2bfloat16_rn(value[1]));
      }
    }
}

dim3 grid_for(std::int64_t columns, int columns_per_tile, const Sizes& sizes) {
  const std::int64_t row_tiles = max_row_tiles(sizes);
  ASSAY_CHECK(row_tiles <= 65535,
              "expected at most 65535 row tiles (8 million routed rows) for the portable variant");
  return dim3(static_cast<unsigned>((columns + columns_per_tile - 1) / columns_per_tile),
              static_cast<unsigned>(row_tiles));
}

}  // namespace

void gate_up_mma_sm80(const GateUp& product, const DeviceRouting& routing, const Sizes& sizes,
                      cudaStream_t stream) {
  const auto& config = sizes.config;
  ASSAY_CHECK(config.hidden_size % 8 == 0 && config.moe_intermediate_size % 8 == 0,
              "expected sizes to be multiples of 8");
  if (sizes.slots() == 0) return;
  const auto kernel = product.rounding == Rounding::Hf ? gate_up_of<Rounding::Hf>(product.gather)
                                                       : gate_up_of<Rounding::FusedFp32>(product.gather);
  launch_kernel(kernel,
                {grid_for(config.moe_intermediate_size, kColumns / 2, sizes), ForwardTile::kThreads,
                 ForwardTile::kSharedBytes},
                stream, product, routing, config.hidden_size, config.moe_intermediate_size, config.top_k);
}

void down_mma_sm80(const Down& product, const DeviceRouting& routing, const Sizes& sizes,
                   cudaStream_t stream) {
  const auto& config = sizes.config;
  ASSAY_CHECK(config.hidden_size % 8 == 0 && config.moe_intermediate_size % 8 == 0,
              "expected sizes to be multiples of 8");
  if (sizes.slots() == 0) return;
  launch_kernel(
      product.scatter ? down_kernel<true> : down_kernel<false>,
      {grid_for(config.hidden_size, kColumns, sizes), ForwardTile::kThreads, ForwardTile::kSharedBytes},
      stream, product, routing, config.hidden_size, config.moe_intermediate_size);
}

}  // namespace assay::gpu
