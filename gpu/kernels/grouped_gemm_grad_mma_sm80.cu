// Portable gradients of the grouped products: one block per tile of 128 by 128 results, `mma.sync` on tiles
// copied by cp.async. Gradients of rows walk the row tiles of the forward pass; gradients of weights have a
// block per tile of an expert's matrix, whose K are the expert's rows.
#include "gpu/kernels/grouped_gemm_grad.h"

#include "gpu/cuda_check.h"
#include "gpu/kernels/gradient_store.cuh"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/mma_tile.cuh"
#include "gpu/kernels/swiglu.cuh"

namespace assay::gpu {
namespace {

constexpr int kSide = 128;
using RowsTile = MmaTile<kTileRows, kSide, 32, 64, Lies::AlongColumns, Lies::AlongRows>;
using WeightsTile = MmaTile<kSide, kSide, 32, 64, Lies::AlongRows, Lies::AlongRows>;

__device__ void store_pair(bf16* to, float first, float second) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(first, second);
}

/// visit(row, column, its result, the next column's) for this thread's pairs of a tile.
template <class Tile, class Visit>
__device__ void for_each_pair(const Tile& tile, Visit visit) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int n = 0; n < Tile::kN; ++n)
        visit(Tile::warp_row() + m * 16 + lane / 4 + half * 8, Tile::warp_column() + n * 8 + lane % 4 * 2,
              tile.d[m][n][half * 2], tile.d[m][n][half * 2 + 1]);
}

/// Rows [first, first + rows) of d_out [S, depth] times weights [depth, width], columns from first_column on.
__device__ void multiply_rows(RowsTile& tile, char* shared, const RowTile& rows, const bf16* d_out,
                              const bf16* weights, int depth, int width, int first_column) {
  tile.run(
      shared, depth,
      [&](int row) {
        return row < rows.rows ? d_out + static_cast<std::int64_t>(rows.first + row) * depth : nullptr;
      },
      [&](int k, int chunk) {
        const int column = first_column + chunk * 8;
        return column < width ? weights + static_cast<std::int64_t>(k) * width + column : nullptr;
      });
}

// Grid: x = column tiles of I, y = row tiles (an upper bound).
__global__ void __launch_bounds__(RowsTile::kThreads)
    down_dx_kernel(DownDx product, DeviceRouting routing, int hidden, int inter) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (static_cast<int>(blockIdx.y) >= routing.counters->row_tiles) return;
  const RowTile rows = routing.tiles[blockIdx.y];
  const int first_column = blockIdx.x * kSide;
  RowsTile tile;
  multiply_rows(tile, shared, rows, product.d_second_gemm,
                product.down_proj + static_cast<std::int64_t>(rows.expert) * hidden * inter, hidden, inter,
                first_column);
  for_each_pair(tile, [&](int row, int pair, float first, float second) {
    const int column = first_column + pair;
    if (row >= rows.rows || column >= inter) return;
    const std::int64_t r = rows.first + row;
    if (product.d_intermediate != nullptr)
      store_pair(product.d_intermediate + r * inter + column, first, second);
    const bf16* halves = product.first_gemm + r * 2 * inter + column;
    const auto gate = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(halves));
    const auto up = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(halves + inter));
    const SwigluGrad left = swiglu_grad<Rounding::Hf>(through_bf16(first), gate.x, up.x);
    const SwigluGrad right = swiglu_grad<Rounding::Hf>(through_bf16(second), gate.y, up.y);
    bf16* stored = product.d_first_gemm + r * 2 * inter + column;
    *reinterpret_cast<__nv_bfloat162*>(stored) = __nv_bfloat162(left.gate, right.gate);
    *reinterpret_cast<__nv_bfloat162*>(stored + inter) = __nv_bfloat162(left.up, right.up);
  });
}

// The same grid.
__global__ void __launch_bounds__(RowsTile::kThreads)
    down_dx_fp32_kernel(DownDxFp32 product, DeviceRouting routing, int hidden, int inter) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (static_cast<int>(blockIdx.y) >= routing.counters->row_tiles) return;
  const RowTile rows = routing.tiles[blockIdx.y];
  const int first_column = blockIdx.x * kSide;
  RowsTile tile;
  multiply_rows(tile, shared, rows, product.d_out,
                product.down_proj + static_cast<std::int64_t>(rows.expert) * hidden * inter, hidden, inter,
                first_column);
  for_each_pair(tile, [&](int row, int pair, float first, float second) {
    const int column = first_column + pair;
    if (row < rows.rows && column < inter)
      *reinterpret_cast<float2*>(product.products + static_cast<std::int64_t>(rows.first + row) * inter +
                                 column) = {first, second};
  });
}

// Grid: x = column tiles of H, y = row tiles (an upper bound).
__global__ void __launch_bounds__(RowsTile::kThreads)
    gate_up_dx_kernel(GateUpDx product, DeviceRouting routing, int hidden, int inter) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (static_cast<int>(blockIdx.y) >= routing.counters->row_tiles) return;
  const RowTile rows = routing.tiles[blockIdx.y];
  const int first_column = blockIdx.x * kSide;
  RowsTile tile;
  multiply_rows(tile, shared, rows, product.d_first_gemm,
                product.gate_up_proj + static_cast<std::int64_t>(rows.expert) * 2 * inter * hidden, 2 * inter,
                hidden, first_column);
  for_each_pair(tile, [&](int row, int pair, float first, float second) {
    const int column = first_column + pair;
    if (row < rows.rows && column < hidden)
      store_pair(product.d_rows + static_cast<std::int64_t>(rows.first + row) * hidden + column, first,
                 second);
  });
}

/// Rows before the expert's first. All lanes of every warp.
__device__ int first_row_of(const std::int32_t* counts, int expert) {
  int sum = 0;
  for (int e = threadIdx.x % 32; e < expert; e += 32) sum += counts[e];
  return __reduce_add_sync(0xffffffffu, sum);
}

// out[e] = a^T b over the expert's rows: a [S, height], b [S, width] or gathered tokens, out [E, height,
// width]. Grid: x = column tiles, y = row tiles of the matrix, z = experts.
template <bool kGather>
__global__ void __launch_bounds__(WeightsTile::kThreads)
    weights_kernel(const bf16* a, const bf16* b, WeightGradient out, DeviceRouting routing, int height,
                   int width, int top_k) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const int expert = blockIdx.z;
  if (adds(out.store) && routing.counts[expert] == 0) return;  // what was there stays
  const int first = first_row_of(routing.counts, expert);
  const int first_row = blockIdx.y * kSide;
  const int first_column = blockIdx.x * kSide;
  WeightsTile tile;
  tile.run(
      shared, routing.counts[expert],
      [&](int k, int chunk) {
        const int row = first_row + chunk * 8;
        return row < height ? a + static_cast<std::int64_t>(first + k) * height + row : nullptr;
      },
      [&](int k, int chunk) {
        const int column = first_column + chunk * 8;
        if (column >= width) return static_cast<const bf16*>(nullptr);
        const std::int64_t source = kGather ? routing.gather_indices[first + k] / top_k : first + k;
        return b + source * width + column;
      });
  for_each_pair(tile, [&](int pair_row, int pair, float left, float right) {
    const int row = first_row + pair_row;
    const int column = first_column + pair;
    if (row < height && column < width)
      store_gradient_pair(out, (static_cast<std::int64_t>(expert) * height + row) * width + column, left,
                          right);
  });
}

unsigned tiles(std::int64_t extent) { return static_cast<unsigned>((extent + kSide - 1) / kSide); }

void check_sizes(const DeviceRouting& routing, const Sizes& sizes) {
  ASSAY_CHECK(!routing.wide, "expected tiles of at most 128 rows");
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0 && sizes.config.moe_intermediate_size % 8 == 0,
              "expected sizes to be multiples of 8");
  ASSAY_CHECK(sizes.slots() < (std::int64_t{1} << 31), "expected fewer than 2^31 routed rows");
  ASSAY_CHECK(max_row_tiles(sizes) <= 65535,
              "expected at most 65535 row tiles (8 million routed rows) for the portable variant");
}

void weights(const bf16* a, const bf16* b, const WeightGradient& out, bool gather, std::int64_t height,
             std::int64_t width, const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream) {
  check_sizes(routing, sizes);
  ASSAY_CHECK(tiles(height) <= 65535 && sizes.config.num_experts <= kMaxExperts,
              "expected a matrix and experts that fit one grid");
  launch_kernel(gather ? weights_kernel<true> : weights_kernel<false>,
                {dim3(tiles(width), tiles(height), static_cast<unsigned>(sizes.config.num_experts)),
                 WeightsTile::kThreads, WeightsTile::kSharedBytes},
                stream, a, b, out, routing, height, width, sizes.config.top_k);
}

}  // namespace

void down_dx_mma_sm80(const DownDx& product, const DeviceRouting& routing, const Sizes& sizes,
                      cudaStream_t stream) {
  check_sizes(routing, sizes);
  if (sizes.slots() == 0) return;
  launch_kernel(down_dx_kernel,
                {dim3(tiles(sizes.config.moe_intermediate_size), static_cast<unsigned>(max_row_tiles(sizes))),
                 RowsTile::kThreads, RowsTile::kSharedBytes},
                stream, product, routing, sizes.config.hidden_size, sizes.config.moe_intermediate_size);
}

void down_dx_fp32_mma_sm80(const DownDxFp32& product, const DeviceRouting& routing, const Sizes& sizes,
                           cudaStream_t stream) {
  check_sizes(routing, sizes);
  if (sizes.slots() == 0) return;
  launch_kernel(down_dx_fp32_kernel,
                {dim3(tiles(sizes.config.moe_intermediate_size), static_cast<unsigned>(max_row_tiles(sizes))),
                 RowsTile::kThreads, RowsTile::kSharedBytes},
                stream, product, routing, sizes.config.hidden_size, sizes.config.moe_intermediate_size);
}

void gate_up_dx_mma_sm80(const GateUpDx& product, const DeviceRouting& routing, const Sizes& sizes,
                         cudaStream_t stream) {
  check_sizes(routing, sizes);
  if (sizes.slots() == 0) return;
  launch_kernel(gate_up_dx_kernel,
                {dim3(tiles(sizes.config.hidden_size), static_cast<unsigned>(max_row_tiles(sizes))),
                 RowsTile::kThreads, RowsTile::kSharedBytes},
                stream, product, routing, sizes.config.hidden_size, sizes.config.moe_intermediate_size);
}

void down_dw_mma_sm80(const DownDw& product, const DeviceRouting& routing, const Sizes& sizes,
                      cudaStream_t stream) {
  weights(product.d_second_gemm, product.intermediate, product.d_down_proj, false, sizes.config.hidden_size,
          sizes.config.moe_intermediate_size, routing, sizes, stream);
}

void gate_up_dw_mma_sm80(const GateUpDw& product, const DeviceRouting& routing, const Sizes& sizes,
                         cudaStream_t stream) {
  weights(product.d_first_gemm, product.x, product.d_gate_up_proj, product.gather,
          2 * sizes.config.moe_intermediate_size, sizes.config.hidden_size, routing, sizes, stream);
}

}  // namespace assay::gpu
