// The sums behind an element of a product whose operands both have errors (reference_cpu: IntervalRow,
// IntervalPanel): float64 values, and in fp32 the terms of the bound and of the variance. A block makes a
// tile of 64 rows by 32 columns, a thread four by two of it, each sum in ascending K. Compiled without
// contraction.
#include "gpu/cuda_check.h"
#include "gpu/engine/engine_kernels.h"

namespace assay::gpu {
namespace {

constexpr int kTile = kBoundedTileRows;
constexpr int kColumns = 32;
constexpr int kStep = 16;
// of a thread
constexpr int kEachRows = 4;
constexpr int kEachColumns = 2;
constexpr int kThreads = (kTile / kEachRows) * (kColumns / kEachColumns);
static_assert(kThreads == 256, "sixteen threads along each side");

__global__ void __launch_bounds__(kThreads, 2)
    two_sided_kernel(TwoSidedOperands operands, TwoSidedSums* out) {
  __shared__ TwoSidedLeft a[kStep][kTile + 1];  // a column more: neighbouring rows in different banks
  __shared__ TwoSidedRight b[kStep][kColumns];
  const ProductTile tile = operands.tiles[blockIdx.y];
  const std::int64_t first_column = std::int64_t{blockIdx.x} * kColumns;
  const int row = threadIdx.x / (kColumns / kEachColumns) * kEachRows;
  const int column = threadIdx.x % (kColumns / kEachColumns) * kEachColumns;
  TwoSidedSums sums[kEachRows][kEachColumns] = {};
  for (std::int64_t k0 = 0; k0 < operands.k; k0 += kStep) {
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kStep; i += kThreads) {
      const int r = i / kStep;
      const std::int64_t k = k0 + i % kStep;
      const bool there = r < tile.rows && k < operands.k;
      a[i % kStep][r] =
          there ? operands.left[operands.source[tile.first + r] * operands.k + k] : TwoSidedLeft{};
    }
    for (int i = threadIdx.x; i < kColumns * kStep; i += kThreads) {
      const std::int64_t c = first_column + i % kColumns;
      const std::int64_t k = k0 + i / kColumns;
      const bool there = c < operands.n && k < operands.k;
      b[i / kColumns][i % kColumns] = there ? operands.right[k * operands.n + c] : TwoSidedRight{};
    }
    __syncthreads();
    const int steps = static_cast<int>(min(std::int64_t{kStep}, operands.k - k0));
    for (int k = 0; k < steps; ++k) {
      TwoSidedLeft left[kEachRows];
#pragma unroll
      for (int i = 0; i < kEachRows; ++i) left[i] = a[k][row + i];
#pragma unroll
      for (int j = 0; j < kEachColumns; ++j) {
        const TwoSidedRight right = b[k][column + j];
#pragma unroll
        for (int i = 0; i < kEachRows; ++i) {
          TwoSidedSums& sum = sums[i][j];
          sum.ref += left[i].ref * right.ref;
          sum.spread += left[i].spread * right.outer + left[i].magnitude * right.width;
          sum.squares += left[i].squares * right.squares + left[i].moment * right.noise;
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kEachRows; ++i)
#pragma unroll
    for (int j = 0; j < kEachColumns; ++j) {
      const std::int64_t c = first_column + column + j;
      if (row + i < tile.rows && c < operands.n) out[(tile.first + row + i) * operands.n + c] = sums[i][j];
    }
}

}  // namespace

void two_sided_product(const TwoSidedOperands& operands, TwoSidedSums* out, cudaStream_t stream) {
  ASSAY_CHECK(operands.tile_count > 0 && operands.tile_count < 65536 && operands.n > 0 && operands.k > 0,
              "expected 1 to 65,535 row tiles and a product that is not empty");
  const dim3 grid(static_cast<unsigned>((operands.n + kColumns - 1) / kColumns),
                  static_cast<unsigned>(operands.tile_count));
  two_sided_kernel<<<grid, kThreads, 0, stream>>>(operands, out);
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace assay::gpu
