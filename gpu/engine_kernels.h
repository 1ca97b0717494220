// The products of the reference and of the prediction as device functions: out[r, n] = sum_k left[source[r], k] * W_g[n, k].
// Every sum runs in ascending K on one thread, so that its bits do not depend on the launch. Pointers are device memory.
#pragma once

#include <cstdint>

#include "gpu/kernels.h"

namespace assay::gpu {

/// Rows [first, first + rows) of one group.
struct ProductTile {
  std::int32_t group;
  std::int32_t first;
  std::int32_t rows;
};

struct ProductShape {
  const ProductTile* tiles;     // [tile_count], at most the launcher's kTileRows rows each
  std::int64_t tile_count;
  const std::int32_t* source;   // [rows]
  const bf16* const* weights;   // [groups] of [n, k]
  std::int64_t k;
  std::int64_t n;
};

/// A reference value with its interval, laid out as harness's Interval.
struct DeviceInterval {
  double ref, low, high, noise;
};

/// What the bound and the noise of a product of `terms` terms are made of (harness/NUMERICS.md: bounds, noise).
struct BoundedConstants {
  explicit BoundedConstants(std::int64_t terms);
  double terms;
  double bound;            // C(k)
  double inflate;          // covers the error of the fp32 sum of the bound's terms
  double floor;            // underflow of every term
  double rate;             // variance of the accumulator per unit of a prefix's mean square
  double mean_of_squares;  // of a prefix of the sum, per unit of the sum's square
  double aligned_squared;  // square of what alignment takes of a sum of one sign
};

/// The left operand of a bounded product, [left_rows, k] each.
struct BoundedLeft {
  double* ref;
  float* spread;   // per unit of |b|: what the term adds to the bound
  float* squares;  // per unit of b^2: what the term adds to the variance
};

inline constexpr int kBoundedTileRows = 64;
void prepare_bounded(const DeviceInterval* left, std::int64_t count, const BoundedConstants& constants, const BoundedLeft& out, cudaStream_t stream);
void bounded_product(const ProductShape& shape, const BoundedLeft& left, const BoundedConstants& constants, DeviceInterval* out, cudaStream_t stream);

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

/// Where partial sums end, in steps of 16 products; the last is all of K.
inline constexpr int kMostParts = 16;
struct PartEnds {
  std::int32_t count;
  std::int32_t step[kMostParts];
};

inline constexpr int kPredictedTileRows = 32;
inline constexpr int kHopperFractionBits = 25;
void prepare_predicted(const DevicePrediction* left, std::int64_t rows, std::int64_t k, const PredictedLeft& out, cudaStream_t stream);
/// `fraction_bits` is what the accumulator keeps behind the largest exponent; anything but Hopper's 25 is a planted fault.
void predicted_product(const ProductShape& shape, const DevicePrediction* left, const PredictedLeft& prepared, const PartEnds& parts,
                       int fraction_bits, DevicePrediction* out, cudaStream_t stream);

}  // namespace assay::gpu
