// The sums behind a bounded product: float64 values, and in fp32 the terms of the bounds and of the variance.
// A block makes a tile of 64 rows by 32 columns, a thread four by two of it; K passes through shared memory a
// step of the tensor core at a time, so that the running bound can look at each step. Compiled without
// contraction: the sums are those of any machine that adds in this order.
#include "gpu/cuda_check.h"
#include "gpu/engine/engine_kernels.h"

namespace assay::gpu {
namespace {

constexpr int kTile = kBoundedTileRows;
constexpr int kColumns = 32;
constexpr int kStep = kStepProducts;
// of a thread
constexpr int kEachRows = 4;
constexpr int kEachColumns = 2;
constexpr int kThreads = (kTile / kEachRows) * (kColumns / kEachColumns);
static_assert(kThreads == 256, "sixteen threads along each side");

struct ElementSums {
  // of the parts that ended, of the part that runs
  double total = 0.0;
  double sum = 0.0;
  float spread = 0.0f;
  float squares = 0.0f;
  float running = 0.0f;
  // |sum| before this step; the step's largest term
  float before = 0.0f;
  float top = 0.0f;
};

__device__ float magnitude(double x) { return fabsf(static_cast<float>(x)); }

/// What a step may lose, in units of 2^-23: |s| for cutting the result, 4 times the largest addend for
/// cutting 16 of them at 2^-25.
__device__ void end_step(ElementSums& e, float terms_per_spread) {
  const float after = magnitude(e.sum);
  const float term = e.top * terms_per_spread;
  e.running += after + 4.0f * (e.before > term ? e.before : term);
  e.before = after;
  e.top = 0.0f;
}

/// A partial sum is added to the total, rounded to nearest.
__device__ void end_part(ElementSums& e, bool split) {
  e.total += e.sum;
  e.sum = 0.0;
  e.before = 0.0f;
  if (split) e.running += 0.5f * magnitude(e.total);
}

template <bool kRunning>
__global__ void __launch_bounds__(kThreads, 2)
    bounded_product_kernel(DeviceOperands operands, const BoundedTerm* left, PartEnds parts,
                           float terms_per_spread, DeviceSums* out) {
  __shared__ double a_ref[kStep][kTile];
  __shared__ double b_wide[kStep][kColumns];
  __shared__ float a_spread[kStep][kTile];
  __shared__ float a_squares[kStep][kTile];
  __shared__ float b_magnitude[kStep][kColumns];
  const ProductTile tile = operands.tiles[blockIdx.y];
  const bf16* weights = operands.weights[tile.group];
  const std::int64_t first_column = std::int64_t{blockIdx.x} * kColumns;
  const int row = threadIdx.x / (kColumns / kEachColumns) * kEachRows;
  const int column = threadIdx.x % (kColumns / kEachColumns) * kEachColumns;
  ElementSums elements[kEachRows][kEachColumns];
  int part = 0;
  const std::int64_t steps = (operands.k + kStep - 1) / kStep;
  for (std::int64_t s = 0; s < steps; ++s) {
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kStep; i += kThreads) {
      const int r = i / kStep;
      const std::int64_t k = s * kStep + i % kStep;
      BoundedTerm term{0.0, 0.0f, 0.0f};
      if (r < tile.rows && k < operands.k) term = left[operands.source[tile.first + r] * operands.k + k];
      a_ref[i % kStep][r] = term.ref;
      a_spread[i % kStep][r] = term.spread;
      a_squares[i % kStep][r] = term.squares;
    }
    for (int i = threadIdx.x; i < kColumns * kStep; i += kThreads) {
      const int c = i / kStep;
      const std::int64_t k = s * kStep + i % kStep;
      const float b = first_column + c < operands.n && k < operands.k
                          ? __bfloat162float(weights[(first_column + c) * operands.k + k])
                          : 0.0f;
      b_wide[i % kStep][c] = b;
      b_magnitude[i % kStep][c] = fabsf(b);
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kStep; ++k) {
#pragma unroll
      for (int j = 0; j < kEachColumns; ++j) {
        const double b = b_wide[k][column + j];
        const float size = b_magnitude[k][column + j];
        const float square = size * size;
#pragma unroll
        for (int i = 0; i < kEachRows; ++i) {
          ElementSums& e = elements[i][j];
          e.sum += a_ref[k][row + i] * b;
          const float term = a_spread[k][row + i] * size;
          e.spread += term;
          e.squares += a_squares[k][row + i] * square;
          if (kRunning) e.top = term > e.top ? term : e.top;
        }
      }
    }
    const bool ends = s + 1 == parts.step[part];
#pragma unroll
    for (int i = 0; i < kEachRows; ++i)
#pragma unroll
      for (int j = 0; j < kEachColumns; ++j) {
        if (kRunning) end_step(elements[i][j], terms_per_spread);
        if (ends) end_part(elements[i][j], kRunning && parts.count > 1);
      }
    part += ends && part + 1 < parts.count;
  }
#pragma unroll
  for (int i = 0; i < kEachRows; ++i)
#pragma unroll
    for (int j = 0; j < kEachColumns; ++j) {
      if (row + i >= tile.rows || first_column + column + j >= operands.n) continue;
      const ElementSums& e = elements[i][j];
      out[(tile.first + row + i) * operands.n + first_column + column + j] = {e.total, e.spread, e.squares,
                                                                              e.running, 0};
    }
}

// A warp per column.
__global__ void column_granularity_kernel(const bf16* weights, std::int64_t k, std::int64_t n,
                                          std::int32_t* lowest) {
  const std::int64_t column = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (column >= n) return;
  int least = kAllZero;
  for (std::int64_t i = threadIdx.x % 32; i < k; i += 32) {
    const int bits = __bfloat16_as_ushort(weights[column * k + i]) & 0x7fff;
    if (bits == 0) continue;
    const int biased = bits >> 7;
    const int fraction = bits & 0x7f;
    if (biased == 0xff) least = kNotFinite;
    // The significand's last bit is worth 2^(e - 7), and the smallest normal exponent is that of subnormal
    // numbers too.
    else
      least = min(least, max(biased, 1) - 127 - 7 + __ffs(biased == 0 ? fraction : fraction | 0x80) - 1);
  }
  for (int distance = 16; distance > 0; distance /= 2)
    least = min(least, __shfl_xor_sync(0xffffffffu, least, distance));
  if (threadIdx.x % 32 == 0) lowest[column] = least;
}

}  // namespace

void bounded_product(const DeviceOperands& operands, const BoundedTerm* left, const PartEnds& parts,
                     bool running, float terms_per_spread, DeviceSums* out, cudaStream_t stream) {
  ASSAY_CHECK(operands.tile_count > 0 && operands.tile_count < 65536 && operands.n > 0 && operands.k > 0,
              "expected 1 to 65,535 row tiles and a product that is not empty");
  ASSAY_CHECK(parts.count > 0 && parts.count <= kMostParts &&
                  parts.step[parts.count - 1] == (operands.k + kStep - 1) / kStep,
              "expected the last part to end with K");
  const dim3 grid(static_cast<unsigned>((operands.n + kColumns - 1) / kColumns),
                  static_cast<unsigned>(operands.tile_count));
  const auto kernel = running ? bounded_product_kernel<true> : bounded_product_kernel<false>;
  kernel<<<grid, kThreads, 0, stream>>>(operands, left, parts, terms_per_spread, out);
  ASSAY_CUDA(cudaGetLastError());
}

void column_granularity(const bf16* weights, std::int64_t k, std::int64_t n, std::int32_t* lowest,
                        cudaStream_t stream) {
  constexpr int kBlock = 256;
  constexpr int kColumnsPerBlock = kBlock / 32;
  column_granularity_kernel<<<static_cast<unsigned>((n + kColumnsPerBlock - 1) / kColumnsPerBlock), kBlock, 0,
                              stream>>>(weights, k, n, lowest);
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace assay::gpu
