#include "harness/contract/product_intervals.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include <doctest/doctest.h>

#include "harness/contract/product_bound.h"

using namespace assay;

namespace {

bool same_bits(const Interval& a, const Interval& b) {
  const auto same = [](double x, double y) {
    return std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y) ||
           (std::isnan(x) && std::isnan(y));
  };
  return same(a.ref, b.ref) && same(a.low, b.low) && same(a.high, b.high) && same(a.noise, b.noise) &&
         same(a.mean, b.mean);
}

struct DrawnSums {
  double ref[kElementsAtOnce];
  float spread[kElementsAtOnce];
  float squares[kElementsAtOnce];
  float running[kElementsAtOnce];
  bool exact[kElementsAtOnce];
};

/// Over the whole range of fp32 and beyond it; some terms are all zero, some not finite.
DrawnSums random_sums(std::mt19937_64& engine) {
  const auto size = [&] {
    return std::ldexp(1.0 + static_cast<double>(engine() % 1000) / 1000.0,
                      static_cast<int>(engine() % 300) - 150);
  };
  const auto some = [&](double x) {
    if (engine() % 16 == 0) return std::numeric_limits<double>::infinity();
    if (engine() % 16 == 0) return std::numeric_limits<double>::quiet_NaN();
    return engine() % 4 == 0 ? 0.0 : x;
  };
  DrawnSums sums;
  for (int i = 0; i < kElementsAtOnce; ++i) {
    const double scale = size();
    sums.ref[i] = some(engine() % 2 == 0 ? -scale : scale);
    sums.spread[i] = static_cast<float>(some(scale * 0x1p-20));
    sums.squares[i] = static_cast<float>(some(scale * scale));
    sums.running[i] = static_cast<float>(some(scale * std::ldexp(1.0, static_cast<int>(engine() % 8) - 4)));
    sums.exact[i] = engine() % 4 == 0;
  }
  return sums;
}

}  // namespace

TEST_SUITE("product intervals") {
  TEST_CASE("many elements at once have the bits of one at a time") {
    std::mt19937_64 engine(3);
    int finite = 0;
    for (const std::int64_t n : {1, 4, 16, 300, 2048})
      for (const double unit_roundoff : {0x1p-24, 0x1p-23, 0x1p-53})
        for (const auto kind :
             {AccumulatorKind::Unknown, AccumulatorKind::Hopper, AccumulatorKind::Fp32Pairwise})
          for (int repeat = 0; repeat < 50; ++repeat) {
            const BoundShape shape = bound_shape(n, unit_roundoff, {kind, {}}, true);
            const DrawnSums sums = random_sums(engine);
            const int count = 1 + static_cast<int>(engine() % kElementsAtOnce);
            Interval many[kElementsAtOnce];
            product_intervals(ElementConstants(shape), {sums.ref, sums.spread, sums.squares, sums.running},
                              sums.exact, count, many);
            for (int i = 0; i < count; ++i) {
              const Interval one = product_interval(
                  shape, {sums.ref[i], sums.spread[i], sums.squares[i], sums.running[i]}, sums.exact[i]);
              CAPTURE(n);
              CAPTURE(i);
              CHECK(same_bits(many[i], one));
              finite += std::isfinite(one.low) && one.low < one.high;
            }
          }
    CHECK(finite > 1000);
  }

  TEST_CASE("the smaller bound is in force, the running one within the measured range alone") {
    // n = 16: C = 16 u / (1 - 16 u); one step of the tensor core that leaves 1 loses 2^-23 (1 + 4).
    const BoundShape shape = bound_shape(16, 0x1p-24, {AccumulatorKind::Hopper, {}}, true);
    REQUIRE(shape.running);
    const auto width = [&](double ref, double magnitude) {
      const ProductSums sums{ref, static_cast<float>(shape.c * magnitude), 1.0f,
                             static_cast<float>(5.0 * ref)};
      const Interval x = product_interval(shape, sums, false);
      return x.high - x.ref;
    };
    CHECK(width(1.0, 1.0) == doctest::Approx(5 * 0x1p-23).epsilon(1e-4));
    CHECK(width(1.0, 0.5) == doctest::Approx(8 * 0x1p-24).epsilon(1e-4));
    CHECK(width(0x1p-90, 0x1p-90) == doctest::Approx(16 * 0x1p-114).epsilon(1e-4));
  }
}
