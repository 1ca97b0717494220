// How far stored elements lie from the rounded reference, and how far legal implementations are expected to:
// what the statistics of a field (statistics.h) are summed from. An element is flipped where its bits differ
// from those of the rounded reference.
#pragma once

#include "harness/contract/cells.h"

namespace assay {

/// An element's excess counts at most one squared ulp, in units of ulp^2 / 12: any cap gives a valid test,
/// and this one keeps a single far-off element, which the interval judges anyway, from widening the limits of
/// all.
inline constexpr double kExcessCap = 12.0;

/// One element. With d the distance from the reference to the nearest rounding boundary, e the error before
/// rounding, of which E e^2 <= noise^2 and |e| <= delta are known, and w = ulp^2 / 12 + noise^2:
struct Deviation {
  double flipped = 0.0;  // 1 where the bits differ from the rounded reference, else 0
  double flip_chance =
      0.0;  // at most: 0 where delta < d (proven), else min(1, noise^2 / d^2) (Chebyshev: no shape assumed)
  double excess = 0.0;  // ((out - ref)^2 - (rounded - ref)^2) / w, never negative, at most kExcessCap
  double excess_expected = 0.0;  // at most: see excess_bound in deviation.cpp
  double z2 = 0.0;               // (out - ref)^2 / w
  double z2_of_rounding = 0.0;   // (rounded - ref)^2 / w
  double contract_ulps = 0.0;    // |out - ref| / max(ulp, 2 delta)
};

/// Nothing (all zero) where `out` or the reference is not finite: the interval judges those alone. An element
/// whose noise is not modelled (0 or not finite, though its interval leaves a choice) may flip with
/// certainty.
Deviation deviation(Stored out, const Interval& reference);

/// (out - rounded) sign(ref) in units of sqrt(ulp^2 + 12 noise^2), clipped to [-1, 1]: negative where `out`
/// is too small.
double signed_shift(Stored out, const Interval& reference);

/// A stretch of one row, as arrays that vectorise; `count` is at most kCellColumns.
struct Deviations {
  double flipped[kCellColumns];
  double flip_chance[kCellColumns];
  double excess[kCellColumns];
  double excess_expected[kCellColumns];
  double z2[kCellColumns];
  double z2_of_rounding[kCellColumns];
  double contract_ulps[kCellColumns];
};
void deviations(StoredSpan out, const Interval* reference, int count, Deviations& to);

/// Other expectations in `to`, for errors carried on from earlier stages, which have nothing to do with where
/// the reference lies between two boundaries. Averaged over that place a flip has the chance E|e| / ulp and
/// the excess is E e^2, whatever the shape of e (noise.h: crossing_chance). Elements whose noise is not
/// modelled keep theirs.
void expect_of_carried_errors(DType dtype, const Interval* reference, int count, Deviations& to);

}  // namespace assay
