// bfloat16 as raw bits: sign 15, exponent 14..7, fraction 6..0. Widening is exact; narrowing rounds once, to
// nearest even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace assay {

/// A bfloat16 value as its 16 bits. It has no arithmetic on purpose: widen, compute, round once.
struct Bf16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(Bf16, Bf16) = default;
};
static_assert(sizeof(Bf16) == 2);

inline constexpr double kBf16UnitRoundoff = 0x1p-8;
inline constexpr double kFp32UnitRoundoff = 0x1p-24;
inline constexpr float kBf16Max = 0x1.fep127f;

constexpr float to_float(Bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

/// Rounds to nearest, ties to even; overflow gives Inf, NaN stays NaN (quiet).
constexpr Bf16 round_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x0040u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Rounds a double once. Going through float would round twice, so the float step rounds to odd.
inline Bf16 round_to_bf16(double x) {
  auto narrowed = static_cast<float>(x);
  if (static_cast<double>(narrowed) != x && std::isfinite(x)) {
    if (std::isinf(narrowed)) return round_to_bf16(narrowed);
    auto bits = std::bit_cast<std::uint32_t>(narrowed);
    // The truncated neighbour with its last bit set keeps every tie decision of the exact value.
    if (std::fabs(static_cast<double>(narrowed)) > std::fabs(x)) --bits;
    narrowed = std::bit_cast<float>(bits | 1u);
  }
  return round_to_bf16(narrowed);
}

constexpr bool is_nan(Bf16 x) { return (x.bits & 0x7fffu) > 0x7f80u; }
constexpr bool is_finite(Bf16 x) { return (x.bits & 0x7f80u) != 0x7f80u; }

/// Monotone integer of a value: neighbours differ by one; +0 and -0 are both 0.
constexpr std::int32_t ordinal(Bf16 x) {
  const std::int32_t magnitude = x.bits & 0x7fff;
  return (x.bits & 0x8000u) != 0 ? -magnitude : magnitude;
}

/// Distance between bf16 neighbours at |x|: 2^(floor(log2|x|) - 7), at least 2^-133.
inline double bf16_ulp(double x) {
  const double magnitude = std::fabs(x);
  if (!(magnitude > 0x1p-126)) return 0x1p-133;
  return std::ldexp(1.0, std::ilogb(magnitude) - 7);
}

}  // namespace assay
