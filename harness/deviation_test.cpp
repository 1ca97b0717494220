#include "harness/deviation.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace assay;

namespace {

Interval around(double ref, double delta, double noise) { return {ref, ref - delta, ref + delta, noise}; }

bool close(double a, double b) { return std::fabs(a - b) <= 1e-9 * std::max(std::fabs(a), std::fabs(b)); }

}  // namespace

TEST_SUITE("deviation") {
  TEST_CASE("one element, by hand") {
    // ulp(1) = 2^-7; 1.001 rounds to 1; the boundary above is 1 + 2^-8, at d = 0.00290625; the one below at 0.001953125 + 0.001.
    const Interval x = around(1.001, 0.01, 1e-4);
    const Deviation right = deviation(round_to_bf16(1.0), x), wrong = deviation(round_to_bf16(1.0078125), x);
    CHECK(right.flipped == 0.0);
    CHECK(right.excess == 0.0);
    CHECK(close(right.flip_chance, 1e-8 / (0.00290625 * 0.00290625)));
    const double w = 0x1p-14 / 12.0 + 1e-8;
    CHECK(close(right.z2_of_rounding, 1e-6 / w));
    CHECK(close(right.excess_expected, (1.0625e-8 + 2 * 0x1p-7 * (1e-8 / 0.00290625)) / w));
    CHECK(wrong.flipped == 1.0);
    CHECK(close(wrong.excess, (0.0068125 * 0.0068125 - 1e-6) / w));
    CHECK(close(wrong.z2, 0.0068125 * 0.0068125 / w));
    CHECK(close(wrong.contract_ulps, 0.0068125 / 0.02));
    CHECK(close(signed_shift(round_to_bf16(1.0078125), x), 0x1p-7 / std::sqrt(12.0 * w)));
    CHECK(signed_shift(round_to_bf16(-1.0078125), around(-1.001, 0.01, 1e-4)) > 0.0);
    CHECK(deviation(round_to_bf16(3.0), x).excess == kExcessCap);
  }

  TEST_CASE("an error that cannot reach the boundary has no chance to flip; one that is not modelled has every") {
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.002, 1e-4)).flip_chance == 0.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.002, 1e-4)).excess_expected == 0.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.0, 0.0)).flip_chance == 0.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.01, 0.0)).flip_chance == 1.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.001, 0.01, std::numeric_limits<double>::quiet_NaN())).flip_chance == 1.0);
    // A tie that is exact is decided by the rule, not by chance; with noise it may go either way.
    CHECK(deviation(round_to_bf16(1.0), around(1.00390625, 0.0, 0.0)).flip_chance == 0.0);
    CHECK(deviation(round_to_bf16(1.0), around(1.00390625, 1e-6, 1e-8)).flip_chance == 1.0);
  }

  TEST_CASE("what is not finite is nothing here") {
    const double inf = std::numeric_limits<double>::infinity();
    CHECK(deviation({0x7fc0}, around(1.0, 0.1, 0.01)).flipped == 0.0);
    CHECK(deviation({0x3f80}, around(inf, 0.0, 0.0)).flip_chance == 0.0);
    CHECK(deviation({0x3f80}, around(std::nan(""), 0.0, 0.0)).z2 == 0.0);
  }

  TEST_CASE("the array form is the element form") {
    std::mt19937_64 engine(5);
    std::normal_distribution<double> normal;
    std::vector<Bf16> out(kDeviationChunk);
    std::vector<Interval> reference(kDeviationChunk);
    for (int i = 0; i < kDeviationChunk; ++i) {
      const double scale = std::ldexp(1.0, static_cast<int>(engine() % 260) - 135), ref = normal(engine) * scale, noise = std::fabs(ref) * std::ldexp(1.0, -static_cast<int>(engine() % 20));
      reference[static_cast<std::size_t>(i)] = around(i % 11 == 0 ? 0.0 : i % 7 == 0 ? scale : ref, i % 5 == 0 ? 0.0 : 3 * noise, noise);
      out[static_cast<std::size_t>(i)] = round_to_bf16(ref + noise * normal(engine));
    }
    out[3].bits = 0x7fc0;
    reference[9].ref = std::nan("");
    Deviations all;
    deviations(out.data(), reference.data(), kDeviationChunk, all);
    for (int i = 0; i < kDeviationChunk; ++i) {
      const Deviation one = deviation(out[static_cast<std::size_t>(i)], reference[static_cast<std::size_t>(i)]);
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
    // Of all distributions with E e^2 = noise^2, the extreme ones put all their weight at one distance t >= noise.
    std::mt19937_64 engine(6);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    int wrong = 0;
    for (int i = 0; i < 200000; ++i) {
      const double ref = 1.0 + 3.0 * uniform(engine), noise = std::exp2(-12.0 * uniform(engine)) * 0.05, t = noise * std::exp2(6.0 * uniform(engine));
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
}
