// Panels of 16 columns of a product's right operand, as the kernels read them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "harness/contract/grouped_product.h"
#include "harness/contract/product_bound.h"
#include "reference_cpu/product/product_kernels.h"

namespace assay {

inline std::int64_t padded(std::int64_t k) { return (k + 15) / 16 * 16; }

/// Without its sign.
inline std::int32_t magnitude_bits(float x) { return std::bit_cast<std::int32_t>(x) & 0x7fffffff; }

inline std::int16_t exponent(float x) {
  const std::int32_t bits = magnitude_bits(x);
  return static_cast<std::int16_t>(bits == 0 ? kZeroExponent : (bits >> 23) - 127);
}

/// Inf, NaN and subnormal operands are outside what was measured of the tensor core.
inline bool outside_measured(float x) {
  const std::int32_t bits = magnitude_bits(x);
  return (bits != 0) & ((bits < 0x00800000) | (bits >= 0x7f800000));
}

/// Where the columns of a right operand are: column c, term i at c * by_column + i * by_term.
struct PanelPlace {
  // the columns [first, first + count) of [n, k] or [k, n]
  std::int64_t k;
  std::int64_t n;
  std::int64_t first;
  std::int64_t count;
  Lies lies;

  std::int64_t at(std::int64_t c, std::int64_t i) const {
    return lies == Lies::AlongColumns ? (first + c) * k + i : i * n + first + c;
  }
};

/// K-major. Columns that have errors are kept in double beside their widths, exact ones in float.
struct PackedPanel {
  std::vector<float> values;              // exact or predicted columns
  std::vector<std::int16_t> exponents;    // of predicted ones, two terms side by side (Panel)
  bool outside[kPanelColumns] = {};       // what the tensor core was not measured on
  bool undetermined[kPanelColumns] = {};  // of predicted columns
  bool exact = true;                      // `values` hold the columns, and not what follows
  std::vector<double> ref;
  // IntervalPanel
  std::vector<float> outer;
  std::vector<float> width;
  std::vector<float> squares;
  std::vector<float> noise;

  void pack(std::span<const Bf16> weights, const PanelPlace& place, bool with_exponents);
  void pack(std::span<const PredictedValue> right, const PanelPlace& place);
  void pack(std::span<const Interval> right, const PanelPlace& place, const BoundShape& shape);

  /// A dropped tail is a shorter K: the bounds' steps read zeros there. Not for columns with errors.
  void clear_tail(std::int64_t from);

  /// The exact column's granularity, or something below `least`: most columns are seen to be too fine after a
  /// few elements.
  double granularity_from(std::int64_t c, std::int64_t k, double least);

  Panel view(std::int64_t k) const { return {values.data(), exponents.data(), k}; }
  IntervalPanel intervals(std::int64_t k) const {
    return {ref.data(), outer.data(), width.data(), squares.data(), noise.data(), k};
  }

 private:
  double granularity_[kPanelColumns];  // of the first `looked_at_` elements of the column
  std::int64_t looked_at_[kPanelColumns];

  void start();
  void take_exponents();
};

}  // namespace assay
