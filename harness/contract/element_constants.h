// The interval of an element of a product, from what all elements share: product_bound.h of one element,
// product_intervals.h of many, and of each on a device.
#pragma once

#include <cmath>

#include "harness/contract/noise.h"

namespace assay {

struct BoundShape;

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
  explicit ElementConstants(const BoundShape& shape);  // product_bound.cpp

  /// sum |a||b| of an exact left operand.
  ASSAY_ON_BOTH double magnitude(float spread) const { return spread * inflation / c; }
  ASSAY_ON_BOTH double a_priori_bound(float spread) const { return spread * inflation + underflow; }
  ASSAY_ON_BOTH double running_bound(float spread, float lost) const {
    return 0x1p-23 * lost * running_inflation + lost_in_float64 * magnitude(spread) + underflow;
  }
  double least_right_granularity(float spread, double left) const {
    return magnitude(spread) * 0x1p-24 / left;
  }
  ASSAY_ON_BOTH bool exact_in_any_order(float spread, double left, double right) const {
    const double q = left * right;
    const double sum = magnitude(spread);
    return q >= 0x1p-126 && sum < 0x1p24 * q && sum < 0x1p127;
  }

  // Of an element that is not exact in any order. Both ways of a choice are computed, so that loops of these
  // are loops of vectors.
  ASSAY_ON_BOTH double half_width(float spread, float lost) const {
    const double any_order = a_priori_bound(spread);
    const double this_order = running_bound(spread, lost);
    // Sums outside the range in which tensor cores were measured keep the a-priori bound (NUMERICS 4).
    double least = this_order < any_order ? this_order : any_order;
    least = any_order > 0x1p-100 ? least : any_order;
    least = any_order < 0x1p100 ? least : any_order;
    return running > 0.0 ? least : any_order;
  }
  ASSAY_ON_BOTH double variance(double ref, float squares) const {
    return noise.variance(ref, squares) + uniform_variance(underflow);
  }

  ASSAY_ON_BOTH Interval interval(double ref, float spread, float squares, float lost, bool exact) const {
    if (exact) return {ref, ref, ref};
    const double delta = half_width(spread, lost);
    return with_noise({ref, ref - delta, ref + delta}, std::sqrt(variance(ref, squares)));
  }
};

/// Errors of the operands that shrink, or grow, all of them alike do not average out in the sum: they shrink
/// it by `share` at most. The rest is a sum of many errors that have nothing to do with each other: normal,
/// or a mixture of normal ones where few of them are large.
ASSAY_ON_BOTH inline Interval with_common_error(const Interval& x, double share) {
  if (!(share > 0.0)) return x;
  const double common = share * std::fabs(x.ref);
  const double other = x.noise;
  // Squares of what a float holds are far from a double's ends.
  return with_noise(x, std::sqrt(other * other + common * common), kMeanOfNormal * other + common);
}

/// Products add up the squares of the noise that their operands carry in fp32, where they are lost below
/// 2^-126: of values so small that this is all there is, the model knows no noise below 2^-60.
ASSAY_ON_BOTH inline Interval with_noise_above_underflow(Interval x) {
  constexpr float kLeast = 0x1p-60f;
  if (x.noise >= kLeast || !(x.low < x.high)) return x;
  x.noise = kLeast;
  x.mean = x.mean < kLeast ? kLeast : x.mean;
  return x;
}

}  // namespace assay
