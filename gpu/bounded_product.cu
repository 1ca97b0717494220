// The bounded product: float64 sums and the fp32 sums of their bound and variance. A block makes a tile of 64 rows by 64 columns,
// a thread four by four of it; K passes through shared memory 16 at a time. No product and sum is contracted to an fma: the values
// are then those of any other machine that adds in this order.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/engine_kernels.h"

namespace assay::gpu {
namespace {

constexpr int kTile = kBoundedTileRows;
constexpr int kColumns = 64;
constexpr int kStep = 16;
constexpr int kEach = 4;  // rows, and columns, of a thread
constexpr int kThreads = (kTile / kEach) * (kColumns / kEach);
static_assert(kThreads == 256 && kTile * kStep % kThreads == 0, "every thread loads the same number of elements");

/// Half width around the reference; NaN where an infinite reference has none.
__device__ double radius(double low, double ref, double high) {
  double limit = __dsub_rn(high, ref);
  const double down = __dsub_rn(ref, low);
  if (limit < down) limit = down;
  return limit < 0.0 ? 0.0 : limit;
}

__global__ void prepare_bounded_kernel(const DeviceInterval* left, std::int64_t count, BoundedConstants constants, BoundedLeft out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const DeviceInterval x = left[i];
  const double r = radius(x.low, x.ref, x.high);
  // sum |da||b| + C(k) sum (|a| + |da|)|b|; the factor covers the narrowing to fp32.
  const double terms = __dadd_rn(r, __dmul_rn(constants.bound, __dadd_rn(fabs(x.ref), r)));
  out.ref[i] = x.ref;
  out.spread[i] = static_cast<float>(__dmul_rn(terms, 1.0 + 0x1p-22));
  // What the operand's own noise adds to the variance, in units of what its square adds.
  const double carried = __ddiv_rn(__dmul_rn(__dmul_rn(x.noise, x.noise), 6.0), constants.rate);
  out.squares[i] = static_cast<float>(__dadd_rn(__dmul_rn(x.ref, x.ref), carried));
}

/// Variance of the accumulator's errors in any legal order: rounding or cutting prefixes whose mean square is s^2 times a third and
/// more plus q^2 / 6, and the alignment of many terms of one sign.
__device__ double variance(double s, double q_squared, const BoundedConstants& constants) {
  const double s_squared = __dmul_rn(s, s);
  const double rounding = __dmul_rn(constants.rate, __dadd_rn(__dmul_rn(s_squared, constants.mean_of_squares), __ddiv_rn(q_squared, 6.0)));
  if (!(q_squared > 0.0)) return rounding;
  const double one_sign = __ddiv_rn(s_squared, __dmul_rn(constants.terms, q_squared));
  const double aligned = __dmul_rn(__dmul_rn(__dmul_rn(constants.aligned_squared, one_sign), s), s);
  return __dadd_rn(rounding, __ddiv_rn(aligned, 3.0));
}

struct Sums {
  double ref = 0.0;
  float spread = 0.0f, squares = 0.0f;
};

__global__ void __launch_bounds__(kThreads, 2) bounded_product_kernel(ProductShape shape, BoundedLeft left, BoundedConstants constants, DeviceInterval* out) {
  __shared__ double a_ref[kStep][kTile], b_wide[kStep][kColumns];
  __shared__ float a_spread[kStep][kTile], a_squares[kStep][kTile], b_magnitude[kStep][kColumns];
  const ProductTile tile = shape.tiles[blockIdx.y];
  const bf16* weights = shape.weights[tile.group];
  const std::int64_t first_column = std::int64_t{blockIdx.x} * kColumns;
  const int row = threadIdx.x / (kColumns / kEach) * kEach, column = threadIdx.x % (kColumns / kEach) * kEach;
  Sums sums[kEach][kEach];
  for (std::int64_t k0 = 0; k0 < shape.k; k0 += kStep) {
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kStep; i += kThreads) {
      const int r = i / kStep, step = i % kStep;
      const std::int64_t k = k0 + step;
      double ref = 0.0;
      float spread = 0.0f, squares = 0.0f;
      if (r < tile.rows && k < shape.k) {
        const std::int64_t at = shape.source[tile.first + r] * shape.k + k;
        ref = left.ref[at];
        spread = left.spread[at];
        squares = left.squares[at];
      }
      a_ref[step][r] = ref;
      a_spread[step][r] = spread;
      a_squares[step][r] = squares;
    }
    for (int i = threadIdx.x; i < kColumns * kStep; i += kThreads) {
      const int c = i / kStep, step = i % kStep;
      const std::int64_t k = k0 + step;
      const float b = first_column + c < shape.n && k < shape.k ? __bfloat162float(weights[(first_column + c) * shape.k + k]) : 0.0f;
      b_wide[step][c] = b;
      b_magnitude[step][c] = fabsf(b);
    }
    __syncthreads();
#pragma unroll 4
    for (int step = 0; step < kStep; ++step) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const double b = b_wide[step][column + j];
        const float magnitude = b_magnitude[step][column + j];
        const float square = __fmul_rn(magnitude, magnitude);
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
          Sums& s = sums[i][j];
          s.ref = __dadd_rn(s.ref, __dmul_rn(a_ref[step][row + i], b));
          s.spread = __fadd_rn(s.spread, __fmul_rn(a_spread[step][row + i], magnitude));
          s.squares = __fadd_rn(s.squares, __fmul_rn(a_squares[step][row + i], square));
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i)
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      if (row + i >= tile.rows || first_column + column + j >= shape.n) continue;
      const Sums& s = sums[i][j];
      const double delta = __dadd_rn(__dmul_rn(s.spread, constants.inflate), constants.floor);
      const double low = __dsub_rn(s.ref, delta), high = __dadd_rn(s.ref, delta);
      const double underflow = __ddiv_rn(__dmul_rn(constants.floor, constants.floor), 3.0);
      const double noise = __dsqrt_rn(__dadd_rn(variance(s.ref, s.squares, constants), underflow));
      const double limit = radius(low, s.ref, high);  // no legal value is further off
      out[(tile.first + row + i) * shape.n + first_column + column + j] = {s.ref, low, high, noise < limit ? noise : limit};
    }
}

}  // namespace

BoundedConstants::BoundedConstants(std::int64_t count) : terms(static_cast<double>(count)) {
  constexpr double kUnitRoundoff = 0x1p-24;
  bound = terms * kUnitRoundoff / (1.0 - terms * kUnitRoundoff);  // gamma_n: Higham, Accuracy and Stability, 2nd ed., section 3.1
  inflate = 1.0 + 2.0 * bound;
  floor = terms * 0x1p-149;
  const double steps = static_cast<double>((count + 15) / 16);
  rate = kUnitRoundoff * kUnitRoundoff * std::max(steps * steps + steps / 3.0, terms / 3.0);
  mean_of_squares = 1.0 / 3.0 + 0.5 / steps + 1.0 / (6.0 * steps * steps);
  const double aligned = 4.0 * kUnitRoundoff * steps * std::min(1.0, terms * 0x1p-12);
  aligned_squared = aligned * aligned;
}

void prepare_bounded(const DeviceInterval* left, std::int64_t count, const BoundedConstants& constants, const BoundedLeft& out, cudaStream_t stream) {
  constexpr int kBlock = 256;
  if (count == 0) return;
  prepare_bounded_kernel<<<static_cast<unsigned>((count + kBlock - 1) / kBlock), kBlock, 0, stream>>>(left, count, constants, out);
  ASSAY_CUDA(cudaGetLastError());
}

void bounded_product(const ProductShape& shape, const BoundedLeft& left, const BoundedConstants& constants, DeviceInterval* out, cudaStream_t stream) {
  ASSAY_CHECK(shape.tile_count > 0 && shape.tile_count < 65536 && shape.n > 0 && shape.k > 0, "expected 1 to 65,535 row tiles and a product that is not empty");
  const dim3 grid(static_cast<unsigned>((shape.n + kColumns - 1) / kColumns), static_cast<unsigned>(shape.tile_count));
  bounded_product_kernel<<<grid, kThreads, 0, stream>>>(shape, left, constants, out);
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace assay::gpu
