// One element's bound, as it is explained: its parts worked by hand, its whole that of the kernels.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "reference_cpu/product/element_bound.h"
#include "reference_cpu/product/test_products.h"

using namespace assay;

TEST_SUITE("element bound") {
  TEST_CASE("one element's two bounds and their parts, by hand") {
    // The same 32 terms: sum of magnitudes 31, up to 2^-60.
    const std::vector<Interval> a(32, {1.0, 1.0, 1.0});
    std::vector<Bf16> b(32, round_to_bf16(1.0));
    b[31] = round_to_bf16(0x1p-60);
    const auto near = [](double expected) { return doctest::Approx(expected).epsilon(1e-4); };
    const ElementBound one = element_bound(kHopper, 0x1p-24, a, b);
    CHECK(one.magnitude == near(31));
    CHECK(one.a_priori == near(32 * 0x1p-24 * 31));
    CHECK(one.rounding == near(0x1p-23 * (16 + 31)));
    CHECK(one.alignment == near(0x1p-21 * (1 + 16)));
    CHECK(one.joining == 0.0);
    CHECK(one.running == near(0x1p-23 * (16 + 31) + 0x1p-21 * (1 + 16)));
    CHECK(one.running >= one.rounding + one.alignment);
    const ElementBound halves = element_bound({AccumulatorKind::Hopper, {16, 16}}, 0x1p-24, a, b);
    CHECK(halves.rounding == near(0x1p-23 * (16 + 15)));
    CHECK(halves.alignment == near(0x1p-21 * 2));
    CHECK(halves.joining == near(0x1p-24 * (16 + 31)));
    const ElementBound undeclared = element_bound({}, 0x1p-24, a, b);
    CHECK_FALSE(undeclared.ordered);
    CHECK(width(undeclared.interval) ==
          doctest::Approx(undeclared.a_priori).epsilon(1e-9));  // up to the rounding of 31 + a_priori
    // A first operand known to 1 +- 2^-10: no order helps, and its width times |b| is carried.
    auto wide = a;
    wide[0] = {1.0, 1.0 - 0x1p-10, 1.0 + 0x1p-10};
    const ElementBound carried = element_bound(kHopper, 0x1p-24, wide, b);
    CHECK_FALSE(carried.ordered);
    CHECK(carried.a_priori == near(32 * 0x1p-24 * (31 + 0x1p-10) + 0x1p-10));
    // So is the width of a second one, times |a|, and the product of both widths.
    std::vector<Interval> exact(b.size());
    std::vector<Interval> second(b.size());
    for (std::size_t k = 0; k < b.size(); ++k) {
      const double x = to_float(b[k]);
      exact[k] = second[k] = {x, x, x};
    }
    second[0] = {1.0, 1.0 - 0x1p-8, 1.0 + 0x1p-9};
    const ElementBound both = element_bound(kHopper, 0x1p-24, wide, second);
    CHECK_FALSE(both.ordered);
    CHECK(both.carried == 0x1p-10 * (1.0 + 0x1p-8) + 0x1p-8);
    CHECK_FALSE(element_bound(kHopper, 0x1p-24, a, second).ordered);
    CHECK(element_bound(kHopper, 0x1p-24, a, exact).running == one.running);
    // Exact in any order: integers.
    CHECK(width(element_bound(kHopper, 0x1p-24, a, std::vector<Bf16>(32, round_to_bf16(3.0))).interval) ==
          0.0);
    CHECK(
        a_priori_words(2048, 0x1p-24) ==
        "C(n) sum |a||b| for additions in any order, C(n) = n u / (1 - n u) = 0.000122, n = 2048, u = 2^-24");
    CHECK(running_words(kHopper, 100, 0x1p-24, true) ==
          "hopper, in its own order: each of 7 steps of 16 products loses at most 2^-23 of the sum it leaves "
          "and 2^-21 of its largest addend");
    CHECK(running_words({AccumulatorKind::Hopper, {64, 36}}, 100, 0x1p-24, true)
              .ends_with("; 2 partial sums are added in fp32"));
    CHECK(running_words({AccumulatorKind::Ampere, {}}, 100, 0x1p-24, true)
              .starts_with("ampere, in its own order: each of 13 steps of 8 products"));
    CHECK(running_words({AccumulatorKind::HopperAnySplit, {}}, 100, 0x1p-24, true) ==
          "none: no order of summation is declared");
    CHECK(running_words(kHopper, 100, 0x1p-24, false).starts_with("none where the operand is an interval"));
  }

  TEST_CASE("one element's interval is the kernels', in every order") {
    for (const auto& accumulator : declared_orders())
      for (const Data data : {Data::Gaussian, Data::HeavyTail}) {
        const auto e = random_example(data, 3, 300, 19, 6);
        const auto out = multiply<Interval>(e, accumulator);
        INFO(to_string(accumulator));
        for (std::int64_t r = 0; r < e.rows; ++r)
          for (std::int64_t c = 0; c < e.n; ++c) {
            std::vector<Interval> a;
            for (std::int64_t k = 0; k < e.k; ++k) {
              const double x = to_float(e.left[static_cast<std::size_t>(r * e.k + k)]);
              a.push_back({x, x, x});
            }
            const auto one = element_bound(
                accumulator, 0x1p-24, a,
                std::span(e.right).subspan(static_cast<std::size_t>(c * e.k), static_cast<std::size_t>(e.k)));
            REQUIRE(one.ordered);
            CHECK(width(one.interval) ==
                  doctest::Approx(width(out[static_cast<std::size_t>(r * e.n + c)])).epsilon(1e-4));
            CHECK(width(one.interval) == doctest::Approx(std::min(one.a_priori, one.running)).epsilon(1e-9));
          }
      }
  }
}
