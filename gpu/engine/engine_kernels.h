// The products of the reference and of the prediction as device functions: out[r, n] = sum_k left[source[r],
// k] * W_g[n, k]. Every sum runs in ascending K on one thread, so that its bits do not depend on the launch.
// Pointers are device memory.
#pragma once

#include <cstdint>

#include "gpu/kernels/kernels.h"

namespace assay::gpu {

/// Rows [first, first + rows) of one group.
struct ProductTile {
  std::int32_t group;
  std::int32_t first;
  std::int32_t rows;
};

struct DeviceOperands {
  const ProductTile* tiles;  // [tile_count], at most the launcher's tile rows each
  std::int64_t tile_count;
  const std::int32_t* source;  // [rows]
  const bf16* const* weights;  // [groups] of [n, k]
  std::int64_t k;
  std::int64_t n;
};

/// Where partial sums end, in steps of 16 products; the last is all of K.
inline constexpr int kMostParts = 16;
inline constexpr int kStepProducts = 16;
struct PartEnds {
  std::int32_t count;
  std::int32_t step[kMostParts];
};

/// An element of the left operand of a bounded product (harness/contract/product_bound.h: spread_of,
/// squares_of).
struct alignas(16) BoundedTerm {
  double ref;
  float spread;
  float squares;
};

/// The sums of harness's ProductSums over one element's terms.
struct DeviceSums {
  double ref;
  float spread;
  float squares;
  float running;
  std::int32_t unused;
};

inline constexpr int kBoundedTileRows = 64;
/// left [left_rows, k], out [rows, n]. `running` asks for the running bound of the order that `parts`
/// describes; |a||b| is a term's spread times `terms_per_spread` then.
void bounded_product(const DeviceOperands& operands, const BoundedTerm* left, const PartEnds& parts,
                     bool running, float terms_per_spread, DeviceSums* out, cudaStream_t stream);

/// Elements of the operands of a product that both have errors (product_bound.h): |a| and a^2 + a's variance
/// beside the terms of a bounded product; |b| + half width, half width, b^2 and b's variance in units of what
/// q^2 counts for.
struct TwoSidedLeft {
  double ref;
  float spread;
  float squares;
  float magnitude;
  float moment;
};
struct TwoSidedRight {
  double ref;
  float outer;
  float width;
  float squares;
  float noise;
};
struct alignas(16) TwoSidedSums {
  double ref;
  float spread;
  float squares;
};
struct TwoSidedOperands {
  const ProductTile* tiles;  // [tile_count], at most kBoundedTileRows rows each
  std::int64_t tile_count;
  const std::int32_t* source;  // [rows]
  const TwoSidedLeft* left;    // [left_rows, k]
  const TwoSidedRight* right;  // [k, n]
  std::int64_t k;
  std::int64_t n;
};

/// out [rows, n]: of the terms of each element the sums of a.ref b.ref, of a.spread b.outer + a.magnitude
/// b.width, and of a.squares b.squares + a.moment b.noise.
void two_sided_product(const TwoSidedOperands& operands, TwoSidedSums* out, cudaStream_t stream);

/// lowest[c]: the largest power of two that divides column c of a matrix [n, k], as its exponent; kAllZero
/// where the column is zero, kNotFinite where it has an Inf or a NaN.
inline constexpr int kAllZero = 1 << 20, kNotFinite = -(1 << 20);
void column_granularity(const bf16* weights, std::int64_t k, std::int64_t n, std::int32_t* lowest,
                        cudaStream_t stream);

/// A predicted value, laid out as harness's PredictedValue.
struct DevicePrediction {
  float value;
  std::int32_t undetermined;  // 0 or 1
};

/// The left operand of a predicted product.
struct PredictedLeft {
  std::uint32_t* words;    // [left_rows, k]: exponent and significand side by side (predicted_product.cu)
  std::int32_t* outside;   // [left_rows]: 1 where a value is undetermined, subnormal, Inf or NaN
  std::int32_t* not_bf16;  // [1]: set to 1 where a value needs more than bf16's bits
};

inline constexpr int kPredictedTileRows = 32;
inline constexpr int kHopperFractionBits = 25;
void prepare_predicted(const DevicePrediction* left, std::int64_t rows, std::int64_t k,
                       const PredictedLeft& out, cudaStream_t stream);
/// `fraction_bits` is what the accumulator keeps behind the largest exponent; anything but Hopper's 25 is a
/// planted fault.
void predicted_product(const DeviceOperands& operands, const DevicePrediction* left,
                       const PredictedLeft& prepared, const PartEnds& parts, int fraction_bits,
                       DevicePrediction* out, cudaStream_t stream);

}  // namespace assay::gpu
