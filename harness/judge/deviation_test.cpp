#include "harness/judge/deviation.h"

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include <doctest/doctest.h>

#include "harness/contract/noise.h"
#include "harness/judge/carried_errors.h"

using namespace assay;

namespace {

Interval around(double ref, double delta, double noise) { return {ref, ref - delta, ref + delta, noise}; }

using DrawError = std::function<double(std::mt19937_64&)>;

/// Errors of unit rms: their mean size, and how they are drawn.
struct ErrorShape {
  const char* name;
  double mean;
  DrawError draw;
};

std::vector<ErrorShape> shapes() {
  const auto sign = [](std::mt19937_64& e) { return (e() & 1) != 0 ? 1.0 : -1.0; };
  return {{"normal", kMeanOfNormal, [](std::mt19937_64& e) { return std::normal_distribution<double>()(e); }},
          {"of one size", 1.0, sign},
          {"always low", 1.0, [](std::mt19937_64&) { return -1.0; }},
          {"one in fifty", std::sqrt(0.02),
           [sign](std::mt19937_64& e) { return e() % 50 == 0 ? sign(e) * std::sqrt(50.0) : 0.0; }},
          {"one in fifty, of any size", 0.5 * std::sqrt(3.0 * 0.02), [sign](std::mt19937_64& e) {
             return e() % 50 == 0 ? sign(e) * std::sqrt(150.0) * std::uniform_real_distribution<double>()(e)
                                  : 0.0;
           }}};
}

bool close(double a, double b) { return std::fabs(a - b) <= 1e-9 * std::max(std::fabs(a), std::fabs(b)); }

}  // namespace

TEST_SUITE("deviation") {
  TEST_CASE("one element, by hand") {
    // ulp(1) = 2^-7; 1.001 rounds to 1; the boundary above is 1 + 2^-8, at d = 0.00290625; the one below at
    // 0.001953125 + 0.001.
    const Interval x = around(1.001, 0.01, 0x1p-13);
    const Deviation right = deviation(round_to_bf16(1.0), x);
    const Deviation wrong = deviation(round_to_bf16(1.0078125), x);
    CHECK(right.flipped == 0.0);
    CHECK(right.excess == 0.0);
    CHECK(close(right.flip_chance, 0x1p-26 / (0.00290625 * 0.00290625)));
    const double w = 0x1p-14 / 12.0 + 0x1p-26;
    CHECK(close(right.z2_of_rounding, 1e-6 / w));
    CHECK(close(right.excess_expected, (1.0625 * 0x1p-26 + 2 * 0x1p-7 * (0x1p-26 / 0.00290625)) / w));
    CHECK(wrong.flipped == 1.0);
    CHECK(close(wrong.excess, (0.0068125 * 0.0068125 - 1e-6) / w));
    CHECK(close(wrong.z2, 0.0068125 * 0.0068125 / w));
    CHECK(close(wrong.contract_ulps, 0.0068125 / 0.02));
    CHECK(close(signed_shift(round_to_bf16(1.0078125), x), 0x1p-7 / std::sqrt(12.0 * w)));
    CHECK(signed_shift(round_to_bf16(-1.0078125), around(-1.001, 0.01, 0x1p-13)) > 0.0);
    CHECK(deviation(round_to_bf16(3.0), x).excess == kExcessCap);
  }

  TEST_CASE(
      "an error that cannot reach the boundary has no chance to flip; one that is not modelled has every") {
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.002, 1e-4)).flip_chance == 0.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.002, 1e-4)).excess_expected == 0.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.0, 0.0)).flip_chance == 0.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.01, 0.0)).flip_chance == 1.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.01, std::numeric_limits<double>::quiet_NaN()))
              .flip_chance == 1.0);
    // A tie that is exact is decided by the rule, not by chance; with noise it may go either way.
    CHECK(deviation(round_to_bf16(1.0), around(1.00390625, 0.0, 0.0)).flip_chance == 0.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.00390625, 1e-6, 1e-8)).flip_chance == 1.0);
  }

  TEST_CASE("what is not finite is nothing here") {
    const double inf = std::numeric_limits<double>::infinity();
    CHECK(deviation(Bf16{0x7fc0}, around(1.0, 0.1, 0.01)).flipped == 0.0);
    CHECK(deviation(Bf16{0x3f80}, around(inf, 0.0, 0.0)).flip_chance == 0.0);
    CHECK(deviation(Bf16{0x3f80}, around(std::nan(""), 0.0, 0.0)).z2 == 0.0);
  }

  TEST_CASE("the array form is the element form") {
    std::mt19937_64 engine(5);
    std::normal_distribution<double> normal;
    std::vector<Bf16> out(kCellColumns);
    std::vector<Interval> reference(kCellColumns);
    for (int i = 0; i < kCellColumns; ++i) {
      const double scale = std::ldexp(1.0, static_cast<int>(engine() % 260) - 135);
      const double ref = normal(engine) * scale;
      const double noise = std::fabs(ref) * std::ldexp(1.0, -static_cast<int>(engine() % 20));
      reference[static_cast<std::size_t>(i)] = around(i % 11 == 0  ? 0.0
                                                      : i % 7 == 0 ? scale
                                                                   : ref,
                                                      i % 5 == 0 ? 0.0 : 3 * noise, noise);
      out[static_cast<std::size_t>(i)] = round_to_bf16(ref + noise * normal(engine));
    }
    out[3].bits = 0x7fc0;
    reference[9].ref = std::nan("");
    Deviations all;
    deviations(out, reference.data(), kCellColumns, all);
    for (int i = 0; i < kCellColumns; ++i) {
      const Deviation one =
          deviation(out[static_cast<std::size_t>(i)], reference[static_cast<std::size_t>(i)]);
      CAPTURE(i);
      CHECK(all.flipped[i] == one.flipped);
      CHECK(all.flip_chance[i] == one.flip_chance);
      CHECK(all.excess[i] == one.excess);
      CHECK(all.excess_expected[i] == one.excess_expected);
      CHECK(all.z2[i] == one.z2);
      CHECK(all.contract_ulps[i] == one.contract_ulps);
    }
  }

  TEST_CASE("the expectations hold for the worst distribution of errors") {
    // Of all distributions with E e^2 = noise^2, the extreme ones put all their weight at one distance t >=
    // noise.
    std::mt19937_64 engine(6);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    int wrong = 0;
    for (int i = 0; i < 200000; ++i) {
      const double ref = 1.0 + 3.0 * uniform(engine);
      const double noise = std::exp2(-12.0 * uniform(engine)) * 0.05;
      const double t = noise * std::exp2(6.0 * uniform(engine));
      const Interval x = around(ref, 64.0 * noise, noise);
      const double weight = noise * noise / (t * t);
      for (const double e : {t, -t}) {
        const Deviation d = deviation(round_to_bf16(ref + e), x);
        wrong += !(weight * d.flipped <= d.flip_chance * (1.0 + 1e-12));
        wrong += !(weight * d.excess <= d.excess_expected * (1.0 + 1e-12));
      }
    }
    CHECK(wrong == 0);
  }

  TEST_CASE(
      "errors that have nothing to do with the reference's place flip, stray and are carried on as expected, "
      "whatever their shape") {
    std::mt19937_64 engine(12);
    std::uniform_real_distribution<double> place(1.0, 2.0);
    for (const ErrorShape& shape : shapes())
      for (const double noise : {0.0003, 0.002, 0.008, 0.04, 1.0}) {  // an ulp is 0.0078
        constexpr int kDraws = 100000;
        CarriedErrors errors;
        for (int i = 0; i < kDraws; ++i) {
          const double ref = place(engine);
          const double e = noise * shape.draw(engine);
          const double wide = 64.0 * noise + 0.01;
          const Interval x{ref, ref - wide, ref + wide, noise, noise * shape.mean};
          const Bf16 out = round_to_bf16(ref + e);
          const Interval rounded =
              noise_after_bf16(x, {to_float(round_to_bf16(x.ref)), to_float(round_to_bf16(x.low)),
                                   to_float(round_to_bf16(x.high))});
          errors.add(std::span(&out, 1), x, rounded);
        }
        CAPTURE(shape.name);
        CAPTURE(noise);
        errors.check_expected();
        // And they are not far above: errors smaller than an ulp move one as often as their mean size says.
        if (noise < 0.0005) CHECK(errors.flips * errors.lucky() >= 0.99 * errors.flips_expected);
        CHECK(errors.square * errors.lucky() >= errors.squares / 1.6);
      }
  }

  TEST_CASE(
      "a value on a boundary goes the other way wherever it differs; a narrow interval raises the chance of "
      "those it leaves open") {
    const double tie = 1.0 + 0x1p-8;
    const auto chance = [](const Interval& x) {
      return crossing_chance(rounding_cell(x.ref, to_float(round_to_bf16(x.ref))), x);
    };
    CHECK(chance({tie, tie - 0.1, tie + 0.1, 1e-4, 1e-4}) == 1.0);
    CHECK(std::fabs(chance({tie, tie - 0.1, tie + 0.1, 1e-3, 1e-4}) - 0.02) < 1e-6);
    CHECK(std::fabs(chance({1.001, 0.9, 1.1, 1e-3, 1e-4}) - 1e-4 / 0x1.8p-8) <
          1e-6);  // half an ulp above 1, a quarter below
    CHECK(std::fabs(chance({1.003, 1.003 - 0.001, 1.003 + 0.001, 1e-3, 1e-4}) - 1e-4 / 0.002) < 1e-6);
    // An interval of a tenth of a cell: within the noise of the boundary is as good as on it, beyond is not.
    const auto beside = [&](double d) {
      return chance({tie + d, tie + d - 3e-4, tie + d + 3e-4, 1e-4, 1e-4});
    };
    CHECK(beside(5e-5) == 1.0);
    CHECK(std::fabs(beside(2e-4) - 1.0 / 6.0) < 1e-6);
  }
}
