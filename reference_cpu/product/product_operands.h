// The operands of a grouped product as the kernels read them: rows of the left one, panels of 16 columns of
// the right one.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "harness/contract/grouped_product.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/product_bound.h"
#include "harness/contract/worth_threads.h"
#include "reference_cpu/product/product_kernels.h"

namespace assay {

inline std::int64_t padded(std::int64_t k) { return (k + 15) / 16 * 16; }

inline std::int32_t exponent(float x) {
  return x == 0.0f ? kZeroExponent
                   : static_cast<std::int32_t>((std::bit_cast<std::uint32_t>(x) >> 23) & 0xff) - 127;
}

/// Inf, NaN and subnormal operands are outside what was measured of the tensor core.
inline bool outside_measured(float x) { return x != 0.0f && !std::isnormal(x); }

// The left operand, prepared once for all columns.
struct BoundedRows {
  using Value = Interval;
  static constexpr bool kNeedsExponents = false;
  LargeVector<double> ref;             // [rows, k]
  LargeVector<float> spread, squares;  // [rows, k]
  std::vector<double>
      granularity;  // [rows]: largest power of two that divides the row; 0 where it is not exact
  std::vector<std::uint8_t> exact;  // [rows]: no operand has a width, so that the running bound holds
  BoundShape shape;
  Summation order;

  explicit BoundedRows(const GroupedProduct<Interval>& p) {
    const auto rows = p.k == 0 ? 0 : static_cast<std::int64_t>(p.left.size()) / p.k;
    granularity.resize(static_cast<std::size_t>(rows));
    exact.resize(granularity.size());
    std::int64_t exact_rows = 0;
#pragma omp parallel for schedule(static) reduction(+ : exact_rows) if (worth_threads(4 * rows * p.k))
    for (std::int64_t r = 0; r < rows; ++r) {
      double least = std::numeric_limits<double>::infinity();
      bool exact_row = true;
      for (std::int64_t k = 0; k < p.k; ++k) {
        const Interval& x = p.left[static_cast<std::size_t>(r * p.k + k)];
        exact_row = exact_row && x.low == x.ref && x.high == x.ref;
        least = std::min(least, assay::granularity(x.ref));
      }
      granularity[static_cast<std::size_t>(r)] = exact_row && !p.a_priori_only ? least : 0.0;
      exact[static_cast<std::size_t>(r)] = exact_row;
      exact_rows += exact_row;
    }
    shape = bound_shape(p.k, p.unit_roundoff, p.accumulator, exact_rows > 0 && !p.a_priori_only);
    order = shape.running ? summation(p.accumulator, p.k) : Summation{StepRule::Truncate16, {{0, p.k, true}}};
    ref.resize(static_cast<std::size_t>(rows * p.k));
    spread.resize(ref.size());
    squares.resize(ref.size());
#pragma omp parallel for schedule(static) if (worth_threads(rows * p.k))
    for (std::int64_t i = 0; i < rows * p.k; ++i) {
      const auto at = static_cast<std::size_t>(i);
      ref[at] = p.left[at].ref;
      spread[at] = spread_of(shape, p.left[at]);
      squares[at] = squares_of(shape, p.left[at]);
    }
  }
  Walk walk() const {
    return {order.stretches.data(), static_cast<std::int64_t>(order.stretches.size()), order.rule,
            shape.running, static_cast<float>(1.0 / shape.c)};
  }
};

struct PredictedRows {
  using Value = PredictedValue;
  static constexpr bool kNeedsExponents = true;
  std::int64_t stride = 0;
  LargeVector<float> values;            // [rows, stride], zero-padded
  LargeVector<std::int32_t> exponents;  // [rows, stride]
  std::vector<std::uint8_t> outside;    // [rows]

  explicit PredictedRows(const GroupedProduct<PredictedValue>& p) : stride(padded(p.k)) {
    const auto rows = p.k == 0 ? 0 : static_cast<std::int64_t>(p.left.size()) / p.k;
    values.resize(static_cast<std::size_t>(rows * stride));
    exponents.resize(values.size());
    outside.resize(static_cast<std::size_t>(rows));
#pragma omp parallel for schedule(static) if (worth_threads(4 * rows * p.k))
    for (std::int64_t r = 0; r < rows; ++r) {
      bool out = false;
      for (std::int64_t k = 0; k < p.k; ++k) {
        const auto& x = p.left[static_cast<std::size_t>(r * p.k + k)];
        const auto at = static_cast<std::size_t>(r * stride + k);
        values[at] = x.value;
        exponents[at] = exponent(x.value);
        out = out || x.undetermined || outside_measured(x.value);
      }
      for (std::int64_t k = p.k; k < stride; ++k) {
        values[static_cast<std::size_t>(r * stride + k)] = 0.0f;
        exponents[static_cast<std::size_t>(r * stride + k)] = kZeroExponent;
      }
      outside[static_cast<std::size_t>(r)] = out;
    }
  }
};

// 16 columns of one expert's matrix, K-major.
struct PackedPanel {
  std::vector<float> values;
  std::vector<std::int32_t> exponents;
  bool outside[kPanelColumns] = {};
  const Bf16* column[kPanelColumns] = {};
  double granularity[kPanelColumns];  // of the first `looked_at` elements of the column
  std::int64_t looked_at[kPanelColumns];

  void pack(std::span<const Bf16> weights, std::int64_t k, std::int64_t first, std::int64_t count,
            bool with_exponents) {
    values.assign(static_cast<std::size_t>(padded(k) * kPanelColumns), 0.0f);
    if (with_exponents) exponents.assign(values.size(), kZeroExponent);
    for (std::int64_t c = 0; c < count; ++c) {
      const Bf16* from = column[c] = weights.data() + (first + c) * k;
      outside[c] = false;
      granularity[c] = std::numeric_limits<double>::infinity();
      looked_at[c] = 0;
      for (std::int64_t i = 0; i < k; ++i)
        values[static_cast<std::size_t>(i * kPanelColumns + c)] = to_float(from[i]);
      if (!with_exponents) continue;
      bool out = false;
      for (std::int64_t i = 0; i < k; ++i) {
        const float x = to_float(from[i]);
        exponents[static_cast<std::size_t>(i * kPanelColumns + c)] = exponent(x);
        out = out || outside_measured(x);
      }
      outside[c] = out;
    }
  }

  /// The column's granularity, or something below `least`: most columns are seen to be too fine after a few
  /// elements.
  double granularity_from(std::int64_t c, std::int64_t k, double least) {
    for (; looked_at[c] < k && granularity[c] >= least; ++looked_at[c])
      granularity[c] = std::min(granularity[c], assay::granularity(to_float(column[c][looked_at[c]])));
    return granularity[c];
  }

  Panel view(std::int64_t k) const { return {values.data(), exponents.data(), k}; }
};

}  // namespace assay
