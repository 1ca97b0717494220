// The noise model: how far from the reference legal implementations typically are, as a root mean square.
// Statistics are judged by it, intervals never. It is an envelope over all legal orders of summation and the
// truncating tensor core, and it rests on one assumption: errors of different terms are independent. What is
// modelled and how well is in harness/NUMERICS.md, Noise.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "harness/contract/interval.h"
#include "harness/contract/stored.h"

namespace assay {

/// Half width of an interval around its reference value.
ASSAY_ON_BOTH inline double radius(const Interval& x) {
  const double up = x.high - x.ref;
  const double down = x.ref - x.low;
  const double wider = up < down ? down : up;
  return wider < 0.0 ? 0.0 : wider;
}

/// Sets the noise and the mean size of the error, in the value's unit. No legal value is further off than the
/// interval is wide, so neither is their rms; that covers overflow and NaN of the model too, and makes an
/// exact value's noise 0. No mean size is above the rms.
ASSAY_ON_BOTH inline Interval with_noise(Interval x, double noise, double mean) {
  const double limit = radius(x);
  const double rms = noise < limit ? noise : limit;
  x.noise = static_cast<float>(rms);
  x.mean = static_cast<float>(mean < rms ? mean : rms);
  return x;
}
ASSAY_ON_BOTH inline Interval with_noise(Interval x, double noise) { return with_noise(x, noise, noise); }

inline constexpr double kMeanOfNormal = 0.7978845608028654;  // sqrt(2 / pi): E|e| of a normal error, per rms

/// Variance of an error that is known only to stay below `bound`: uniform in [-bound, bound].
ASSAY_ON_BOTH inline double uniform_variance(double bound) { return bound * bound / 3.0; }

/// Variance of rounding a result to nearest in arithmetic of unit roundoff u: |error| <= u |x|.
inline double rounding_variance(double x, double unit_roundoff) {
  return uniform_variance(unit_roundoff * x);
}

/// Variance of the rounding errors of a sum of n exact products, in any order, on the tensor core or rounding
/// to nearest. s is the sum, q^2 the sum of the squared products. In random order a prefix that holds the
/// fraction f of the terms has E s_k^2 = f^2 s^2 + f (1 - f) q^2, in the mean over f = 1/m, 2/m, .., 1: (1/3
/// + 1/(2m) + 1/(6m^2)) s^2 and at most q^2 / 6.
/// - Rounding to nearest: n errors of variance u^2 s_k^2 / 3 that do not add up.
/// - Tensor core: each of m = ceil(n / 16) steps cuts the sum toward zero, a loss uniform in [0, 2u |s_k|].
/// Its means u |s_k| have
///   one sign and add, (m u)^2 mean(s_k^2) at most (Cauchy and Schwarz), its variances u^2 s_k^2 / 3 do not.
/// - Alignment: each of a step's 16 addends loses up to 2^-25 of the largest; in the mean 16 * 2^-26 = 4u
/// |s_k| together if all
///   have one sign, but a product has 16 bits and loses none above 2^-11 |s_k|. So this takes thousands of
///   terms of one sign: the share min(1, n / 2^12) of the steps, times rho^2 = s^2 / (n q^2), which is 1 for
///   equal terms and 1 / n for random signs.
/// With a float64 accumulator both sums round to nearest, the implementation's and ours.
/// This is the variance per unit of that mean square, without the alignment's part.
inline double accumulation_rate(std::int64_t n, double unit_roundoff) {
  const auto terms = static_cast<double>(n);
  if (unit_roundoff < kFp32UnitRoundoff) return 2.0 * terms / 3.0 * unit_roundoff * unit_roundoff;
  const double steps = std::ceil(terms / 16.0);
  return unit_roundoff * unit_roundoff * std::max(steps * steps + steps / 3.0, terms / 3.0);
}

/// What all elements of one product share.
struct AccumulationNoise {
  double terms = 0.0;
  double rate = 0.0;
  double mean_of_squares = 0.0;
  double aligned = 0.0;  // squared; 0 with a float64 accumulator

  AccumulationNoise() = default;
  AccumulationNoise(std::int64_t n, double unit_roundoff)
      : terms(static_cast<double>(n)), rate(accumulation_rate(n, unit_roundoff)) {
    const double steps = std::max(1.0, std::ceil(terms / 16.0));
    mean_of_squares = 1.0 / 3.0 + 0.5 / steps + 1.0 / (6.0 * steps * steps);
    if (unit_roundoff < kFp32UnitRoundoff) return;
    const double cut = 4.0 * unit_roundoff * steps * std::min(1.0, terms * 0x1p-12);
    aligned = cut * cut;
  }

  /// Both ways of a choice are computed, so that a loop of this is one of vectors.
  ASSAY_ON_BOTH double variance(double s, double q_squared) const {
    const double rounding = rate * (s * s * mean_of_squares + q_squared / 6.0);
    const double both = rounding + aligned * (s * s / (terms * q_squared)) * s * s / 3.0;
    const double any = q_squared > 0.0 ? both : rounding;
    return aligned > 0.0 ? any : rounding;
  }
};

inline double accumulation_variance(std::int64_t n, double s, double q_squared, double unit_roundoff) {
  return AccumulationNoise(n, unit_roundoff).variance(s, q_squared);
}

/// Where a reference value lies between the boundaries at which rounding to bf16, or to float32, changes.
struct RoundingCell {
  double gap;  // to the neighbour above in magnitude, the farther one
  // distance of the reference to the boundaries, in magnitude
  double up;
  double down;
  double gap_below;

  double width() const { return up + down; }
  double nearest() const { return std::min(up, down); }
};

inline RoundingCell rounding_cell(double ref, double rounded, DType dtype = DType::BFloat16) {
  const std::uint32_t step = dtype == DType::Float32 ? 1u : 0x10000u;
  const double magnitude = std::fabs(ref);
  const double value = std::fabs(rounded);
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  const double above = std::bit_cast<float>(bits + step);
  const double below = bits == 0 ? -above : std::bit_cast<float>(bits - step);
  return {above - value, 0.5 * (value + above) - magnitude, magnitude - 0.5 * (value + below), value - below};
}

/// The chance that the error e of x moves the rounded value, for a reference whose place in its cell has
/// nothing to do with e: places are then uniform, and a boundary lies between the two with chance E|e| /
/// width, for e of any shape. The interval excludes boundaries further away than its half width, so that
/// nearest() is at most that, and places up to there share the chance. A place on the boundary itself is no
/// accident, but structure of the data (a product of bf16 numbers has 16 bits): whoever differs at all may go
/// the other way, a share of about (E|e|)^2 / E e^2, and twice that is allowed, as errors are not all of one
/// size. Nor is a place within the noise of one, where the interval is so narrow that a uniform place has no
/// boundary in it 7 times of 8: what is left of short sums beside their large terms, and lost in fp32.
inline double crossing_chance(const RoundingCell& cell, const Interval& x) {
  const double noise = x.noise;
  const double mean = x.mean;
  const double differs = std::min(1.0, 2.0 * (mean / noise) * (mean / noise));
  const double crosses = std::min(1.0, mean / std::min(cell.width(), 2.0 * radius(x)));
  const double structure = 2.0 * radius(x) < 0.125 * cell.width() ? noise : 0x1p-10 * mean;
  return cell.nearest() <= structure ? std::max(differs, crosses) : crosses;
}

/// `rounded` with the noise of x after rounding. An error e = (k + f) gap moves the rounded value by k gaps
/// or, with chance f, by k + 1. So its mean size stays E|e|, and its mean square is E e^2 + gap^2 E f (1 -
/// f). The second term is at most gap E|e|, at most gap^2 / 4, and at most gap^2 / 4 of the share that
/// differs at all. That is (E|e|)^2 / E e^2 for errors of one size and up to pi / 2 times as much for normal
/// ones, whose f (1 - f) is 1/6: gap^2 / 3 of it covers both. On a boundary, and where the interval is
/// narrower than the cell, one step with crossing_chance is all there is.
inline Interval noise_after_bf16(const Interval& x, const Interval& rounded) {
  if (!(x.noise > 0.0f)) return rounded;
  const RoundingCell cell = rounding_cell(x.ref, rounded.ref);
  const double noise = x.noise;
  const double mean = x.mean;
  const double gap = cell.gap;
  const double chance = crossing_chance(cell, x);
  const double sparse = gap * mean / noise;
  const double step = gap * std::sqrt(chance);
  const double step_mean = gap * chance;
  if (2.0 * radius(x) < cell.width()) return with_noise(rounded, step, step_mean);
  const double moved =
      std::sqrt(noise * noise + std::min({gap * mean, 0.25 * gap * gap, sparse * sparse / 3.0}));
  if (cell.nearest() > 0x1p-10 * mean) return with_noise(rounded, moved, mean);
  return with_noise(rounded, std::max(moved, step), std::max(mean, step_mean));
}

/// `rounded` to float32 with the noise of x, where what an implementation computes is a float32 number of its
/// own: its error e holds its last operation, and after storing it differs by e + x.ref - rounded.ref, a
/// number k of gaps, which is the place of the reference more. With y the error before that operation, which
/// knows nothing of the place p, k = floor(p + y / gap + 1/2) rounded to nearest and floor(p + y / gap)
/// toward zero, p in [-1/2, 1/2): in the mean over p both are k^2 = z^2 + f (1 - f) and |k| = |z|, with z =
/// y / gap, or half less, and f its fraction, while E e^2 = gap^2 (z^2 + 1/12) and E|e| >= gap |z|. So the
/// mean square is E e^2 + gap^2 / 6 at most, and the mean size no more than it was; nor is any difference
/// more than twice e, as no float32 number is nearer than the rounded reference.
inline Interval noise_after_float32(const Interval& x, const Interval& rounded) {
  const double gap = rounding_cell(x.ref, rounded.ref, DType::Float32).gap;
  const double square = static_cast<double>(x.noise) * x.noise;
  return with_noise(rounded, std::sqrt(std::min(4.0 * square, square + gap * gap / 6.0)), x.mean);
}

/// The rms after rounding of an error that has to do with the reference's place, because it recurs wherever
/// the place does: it changes the rounded value only if it reaches a boundary at distance d on the one side
/// or the other, either equally likely. The neighbour there is a gap away: an error of size e >= d moves the
/// result by at most gap + (e - d), so the squared difference is at most (e gap / d)^2, which is Chebyshev's
/// inequality and assumes no shape, and at most (e + gap - d)^2.
inline double recurring_noise_after_bf16(double ref, double noise, double rounded_ref) {
  if (!(noise > 0.0)) return 0.0;
  const RoundingCell cell = rounding_cell(ref, rounded_ref);
  const auto side = [noise](double d, double gap) {
    return std::min(noise * std::max(1.0, gap / d), noise + std::max(0.0, gap - d));
  };
  const double up = side(cell.up, cell.gap);
  const double down = side(cell.down, cell.gap_below);
  return std::sqrt(0.5 * (up * up + down * down));
}

}  // namespace assay
