// The two arithmetics of the reference. Every stage is one template over them: `Bounded` carries a float64
// value and the interval an implementation may reach; `Predicted` carries the fp32 value an H200 computes.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/contract/bf16.h"
#include "harness/contract/grouped_product.h"
#include "harness/contract/noise.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/product_bound.h"
#include "harness/contract/reference.h"

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

inline Interval widen(Interval x, double relative, double absolute = 0.0) {
  x.low -= std::fabs(x.low) * relative + absolute;
  x.high += std::fabs(x.high) * relative + absolute;
  return x;
}

/// Rounds to bf16 where the contract stores the value. Rounding is monotone: replaying it on both ends widens
/// nothing.
inline Interval stored(const Interval& x, Store store) {
  if (store == Store::Unrounded) return x;
  return noise_after_bf16(
      x, {to_float(round_to_bf16(x.ref)), to_float(round_to_bf16(x.low)), to_float(round_to_bf16(x.high))});
}

inline PredictedValue stored(const PredictedValue& x, Store store) {
  return store == Store::Unrounded ? x : PredictedValue{to_float(round_to_bf16(x.value)), x.undetermined};
}

/// As readers find what an implementation keeps in float32.
inline Interval in_float32(const Interval& x) {
  return noise_after_float32(x, {finite_float(x.ref), finite_float(x.low), finite_float(x.high)});
}
inline PredictedValue in_float32(const PredictedValue& x) { return x; }

/// fp32 product. On bf16 operands it is exact; rounding both ends to fp32 is exact for them too, and covers
/// the rest. With a float64 accumulator the product rounds once there, and once here.
inline Interval multiply(const Interval& a, const Interval& b, double unit_roundoff = kFp32UnitRoundoff) {
  const auto ends = {a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high};
  const auto [low, high] = std::minmax(ends);
  const double ref = a.ref * b.ref;
  const double na = a.noise;
  const double nb = b.noise;
  const double va = na * na;
  const double vb = nb * nb;
  const double own = rounding_variance(ref, unit_roundoff);
  const double noise = std::sqrt(va * b.ref * b.ref + vb * a.ref * a.ref + va * vb + own);
  const double mean = a.mean * std::fabs(b.ref) + b.mean * std::fabs(a.ref) +
                      static_cast<double>(a.mean) * b.mean + std::sqrt(own);
  if (unit_roundoff < kFp32UnitRoundoff)
    return with_noise(widen({ref, low, high}, 4.0 * unit_roundoff), noise, mean);
  return with_noise({ref, finite_float(low), finite_float(high)}, noise, mean);
}

inline PredictedValue multiply(const PredictedValue& a, const PredictedValue& b, double = kFp32UnitRoundoff) {
  return {a.value * b.value, a.undetermined || b.undetermined};
}

/// One fp32 addition, in the order written; two of float64 where that accumulates, the implementation's and
/// ours. Errors that shrink (or grow) both terms add up where the terms have one sign.
inline Interval add(const Interval& a, const Interval& b, double unit_roundoff = kFp32UnitRoundoff) {
  const double ref = a.ref + b.ref;
  const double na = a.noise;
  const double nb = b.noise;
  const double own = rounding_variance(ref, unit_roundoff);
  const double common = a.ref * b.ref > 0.0 ? 2.0 * a.mean * b.mean : 0.0;
  const double mean = static_cast<double>(a.mean) + b.mean + std::sqrt(own);
  const double noise = std::sqrt(na * na + nb * nb + common + own);
  if (unit_roundoff < kFp32UnitRoundoff)
    return with_noise(widen({ref, a.low + b.low, a.high + b.high}, 4.0 * unit_roundoff), noise, mean);
  return with_noise({ref, finite_float(a.low + b.low), finite_float(a.high + b.high)}, noise, mean);
}

inline PredictedValue add(const PredictedValue& a, const PredictedValue& b, double = kFp32UnitRoundoff) {
  return {a.value + b.value, a.undetermined || b.undetermined};
}

}  // namespace assay
