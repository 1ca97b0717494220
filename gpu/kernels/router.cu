// The router product. cuBLAS may split K here and would change bits; this one never does. Small problems take
// small tiles, so that enough blocks stream the gate's rows; for few tokens all of K is fetched at once, and
// one warp's chain of products is what is left.
#include <algorithm>
#include <type_traits>

#include "gpu/cuda_check.h"
#include "gpu/kernels/gradient_store.cuh"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/lanes.cuh"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/mma_tile.cuh"

namespace assay::gpu {
namespace {

// Grid: x = tiles of experts, y = tiles of tokens.
template <class Tile, int kRows, int kColumns>
__global__ void __launch_bounds__(Tile::kThreads)
    router_product_kernel(const bf16* x, const bf16* gate, bf16* logits, std::int64_t tokens, int experts,
                          int hidden) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t first_token = static_cast<std::int64_t>(blockIdx.y) * kRows;
  const int first_expert = blockIdx.x * kColumns;
  Tile tile;
  tile.run(
      shared, hidden,
      [&](int row) { return first_token + row < tokens ? x + (first_token + row) * hidden : nullptr; },
      [&](int row) {
        return first_expert + row < experts ? gate + static_cast<std::int64_t>(first_expert + row) * hidden
                                            : nullptr;
      });

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m)
#pragma unroll
    for (int n = 0; n < Tile::kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::int64_t token = first_token + Tile::warp_row() + m * 16 + lane / 4 + i / 2 * 8;
        const int expert = first_expert + Tile::warp_column() + n * 8 + lane % 4 * 2 + i % 2;
        if (token < tokens && expert < experts)
          logits[token * experts + expert] = __float2bfloat16_rn(tile.d[m][n][i]);
      }
}

constexpr int kFewTokens = 16;  // rows of one warp-level product
constexpr int kFewExperts = 8;  // its columns
constexpr int kFewThreads = 256;
constexpr int kParts = 4;  // of K: the first are multiplied while the others arrive

constexpr int kBatch = 8;  // steps of 16 whose operands are loaded together; K is padded to them with zeros

__host__ __device__ int few_steps(int hidden) { return (hidden + kBatch * 16 - 1) / (kBatch * 16) * kBatch; }
// Bytes of a row in shared memory: 16 more than K's, so that eight rows hit all banks.
__host__ __device__ int few_stride(int hidden) { return few_steps(hidden) * 32 + 16; }

// Grid: blocks of kFewExperts experts. Shared memory: their rows, then the tokens'.
__global__ void __launch_bounds__(kFewThreads)
    router_few_kernel(const bf16* x, const bf16* gate, bf16* logits, int tokens, int experts, int hidden) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::uint32_t base = ptx::shared_address(shared);
  const int stride = few_stride(hidden);
  const int first_expert = blockIdx.x * kFewExperts;
  const int rows = kFewExperts + tokens;
  const int steps = few_steps(hidden);
  const int steps_of_part = ((steps + kParts - 1) / kParts + kBatch - 1) / kBatch * kBatch;
#pragma unroll 1
  for (int part = 0; part < kParts; ++part) {
    const int first = part * steps_of_part * 2;  // in chunks of 8 elements
    const int chunks = min(steps_of_part * 2, steps * 2 - first);
    for (int row = threadIdx.x / 32; row < rows; row += kFewThreads / 32) {
      const bool is_token = row >= kFewExperts;
      const std::int64_t index = is_token ? row - kFewExperts : first_expert + row;
      const bf16* from = is_token ? x + index * hidden : gate + index * hidden;
      for (int i = threadIdx.x % 32; i < chunks; i += 32) {
        const int k = (first + i) * 8;
        const bool valid = k < hidden && (is_token || index < experts);
        ptx::cp_async_16(base + row * stride + k * 2, valid ? from + k : x, valid);
      }
    }
    ptx::cp_async_commit();
  }

  float d[4] = {};
  const int lane = threadIdx.x % 32;
  // Rows behind the last token repeat the first: what they give is not stored.
  const std::uint32_t a_row =
      base + (kFewExperts + (lane % 16 < tokens ? lane % 16 : 0)) * stride + lane / 16 * 16;
  const std::uint32_t b_row = base + lane % 8 * stride + lane / 8 * 16;
  const auto multiply = [&](int first_step, int end) {
    for (int step = first_step; step < end; step += kBatch) {
      std::uint32_t a[kBatch][4];
      std::uint32_t b[kBatch / 2][4];  // of two steps each
#pragma unroll
      for (int i = 0; i < kBatch; ++i) ptx::ldmatrix_x4(a[i], a_row + (step + i) * 32);
#pragma unroll
      for (int i = 0; i < kBatch / 2; ++i) ptx::ldmatrix_x4(b[i], b_row + (step + 2 * i) * 32);
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        ptx::mma_m16n8k16(d, a[i], b[i / 2][i % 2 * 2], b[i / 2][i % 2 * 2 + 1]);
    }
  };
  const auto part_arrived = [&]<int kLater>(std::integral_constant<int, kLater>) {
    ptx::cp_async_wait<kLater>();
    __syncthreads();
    const int first = (kParts - 1 - kLater) * steps_of_part;
    if (threadIdx.x < 32) multiply(first, min(first + steps_of_part, steps));
  };
  static_assert(kParts == 4, "as many waits");
  part_arrived(std::integral_constant<int, 3>{});
  part_arrived(std::integral_constant<int, 2>{});
  part_arrived(std::integral_constant<int, 1>{});
  part_arrived(std::integral_constant<int, 0>{});
  if (threadIdx.x >= 32) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = lane / 4 + i / 2 * 8;
    const int expert = first_expert + lane % 4 * 2 + i % 2;
    if (token < tokens && expert < experts)
      logits[static_cast<std::int64_t>(token) * experts + expert] = __float2bfloat16_rn(d[i]);
  }
}

constexpr int kDxSide = 128;
using RouterDxTile = MmaTile<kDxSide, kDxSide, 32, 64, Lies::AlongColumns, Lies::AlongRows>;
using RouterDwTile = MmaTile<64, 64, 32, 32, Lies::AlongRows, Lies::AlongRows>;

// out[row, column] = rb of the tile's results inside [height, width], which begin at first_row and
// first_column. Four lanes have 2 columns each of two blocks of 8; they write 4 each of 16, whole sectors.
template <class Tile>
__device__ void store_tile(const Tile& tile, bf16* out, std::int64_t first_row, int first_column,
                           std::int64_t height, int width) {
  const int lane = threadIdx.x % 32;
  const int source = lane / 4 * 4 + lane % 2 * 2;
  const auto packed = [](float left, float right) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(left, right);
    return *reinterpret_cast<const unsigned*>(&pair);
  };
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int n = 0; n < Tile::kN; n += 2) {
        const float(&left)[4] = tile.d[m][n];
        const float(&right)[4] = tile.d[m][n + 1];
        const unsigned blocks[2] = {packed(left[half * 2], left[half * 2 + 1]),
                                    packed(right[half * 2], right[half * 2 + 1])};
        uint2 four[2];
#pragma unroll
        for (int block = 0; block < 2; ++block)
          four[block] = {__shfl_sync(kAllLanes, blocks[block], source),
                         __shfl_sync(kAllLanes, blocks[block], source + 1)};
        const std::int64_t row = first_row + Tile::warp_row() + m * 16 + lane / 4 + half * 8;
        const int column = first_column + Tile::warp_column() + n * 8 + lane % 4 * 4;
        if (row < height && column < width)
          *reinterpret_cast<uint2*>(out + row * width + column) = lane % 4 < 2 ? four[0] : four[1];
      }
}

// d_x[t] = d_logits[t] gate. Grid: x = column tiles of H, y = tiles of tokens.
__global__ void __launch_bounds__(RouterDxTile::kThreads)
    router_dx_kernel(RouterGrad product, std::int64_t tokens, int experts, int hidden) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t first_token = static_cast<std::int64_t>(blockIdx.y) * kDxSide;
  const int first_column = blockIdx.x * kDxSide;
  const int stride = static_cast<int>(padded_experts(experts));
  RouterDxTile tile;
  tile.run(
      shared, stride,
      [&](int row) {
        return first_token + row < tokens ? product.d_logits + (first_token + row) * stride : nullptr;
      },
      [&](int expert, int chunk) {
        const int column = first_column + chunk * 8;
        return expert < experts && column < hidden
                   ? product.gate + static_cast<std::int64_t>(expert) * hidden + column
                   : nullptr;
      });
  store_tile(tile, product.d_x, first_token, first_column, tokens, hidden);
}

// The same of a weight's gradient that is not simply stored as bf16.
template <class Tile>
__device__ void store_gradient_tile(const Tile& tile, const WeightGradient& out, int first_row,
                                    int first_column, int height, int width) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < Tile::kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int n = 0; n < Tile::kN; ++n) {
        const int row = first_row + Tile::warp_row() + m * 16 + lane / 4 + half * 8;
        const int column = first_column + Tile::warp_column() + n * 8 + lane % 4 * 2;
        if (row < height && column < width)
          store_gradient_pair(out, static_cast<std::int64_t>(row) * width + column, tile.d[m][n][half * 2],
                              tile.d[m][n][half * 2 + 1]);
      }
}

// d_gate = d_logits^T x. Grid: x = column tiles of H, y = tiles of experts. K are the tokens.
__global__ void __launch_bounds__(RouterDwTile::kThreads)
    router_dw_kernel(RouterGrad product, int tokens, int experts, int hidden) {
  extern __shared__ __align__(128) char shared[];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const int first_expert = blockIdx.y * 64;
  const int first_column = blockIdx.x * 64;
  const int stride = static_cast<int>(padded_experts(experts));
  RouterDwTile tile;
  tile.run(
      shared, tokens,
      [&](int token, int chunk) {
        const int expert = first_expert + chunk * 8;
        return expert < stride ? product.d_logits + static_cast<std::int64_t>(token) * stride + expert
                               : nullptr;
      },
      [&](int token, int chunk) {
        const int column = first_column + chunk * 8;
        return column < hidden ? product.x + static_cast<std::int64_t>(token) * hidden + column : nullptr;
      });
  if (product.d_gate.store == GradientStore::Bf16)
    store_tile(tile, static_cast<bf16*>(product.d_gate.values), first_expert, first_column, experts, hidden);
  else
    store_gradient_tile(tile, product.d_gate, first_expert, first_column, experts, hidden);
}

template <int kRows, int kColumns, int kWarpRows, int kWarpColumns>
void launch(const bf16* x, const bf16* gate, bf16* logits, const Sizes& sizes, cudaStream_t stream) {
  using Tile = MmaTile<kRows, kColumns, kWarpRows, kWarpColumns>;
  const auto kernel = router_product_kernel<Tile, kRows, kColumns>;
  const auto& config = sizes.config;
  const dim3 grid(static_cast<unsigned>((config.num_experts + kColumns - 1) / kColumns),
                  static_cast<unsigned>((sizes.tokens + kRows - 1) / kRows));
  ASSAY_CHECK(grid.y <= 65535, "expected fewer than 65536 tiles of tokens");
  launch_kernel(kernel, {grid, Tile::kThreads, Tile::kSharedBytes}, stream, x, gate, logits, sizes.tokens,
                config.num_experts, config.hidden_size);
}

}  // namespace

void router_product(const bf16* x, const bf16* gate, bf16* logits, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  if (sizes.tokens == 0) return;
  const int few_bytes = (kFewExperts + static_cast<int>(std::min<std::int64_t>(sizes.tokens, kFewTokens))) *
                        few_stride(static_cast<int>(sizes.config.hidden_size));
  if (sizes.tokens <= kFewTokens && few_bytes <= device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin))
    launch_kernel(router_few_kernel,
                  {static_cast<unsigned>((sizes.config.num_experts + kFewExperts - 1) / kFewExperts),
                   kFewThreads, few_bytes},
                  stream, x, gate, logits, sizes.tokens, sizes.config.num_experts, sizes.config.hidden_size);
  else if (sizes.tokens <= 2048)
    launch<32, 32, 16, 16>(x, gate, logits, sizes, stream);
  else if (sizes.tokens <= 8192)
    launch<64, 64, 32, 32>(x, gate, logits, sizes, stream);
  else
    launch<128, 64, 64, 32>(x, gate, logits, sizes, stream);
}

void router_dx(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream) {
  const auto& config = sizes.config;
  ASSAY_CHECK(config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  if (sizes.tokens == 0) return;
  const dim3 grid(static_cast<unsigned>((config.hidden_size + kDxSide - 1) / kDxSide),
                  static_cast<unsigned>((sizes.tokens + kDxSide - 1) / kDxSide));
  ASSAY_CHECK(grid.y <= 65535, "expected fewer than 65536 tiles of tokens");
  launch_kernel(router_dx_kernel, {grid, RouterDxTile::kThreads, RouterDxTile::kSharedBytes}, stream, product,
                sizes.tokens, config.num_experts, config.hidden_size);
}

void router_dw(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream) {
  const auto& config = sizes.config;
  ASSAY_CHECK(config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  ASSAY_CHECK(sizes.tokens < (std::int64_t{1} << 31), "expected fewer than 2^31 tokens");
  if (adds(product.d_gate.store) && sizes.tokens == 0) return;  // what was there stays
  const dim3 grid(static_cast<unsigned>((config.hidden_size + 63) / 64),
                  static_cast<unsigned>((config.num_experts + 63) / 64));
  launch_kernel(router_dw_kernel, {grid, RouterDwTile::kThreads, RouterDwTile::kSharedBytes}, stream, product,
                sizes.tokens, config.num_experts, config.hidden_size);
}

}  // namespace assay::gpu
