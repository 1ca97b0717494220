#include "harness/contract/bf16.h"

#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

using namespace assay;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

/// The value of 16 bits from the definition of the format: sign, 8 bits of exponent biased by 127, 7 of
/// fraction.
double value_by_definition(std::uint16_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  const int exponent = (bits >> 7) & 0xff;
  const int fraction = bits & 0x7f;
  if (exponent == 0xff) return fraction == 0 ? sign * kInf : std::nan("");
  if (exponent == 0) return sign * std::ldexp(fraction, -126 - 7);
  return sign * std::ldexp(128 + fraction, exponent - 127 - 7);
}

/// Round to nearest, ties to even, from the definition: scale to units of the last place, round there, scale
/// back. Needs no knowledge of bits, so it shares no mistake with the code under test. `x` is finite.
std::uint16_t round_by_definition(double x) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double magnitude = std::fabs(x);
  const int exponent = magnitude < 0x1p-126 ? -126 : std::ilogb(magnitude);
  const double units = std::ldexp(magnitude, 7 - exponent);  // exact: a power of two
  double whole = std::floor(units);
  const double rest = units - whole;
  if (rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2.0) != 0.0)) whole += 1.0;
  const double rounded = std::ldexp(whole, exponent - 7);
  if (rounded >= 0x1p128) return sign | 0x7f80;
  // Encode: subnormals count units of 2^-133, normals have 128 more for each exponent above the first.
  if (rounded < 0x1p-126)
    return static_cast<std::uint16_t>(sign | static_cast<int>(std::ldexp(rounded, 133)));
  const int e = std::ilogb(rounded);
  return static_cast<std::uint16_t>(sign | ((e + 127) << 7) |
                                    (static_cast<int>(std::ldexp(rounded, 7 - e)) - 128));
}

struct ThreeDoubles {
  double ref;
  double low;
  double high;
};

[[gnu::noinline]] void narrow(ThreeDoubles& x) {
  x.ref = static_cast<double>(static_cast<float>(x.ref));
  x.low = static_cast<double>(static_cast<float>(x.low));
  x.high = static_cast<double>(static_cast<float>(x.high));
}

}  // namespace

TEST_SUITE("bf16") {
  TEST_CASE("doubles narrowed side by side are floats, whatever the compiler makes of it") {
    ThreeDoubles x{0.1, 0.2, 0.3};
    narrow(x);
    CHECK(x.ref == 0.1f);
    CHECK(x.low == 0.2f);
    CHECK(x.high == 0.3f);
  }

  TEST_CASE("all 65536 values widen to what the format says, and narrow back to themselves") {
    std::size_t wrong = 0;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const Bf16 x{static_cast<std::uint16_t>(bits)};
      const double expected = value_by_definition(x.bits);
      const float wide = to_float(x);
      if (std::isnan(expected)) {
        wrong += !std::isnan(wide) || !is_nan(x) || is_finite(x) || !is_nan(round_to_bf16(wide));
        continue;
      }
      wrong += static_cast<double>(wide) != expected || std::signbit(wide) != std::signbit(expected);
      wrong += round_to_bf16(wide) != x || round_to_bf16(expected) != x;
      wrong += is_nan(x) || is_finite(x) != std::isfinite(expected);
    }
    CHECK(wrong == 0);
  }

  TEST_CASE("ties go to the even neighbour, everything else to the nearer") {
    CHECK(round_to_bf16(1.0f).bits == 0x3f80);
    CHECK(round_to_bf16(0x1.01p0f).bits == 0x3f80);  // half way between 1 and 1 + 2^-7: even is 1
    CHECK(round_to_bf16(0x1.03p0f).bits ==
          0x3f82);  // half way between 1 + 2^-7 and 1 + 2^-6: even is the upper
    CHECK(round_to_bf16(0x1.010002p0f).bits == 0x3f81);
    CHECK(round_to_bf16(0x1.02fffep0f).bits == 0x3f81);
    CHECK(round_to_bf16(-0x1.01p0f).bits == 0xbf80);
    CHECK(round_to_bf16(0x1.ffp0f).bits == 0x4000);  // carries into the exponent
  }

  TEST_CASE("overflow gives infinity from half an ulp above the largest value") {
    CHECK(round_to_bf16(kBf16Max).bits == 0x7f7f);
    CHECK(round_to_bf16(0x1.fefffep127f).bits == 0x7f7f);
    CHECK(round_to_bf16(0x1.ffp127f).bits == 0x7f80);
    CHECK(round_to_bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
    CHECK(round_to_bf16(1e300).bits == 0x7f80);
    CHECK(round_to_bf16(-1e300).bits == 0xff80);
    CHECK(round_to_bf16(0x1.fefffffffffffp127).bits == 0x7f7f);
    CHECK(round_to_bf16(-kInf).bits == 0xff80);
  }

  TEST_CASE("NaN stays NaN, also where its payload lies in the bits that are dropped") {
    for (const std::uint32_t bits : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
      const Bf16 x = round_to_bf16(std::bit_cast<float>(bits));
      CHECK(is_nan(x));
      CHECK((x.bits >> 15) == (bits >> 31));
    }
    CHECK(is_nan(round_to_bf16(std::nan(""))));
  }

  TEST_CASE("subnormals and zeros keep their value and sign") {
    CHECK(round_to_bf16(0.0f).bits == 0);
    CHECK(round_to_bf16(-0.0f).bits == 0x8000);
    CHECK(round_to_bf16(-0.0).bits == 0x8000);
    CHECK(round_to_bf16(0x1p-133f).bits == 1);
    CHECK(round_to_bf16(0x1p-134f).bits == 0);    // half way to the smallest: even is zero
    CHECK(round_to_bf16(0x1.8p-133f).bits == 2);  // half way between 1 and 2 units
    CHECK(round_to_bf16(0x1.0004p-134f).bits == 1);
    CHECK(round_to_bf16(-1e-300).bits == 0x8000);
    CHECK(round_to_bf16(0x1p-134).bits == 0);
    CHECK(round_to_bf16(0x1.0000000000001p-134).bits == 1);
    CHECK(round_to_bf16(0x1.fcp-127).bits == 0x007f);  // the largest subnormal
  }

  TEST_CASE("a sweep of the 2^32 floats agrees with the definition") {
    std::size_t wrong = 0;
    for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32);
         bits += 4093) {  // a prime: all low halves occur
      const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
      if (!std::isfinite(x)) continue;
      wrong += round_to_bf16(x).bits != round_by_definition(x);
      wrong += round_to_bf16(static_cast<double>(x)).bits != round_by_definition(x);
    }
    CHECK(wrong == 0);
  }

  TEST_CASE("around every tie of every value, floats agree with the definition") {
    std::size_t wrong = 0;
    for (std::uint32_t high = 0; high < 0x7f80; ++high)
      for (const std::uint32_t low : {0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
        const auto x = std::bit_cast<float>((high << 16) | low);
        wrong += round_to_bf16(x).bits != round_by_definition(x);
        wrong += round_to_bf16(-x).bits != round_by_definition(-x);
      }
    CHECK(wrong == 0);
  }

  TEST_CASE("a double is rounded once: just beside a tie, where a float would land on it") {
    std::size_t wrong = 0;
    std::size_t would_go_wrong = 0;
    for (std::uint32_t high = 0; high < 0x7f7f; ++high) {
      const double tie = static_cast<double>(std::bit_cast<float>((high << 16) | 0x8000u));
      for (const double x :
           {std::nextafter(tie, 0.0), std::nextafter(tie, kInf), -std::nextafter(tie, kInf)}) {
        wrong += round_to_bf16(x).bits != round_by_definition(x);
        would_go_wrong += round_to_bf16(static_cast<float>(x)).bits != round_by_definition(x);
      }
    }
    CHECK(wrong == 0);
    CHECK(would_go_wrong > 10'000);  // the cases are hard
  }

  TEST_CASE("ordinals are monotone and neighbours differ by one") {
    for (std::uint16_t bits = 0; bits < 0x7f7f; ++bits) {
      const Bf16 x{bits};
      const Bf16 next{static_cast<std::uint16_t>(bits + 1)};
      REQUIRE(ordinal(next) - ordinal(x) == 1);
      REQUIRE(ordinal({static_cast<std::uint16_t>(bits | 0x8000)}) == -ordinal(x));
    }
    CHECK(ordinal({0x8000}) == ordinal({0x0000}));
  }

  TEST_CASE("bf16_ulp is the distance to the next value") {
    std::size_t wrong = 0;
    for (std::uint16_t bits = 0; bits < 0x7f7f; ++bits) {
      const double x = to_float(Bf16{bits});
      const double next = to_float(Bf16{static_cast<std::uint16_t>(bits + 1)});
      wrong += bf16_ulp(x) != next - x;
      wrong += bf16_ulp(-x) != next - x;
    }
    CHECK(wrong == 0);
    CHECK(bf16_ulp(0.0) == 0x1p-133);
    CHECK(bf16_ulp(std::nextafter(1.0, 0.0)) == 0x1p-8);
  }
}
