// The arithmetic of a cell (harness/contract/cells.h) as the device does it, for the device and for the test
// that compares it with the judge's own on a machine without one. Every step is an exactly rounded operation
// or a comparison written as the CPU's, and nothing may be contracted: all sums are the CPU's to the last
// bit. By code of its own, but for that order.
#pragma once

#include <math.h>

#include <cstdint>

#include "harness/contract/on_both.h"

namespace assay::gpu {

inline constexpr int kDeviceCellColumns = 128;

/// A reference value with its interval, laid out as harness's Interval.
struct alignas(16) DeviceInterval {
  double ref;
  double low;
  double high;
  float noise;
  float mean;
};

/// Laid out as harness's Cell.
struct DeviceCell {
  double max_ratio;
  std::int32_t rejected;
  std::int32_t non_finite;
  std::int32_t mismatched;
  std::int32_t unused;
  double flips_expected;
  double excess;
  double excess_expected;
  double z2;
  double z2_of_rounding;
  double max_contract_ulps;
  unsigned long long flipped_low;
  unsigned long long flipped_high;
};

namespace cell {

inline constexpr unsigned long long kMagnitude = ~(1ull << 63);
inline constexpr double kInfinity = __builtin_huge_val();
inline constexpr double kLargest = 0x1.fep127;  // of bf16
inline constexpr double kExcessCap = 12.0;  // squared ulps of ulp^2 / 12 an element's excess counts at most
inline constexpr double kFixedPoint = 0x1p32;  // of sums by class

// With a NaN on either side the first is kept, as by std::min and std::max.
ASSAY_ON_BOTH inline double least(double a, double b) { return b < a ? b : a; }
ASSAY_ON_BOTH inline double largest(double a, double b) { return a < b ? b : a; }

ASSAY_ON_BOTH inline double double_of(unsigned long long bits) { return __builtin_bit_cast(double, bits); }

/// bf16 bits of a double, rounded once to nearest even; NaN stays NaN with its leading bits.
ASSAY_ON_BOTH inline std::uint32_t rounded_bits(double x) {
  const auto bits = __builtin_bit_cast(unsigned long long, x);
  const unsigned long long magnitude = bits & kMagnitude;
  const std::uint32_t sign = static_cast<std::uint32_t>(bits >> 63) << 15;
  if (magnitude > 0x7ff0000000000000ull)
    return sign | 0x7fc0u | static_cast<std::uint32_t>(magnitude >> 45 & 0x7f);
  if (double_of(magnitude) < 0x1p-126)  // neighbours are 2^-133 apart
    return sign | static_cast<std::uint32_t>(rint(double_of(magnitude) * 0x1p133));
  const unsigned long long kept = (magnitude + ((1ull << 44) - 1) + (magnitude >> 45 & 1)) >> 45;
  const unsigned long long rebased = kept - (896ull << 7);
  return sign | (rebased > 0x7f80 ? 0x7f80u : static_cast<std::uint32_t>(rebased));
}

ASSAY_ON_BOTH inline double value_of(std::uint32_t bf16_bits) {
  return static_cast<double>(__builtin_bit_cast(float, bf16_bits << 16));
}
ASSAY_ON_BOTH inline int ordinal(std::uint32_t bits) {
  return (bits & 0x8000u) != 0 ? -static_cast<int>(bits & 0x7fffu) : static_cast<int>(bits & 0x7fffu);
}
ASSAY_ON_BOTH inline bool finite(std::uint32_t bits) { return (bits & 0x7f80u) != 0x7f80u; }

/// Distance of neighbours at a bf16 magnitude; infinite at Inf.
ASSAY_ON_BOTH inline double spacing(std::uint32_t bits) {
  const int biased = static_cast<int>(bits >> 7 & 0xff);
  if (biased == 0xff) return (bits & 0x7f) != 0 ? 0x1p-133 : kInfinity;
  return scalbn(1.0, (biased > 1 ? biased : 1) - 127 - 7);
}

ASSAY_ON_BOTH inline bool accepted(double out, const DeviceInterval& x) {
  if (isnan(out) || isnan(x.ref)) return isnan(out) && isnan(x.ref);
  return (value_of(rounded_bits(x.low)) <= out && out <= value_of(rounded_bits(x.high))) ||
         (isinf(x.ref) && out == x.ref);
}

ASSAY_ON_BOTH inline double half_width(const DeviceInterval& x) {
  return largest(largest(x.high - x.ref, x.ref - x.low), 0.0);
}

ASSAY_ON_BOTH inline double error_ratio(double out, std::uint32_t bits, const DeviceInterval& x) {
  if (out == x.ref || (isnan(out) && isnan(x.ref))) return 0.0;
  const double ratio = fabs(out - x.ref) / (half_width(x) + 0.5 * spacing(bits));
  return isnan(ratio) ? kInfinity : ratio;
}

/// Of one element; all zero where the interval judges alone.
struct CellDeviation {
  bool flipped = false;
  double flip_chance = 0.0;
  double excess = 0.0;
  double excess_expected = 0.0;
  double z2 = 0.0;
  double z2_of_rounding = 0.0;
  double contract_ulps = 0.0;
};

/// Expectations where errors have nothing to do with the reference's place in its cell of rounding: a
/// boundary lies between the two with chance E|e| / width, and on a boundary itself, or within the noise of
/// one where the interval is narrow, up to twice the share that differs at all.
ASSAY_ON_BOTH inline void expect_of_carried_errors(const DeviceInterval& x, std::uint32_t rounded_ref,
                                                   CellDeviation& to) {
  if (!(to.flip_chance > 0.0) || !(x.noise > 0.0f && isfinite(x.noise))) return;
  const double magnitude = fabs(x.ref);
  const double value = value_of(rounded_ref);
  const double above = value_of(rounded_ref + 1);
  const double below = rounded_ref == 0 ? -above : value_of(rounded_ref - 1);
  const double gap = above - value;
  const double up = 0.5 * (value + above) - magnitude;
  const double down = magnitude - 0.5 * (value + below);
  const double delta = half_width(x);
  const double noise = x.noise;
  const double mean = x.mean;
  const double differs = least(1.0, 2.0 * (mean / noise) * (mean / noise));
  const double within = least(up + down, 2.0 * delta);
  const double crosses = least(1.0, mean / within);
  const double excess = 1.0625 * noise * noise * gap / within;
  const double structure = 2.0 * delta < 0.125 * (up + down) ? noise : 0x1p-10 * mean;
  to.flip_chance = least(up, down) <= structure ? largest(differs, crosses) : crosses;
  to.excess_expected = least(kExcessCap, excess / (gap * gap / 12.0 + noise * noise));
}

/// Flips and excess energy of one finite element against what legal implementations show at most on average.
/// With d the distance of the reference to the nearest rounding boundary: a flip needs an error of at least
/// d, so its chance is at most (noise / d)^2.
ASSAY_ON_BOTH inline CellDeviation deviation(std::uint32_t bits, const DeviceInterval& x, bool carried) {
  CellDeviation to;
  const std::uint32_t rounded_ref = rounded_bits(fabs(x.ref));
  if (!finite(bits) || !(fabs(x.ref) <= kLargest) || !finite(rounded_ref)) return to;
  const double out = signbit(x.ref) ? -value_of(bits) : value_of(bits);
  const double magnitude = fabs(x.ref);
  const double rounded = value_of(rounded_ref);
  const double ulp = spacing(rounded_ref);
  const bool power = (rounded_ref & 0x7f) == 0 && rounded > 0x1p-126;
  const double beyond = magnitude - rounded;
  const double outer = 0.5 * ulp - beyond;
  const double inner = 0.5 * (power ? 0.5 * ulp : ulp) + beyond;
  const double d = outer < inner ? outer : inner;
  const double up = x.high - x.ref;
  const double down = x.ref - x.low;
  const double delta = up > down ? up : down;
  const bool may_flip = delta > 0.0 && delta * (1.0 + 0x1p-40) + magnitude * 0x1p-50 >= d;
  const bool known = x.noise > 0.0 && x.noise < 0x1p500;
  const double noise = known ? x.noise : 0.0;
  const double w = (ulp * ulp) / 12.0 + noise * noise;
  const double proven = (delta + ulp - d) * (delta + d) * 1.0625;
  const double modelled = 1.0625 * noise * noise + 2.0 * ulp * (noise > d ? noise : noise * noise / d);
  const double expected = (known && modelled < proven ? modelled : proven) / w;
  const double error = out - magnitude;
  const double own = beyond * beyond;
  const double square = error * error;
  const double excess = (square - own) / w;
  to.flipped = out != rounded;
  if (may_flip) {
    to.flip_chance = !known || noise > d ? 1.0 : noise * noise / (d * d);
    to.excess_expected = expected < kExcessCap ? expected : kExcessCap;
  }
  to.excess = excess < kExcessCap ? excess : kExcessCap;
  to.z2 = square / w;
  to.z2_of_rounding = own / w;
  to.contract_ulps = fabs(error) / (ulp > 2.0 * delta ? ulp : 2.0 * delta);
  if (carried) expect_of_carried_errors(x, rounded_ref, to);
  return to;
}

/// Adds the element in column i of its cell.
ASSAY_ON_BOTH inline CellDeviation add_element(std::uint32_t bits, const DeviceInterval& x, bool carried,
                                               int i, DeviceCell& cell) {
  const double value = value_of(bits);
  const bool ok = accepted(value, x);
  cell.rejected += !ok;
  cell.non_finite += !ok && !finite(bits);
  cell.mismatched += ordinal(rounded_bits(x.ref)) != ordinal(bits);
  cell.max_ratio = largest(cell.max_ratio, error_ratio(value, bits, x));
  const CellDeviation d = deviation(bits, x, carried);
  (i < 64 ? cell.flipped_low : cell.flipped_high) |= static_cast<unsigned long long>(d.flipped) << (i % 64);
  cell.flips_expected += d.flip_chance;
  cell.excess += d.excess_expected < kExcessCap ? d.z2 - d.z2_of_rounding : d.excess;
  cell.excess_expected += d.excess_expected;
  cell.z2 += d.z2;
  cell.z2_of_rounding += d.z2_of_rounding;
  cell.max_contract_ulps = largest(cell.max_contract_ulps, d.contract_ulps);
  return d;
}

}  // namespace cell
}  // namespace assay::gpu
