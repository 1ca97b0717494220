// The interval of an element of a product, from what all elements share: product_bound.h of one element,
// product_intervals.h of many.
#pragma once

#include "harness/contract/noise.h"
#include "harness/contract/product_bound.h"

namespace assay {

struct ElementConstants {
  double c = 0.0;          // BoundShape
  double inflation = 1.0;  // of fp32 sums of non-negative terms: they err by gamma of their length, and twice
                           // C(n + 16) covers them, narrowed operands included
  double underflow = 0.0;  // results below the normal range round absolutely: 2^-149 per step and addend
  double lost_in_float64 = 0.0;
  double running_inflation = 1.0;
  double running = 0.0;  // 1 or 0: BoundShape
  AccumulationNoise noise;

  ElementConstants() = default;
  explicit ElementConstants(const BoundShape& shape)
      : c(shape.c),
        inflation(1.0 + 2.0 * gamma(shape.n + 16)),
        underflow(2.0 * static_cast<double>(shape.n) * 0x1p-149),
        lost_in_float64(gamma(shape.n, 0x1p-53)),
        running_inflation(shape.running_inflation),
        running(shape.running ? 1.0 : 0.0),
        noise(shape.n, shape.unit_roundoff) {}

  /// sum |a||b| of an exact left operand.
  double magnitude(float spread) const { return spread * inflation / c; }
  double a_priori_bound(float spread) const { return spread * inflation + underflow; }
  double running_bound(float spread, float lost) const {
    return 0x1p-23 * lost * running_inflation + lost_in_float64 * magnitude(spread) + underflow;
  }
  double least_right_granularity(float spread, double left) const {
    return magnitude(spread) * 0x1p-24 / left;
  }
  bool exact_in_any_order(float spread, double left, double right) const {
    const double q = left * right;
    const double sum = magnitude(spread);
    return q >= 0x1p-126 && sum < 0x1p24 * q && sum < 0x1p127;
  }

  // Of an element that is not exact in any order. Both ways of a choice are computed, so that loops of these
  // are loops of vectors.
  double half_width(float spread, float lost) const {
    const double any_order = a_priori_bound(spread);
    const double this_order = running_bound(spread, lost);
    // Sums outside the range in which tensor cores were measured keep the a-priori bound (NUMERICS 4).
    double least = this_order < any_order ? this_order : any_order;
    least = any_order > 0x1p-100 ? least : any_order;
    least = any_order < 0x1p100 ? least : any_order;
    return running > 0.0 ? least : any_order;
  }
  double variance(double ref, float squares) const {
    return noise.variance(ref, squares) + uniform_variance(underflow);
  }
};

}  // namespace assay
