// The two arithmetics of the reference. Every stage is one template over them: `Bounded` carries a float64 value and the
// interval an implementation may reach; `Predicted` carries the fp32 value an H200 computes.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/bf16.h"
#include "harness/grouped_product.h"

namespace assay {

struct Bounded {
  using Value = Interval;
  static Value exact(double x) { return {x, x, x}; }
};

struct Predicted {
  using Value = PredictedValue;
  static Value exact(double x) { return {static_cast<float>(x), false}; }
};

inline double finite_float(double x) { return static_cast<double>(static_cast<float>(x)); }

/// Half width of an interval around its reference value.
inline double radius(const Interval& x) { return std::max({x.high - x.ref, x.ref - x.low, 0.0}); }

inline Interval widen(Interval x, double relative, double absolute = 0.0) {
  x.low -= std::fabs(x.low) * relative + absolute;
  x.high += std::fabs(x.high) * relative + absolute;
  return x;
}

/// Rounds to bf16 where the contract stores the value. Rounding is monotone: replaying it on both ends widens nothing.
inline Interval stored(const Interval& x, Store store) {
  if (store == Store::Unrounded) return x;
  return {to_float(round_to_bf16(x.ref)), to_float(round_to_bf16(x.low)), to_float(round_to_bf16(x.high))};
}

inline PredictedValue stored(const PredictedValue& x, Store store) {
  return store == Store::Unrounded ? x : PredictedValue{to_float(round_to_bf16(x.value)), x.undetermined};
}

/// fp32 product. On bf16 operands it is exact; rounding both ends to fp32 is exact for them too, and covers the rest.
/// With a float64 accumulator the product rounds once there, and once here.
inline Interval multiply(const Interval& a, const Interval& b, double unit_roundoff = kFp32UnitRoundoff) {
  const auto ends = {a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high};
  const auto [low, high] = std::minmax(ends);
  if (unit_roundoff < kFp32UnitRoundoff) return widen({a.ref * b.ref, low, high}, 4.0 * unit_roundoff);
  return {a.ref * b.ref, finite_float(low), finite_float(high)};
}

inline PredictedValue multiply(const PredictedValue& a, const PredictedValue& b, double = kFp32UnitRoundoff) {
  return {a.value * b.value, a.undetermined || b.undetermined};
}

/// One fp32 addition, in the order written.
inline Interval add(const Interval& a, const Interval& b) {
  return {a.ref + b.ref, finite_float(a.low + b.low), finite_float(a.high + b.high)};
}

inline PredictedValue add(const PredictedValue& a, const PredictedValue& b) {
  return {a.value + b.value, a.undetermined || b.undetermined};
}

/// gamma_n = n u / (1 - n u): Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
inline double gamma(std::int64_t n, double u = kFp32UnitRoundoff) {
  const double nu = static_cast<double>(n) * u;
  return nu / (1.0 - nu);
}

}  // namespace assay
