#include "harness/judge/deviation.h"

#include <algorithm>
#include <cmath>

#include "harness/contract/noise.h"

namespace assay {
namespace {

constexpr std::uint64_t kMagnitude = ~(std::uint64_t{1} << 63);
constexpr std::uint64_t kExponent = std::uint64_t{0x7ff} << 52;
// Outside these, a neighbour is not one ulp of the exponent away.
constexpr double kSmallest = 0x1p-117;
double largest(DType dtype) { return dtype == DType::Float32 ? 0x1.fffffep127 : 0x1.fep127; }

/// A reference value and its surroundings, all as magnitudes: `out` is negated with the reference.
struct Surroundings {
  // inward: spacing towards zero, half an ulp below a power of two
  double magnitude;
  double rounded;
  double ulp;
  double inward;
};

/// The upper bound of E[(out - ref)^2 - (rounded - ref)^2]. With the nearest boundary at d and spacing ulp,
/// crossing it takes |e| >= d, and then |out - ref| <= |e| + ulp / 2 while |rounded - ref| = ulp / 2 - d, so
/// that the excess is at most
/// (|e| + ulp - d)(|e| + d) = e^2 + ulp |e| + d (ulp - d). Over |e| >= d: E e^2 <= noise^2, E |e| <= noise
/// min(1, noise / d) and d P <= noise min(1, noise / d), together noise^2 + 2 ulp noise min(1, noise / d).
/// The factor of noise^2 covers coarser ulps in the next binades, where |e| is at least as large as the
/// reference. With |e| <= delta the first form is a bound as well.
inline double excess_bound(double noise, double delta, double d, double ulp, double known) {
  const double proven = (delta + ulp - d) * (delta + d) * 1.0625;
  const double rarely = noise * noise / d;
  const double within = noise > d ? noise : rarely;
  const double modelled = 1.0625 * noise * noise + 2.0 * ulp * within;
  const double least = modelled < proven ? modelled : proven;
  return known > 0.0 ? least : proven;
}

/// Flags are 1 or 0, and both ways of a choice are computed, so that a loop of this is one of vectors.
inline void fill(double out, double up, double down, double rms, const Surroundings& at, Deviation& to) {
  const double half = 0.5 * at.ulp;
  const double beyond = at.magnitude - at.rounded;
  const double outer = half - beyond;
  const double inner = 0.5 * at.inward + beyond;
  const double d = outer < inner ? outer : inner;
  const double delta = up > down ? up : down;
  // The ends of the interval were rounded to double; the slack is far above that and far below any modelled
  // noise.
  double may_flip = delta > 0.0 ? 1.0 : 0.0;
  may_flip = delta * (1.0 + 0x1p-40) + at.magnitude * 0x1p-50 >= d ? may_flip : 0.0;
  double known = rms > 0.0 ? 1.0 : 0.0;
  known = rms < 0x1p500 ? known : 0.0;
  const double noise = known > 0.0 ? rms : 0.0;
  const double w = (at.ulp * at.ulp) / 12.0 + noise * noise;
  const double rare = noise * noise / (d * d);
  double chance = noise > d ? 1.0 : rare;
  chance = known > 0.0 ? chance : 1.0;
  const double expected = excess_bound(noise, delta, d, at.ulp, known) / w;
  const double capped = expected < kExcessCap ? expected : kExcessCap;
  const double error = out - at.magnitude;
  const double own = beyond * beyond;
  const double square = error * error;
  const double excess = (square - own) / w;
  const double size = error < 0.0 ? -error : error;
  to.flipped = out != at.rounded ? 1.0 : 0.0;
  to.flip_chance = may_flip > 0.0 ? chance : 0.0;
  to.excess = excess < kExcessCap ? excess : kExcessCap;
  to.excess_expected = may_flip > 0.0 ? capped : 0.0;
  to.z2 = square / w;
  to.z2_of_rounding = own / w;
  to.contract_ulps = size / (at.ulp > 2.0 * delta ? at.ulp : 2.0 * delta);
}

Surroundings surroundings(DType dtype, const Interval& x) {
  Surroundings at;
  at.magnitude = std::fabs(x.ref);
  at.rounded = round_to(dtype, at.magnitude);
  at.ulp = ulp_at(dtype, at.rounded);
  const bool power = at.rounded > 0x1p-126 && std::ldexp(1.0, std::ilogb(at.rounded)) == at.rounded;
  at.inward = power ? 0.5 * at.ulp : at.ulp;
  return at;
}

bool judged_alone(Stored out, const Interval& x) {
  return !out.finite() || !(std::fabs(x.ref) <= largest(out.dtype)) || !stored_as(out.dtype, x.ref).finite();
}

}  // namespace

Deviation deviation(Stored out, const Interval& x) {
  Deviation result;
  if (judged_alone(out, x)) return result;
  fill(std::signbit(x.ref) ? -out.value : out.value, x.high - x.ref, x.ref - x.low, x.noise,
       surroundings(out.dtype, x), result);
  return result;
}

double signed_shift(Stored out, const Interval& x) {
  if (judged_alone(out, x)) return 0.0;
  const auto at = surroundings(out.dtype, x);
  const double noise = x.noise > 0.0 && x.noise < 0x1p500 ? x.noise : 0.0;
  const double value = std::signbit(x.ref) ? -out.value : out.value;
  return std::clamp((value - at.rounded) / std::sqrt(at.ulp * at.ulp + 12.0 * noise * noise), -1.0, 1.0);
}

// No fast-math: what is not finite compares false and is done again by the careful form.
__attribute__((target_clones("avx512f", "avx2", "default"))) void deviations(StoredSpan out,
                                                                             const Interval* reference,
                                                                             int count, Deviations& to) {
  double value[kCellColumns];
  double clear[kCellColumns];
  // What the loop reads of the reference, as arrays that vectorise.
  double ref[kCellColumns];
  double up[kCellColumns];
  double down[kCellColumns];
  double noise[kCellColumns];
  const int dropped = 52 - fraction_bits(out.dtype());  // fraction bits of a double that it does not have
  const double ulp_of_one = out.dtype() == DType::Float32 ? 0x1p-23 : 0x1p-7;
  const double largest_value = largest(out.dtype());
  if (const Bf16* narrow = out.bf16(); narrow != nullptr)
    for (int i = 0; i < count; ++i)
      value[i] = std::bit_cast<float>(static_cast<std::uint32_t>(narrow[i].bits) << 16);
  else
    std::copy_n(out.float32(), count, value);
  for (int i = 0; i < count; ++i) {
    ref[i] = reference[i].ref;
    up[i] = reference[i].high - reference[i].ref;
    down[i] = reference[i].ref - reference[i].low;
    noise[i] = reference[i].noise;
  }
  for (int i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<std::uint64_t>(ref[i]);
    const std::uint64_t magnitude = bits & kMagnitude;
    const std::uint64_t kept =
        (magnitude + ((std::uint64_t{1} << (dropped - 1)) - 1) + ((magnitude >> dropped) & 1)) &
        ~((std::uint64_t{1} << dropped) - 1);
    Surroundings at;
    at.magnitude = std::bit_cast<double>(magnitude);
    at.rounded = std::bit_cast<double>(kept);
    const double power = std::bit_cast<double>(kept & kExponent);
    at.ulp = power * ulp_of_one;
    at.inward = at.rounded == power ? 0.5 * at.ulp : at.ulp;
    const double signed_out =
        std::bit_cast<double>(std::bit_cast<std::uint64_t>(value[i]) ^ (bits & ~kMagnitude));
    Deviation one;
    fill(signed_out, up[i], down[i], noise[i], at, one);
    to.flipped[i] = one.flipped;
    to.flip_chance[i] = one.flip_chance;
    to.excess[i] = one.excess;
    to.excess_expected[i] = one.excess_expected;
    to.z2[i] = one.z2;
    to.z2_of_rounding[i] = one.z2_of_rounding;
    to.contract_ulps[i] = one.contract_ulps;
    double ok = at.magnitude >= kSmallest ? 1.0 : 0.0;
    ok = at.magnitude <= largest_value ? ok : 0.0;
    ok = std::bit_cast<double>(std::bit_cast<std::uint64_t>(value[i]) & kMagnitude) <= largest_value ? ok
                                                                                                     : 0.0;
    clear[i] = ok;
  }
  for (int i = 0; i < count; ++i) {
    if (clear[i] > 0.0) continue;
    const Deviation one = deviation(out[static_cast<std::size_t>(i)], reference[i]);
    to.flipped[i] = one.flipped;
    to.flip_chance[i] = one.flip_chance;
    to.excess[i] = one.excess;
    to.excess_expected[i] = one.excess_expected;
    to.z2[i] = one.z2;
    to.z2_of_rounding[i] = one.z2_of_rounding;
    to.contract_ulps[i] = one.contract_ulps;
  }
}

void expect_of_carried_errors(DType dtype, const Interval* reference, int count, Deviations& to) {
  for (int i = 0; i < count; ++i) {
    const Interval& x = reference[i];
    if (!(to.flip_chance[i] > 0.0) || !(x.noise > 0.0f && std::isfinite(x.noise))) continue;
    const RoundingCell cell = rounding_cell(x.ref, round_to(dtype, x.ref), dtype);
    const double delta = radius(x);
    const double noise = x.noise;
    // Within the interval the nearest boundary is at most delta away, and places up to there are as likely as
    // one another.
    const double excess = 1.0625 * noise * noise * cell.gap / std::min(cell.width(), 2.0 * delta);
    to.flip_chance[i] = crossing_chance(cell, x);
    to.excess_expected[i] = std::min(kExcessCap, excess / (cell.gap * cell.gap / 12.0 + noise * noise));
  }
}

}  // namespace assay
