// Fields stored as float32: the fast loops against the one-by-one forms, neighbours of 2^-23, bits of 32.
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include "harness/contract/noise.h"
#include "harness/judge/carried_errors.h"
#include "harness/judge/compare.h"
#include "harness/judge/deviation.h"
#include "harness/judge/vacuity.h"

using namespace assay;

namespace {

constexpr Sizes kSizes{{4, 2, 3, 1, true}, 2};  // H = 4, I = 2, E = 3, K = 1, T = 2

CompareContext context() { return {Field::d_down_proj, kSizes, nullptr, 0, DType::Float32}; }

struct FloatField {
  std::vector<float> out;
  std::vector<Interval> reference;
  StoredSpan span() const { return {out, DType::Float32}; }
};

/// References anywhere between two floats, intervals of none to some ulps, and values up to a few ulps off.
FloatField hard(unsigned seed, int count) {
  FloatField f;
  std::mt19937_64 engine(seed);
  const auto unit = [&] { return static_cast<double>(engine() >> 11) * 0x1p-53; };
  for (int i = 0; i < count; ++i) {
    const double size =
        std::ldexp(engine() % 5 == 0 ? 1.0 : 1.0 + unit(), static_cast<int>(engine() % 60) - 30);
    const double ref =
        (engine() % 2 == 0 ? size : -size) * (1.0 + (engine() % 3 == 0 ? unit() * 0x1p-23 : 0.0));
    const double delta = engine() % 4 == 0 ? 0.0 : std::fabs(ref) * 0x1p-24 * 3.0 * unit();
    float out = static_cast<float>(ref);
    for (auto steps = engine() % 4; steps > 0; --steps)
      out = std::nextafterf(out, engine() % 2 == 0 ? INFINITY : -INFINITY);
    if (engine() % 97 == 0) out = std::numeric_limits<float>::quiet_NaN();
    if (engine() % 89 == 0) out = INFINITY;
    f.out.push_back(out);
    f.reference.emplace_back(ref, ref - delta, ref + delta, 0.4 * delta);
  }
  return f;
}

/// The last operation of a float32 sum.
float toward_zero(double x) {
  const auto nearest = static_cast<float>(x);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(x) ? std::nextafterf(nearest, 0.0f) : nearest;
}
float to_nearest(double x) { return static_cast<float>(x); }

/// A reference in [1, 2), and what an implementation makes of it whose error before its last operation has
/// nothing to do with the reference's place.
struct CarriedFloat {
  double ref;
  float out;
};
CarriedFloat carried(std::mt19937_64& engine, double before, float (*last)(double)) {
  const double ref = 1.0 + std::uniform_real_distribution<double>()(engine);
  return {ref, last(ref + before)};
}

}  // namespace

TEST_SUITE("float32") {
  TEST_CASE("the scan of a stretch says what every element says by itself") {
    std::int64_t rejected = 0;
    std::int64_t accepted = 0;
    for (unsigned seed = 1; seed <= 200; ++seed) {
      const FloatField f = hard(seed, kCellColumns);
      const CellTest cell = test_cell(f.span(), f.reference.data(), kCellColumns);
      CellTest own;
      for (std::size_t i = 0; i < f.out.size(); ++i) {
        const Stored out = f.span()[i];
        const bool ok = accepts(out, f.reference[i]);
        own.rejected += !ok;
        own.non_finite += !out.finite() && !ok;
        own.mismatched += stored_as(DType::Float32, f.reference[i].ref).ordinal() != out.ordinal();
        own.max_ratio = std::max(own.max_ratio, ratio_of(out, f.reference[i]));
        accepted += ok;
      }
      CHECK(cell.rejected == own.rejected);
      CHECK(cell.non_finite == own.non_finite);
      CHECK(cell.mismatched == own.mismatched);
      CHECK(cell.max_ratio == own.max_ratio);
      rejected += own.rejected;
    }
    CHECK(rejected > 1000);
    CHECK(accepted > 1000);
  }

  TEST_CASE(
      "an element is accepted from the rounded low end to the rounded high end, and no neighbour more") {
    const Interval x{1.0, 1.0 - 0x1p-23, 1.0 + 0x1p-22};
    float out = 1.0f;
    for (int n = 0; n <= 2; ++n, out = std::nextafterf(out, 2.0f)) CHECK(accepts({out, DType::Float32}, x));
    CHECK_FALSE(accepts({out, DType::Float32}, x));
    CHECK(accepts({1.0f - 0x1p-23f, DType::Float32}, x));
    CHECK_FALSE(accepts({1.0f - 0x1.8p-23f, DType::Float32}, x));
    const Interval exact{1.0, 1.0, 1.0};
    CHECK_FALSE(accepts({std::nextafterf(1.0f, 2.0f), DType::Float32}, exact));
    CHECK(accepts(Bf16{0x3f80}, exact));
    CHECK(ratio_of({1.0f + 0x1p-23f, DType::Float32}, exact) == 2.0);  // in half ulps
  }

  TEST_CASE("deviations of a stretch are those of every element") {
    for (unsigned seed = 1; seed <= 50; ++seed) {
      const FloatField f = hard(seed, kCellColumns);
      Deviations all;
      deviations(f.span(), f.reference.data(), kCellColumns, all);
      for (int i = 0; i < kCellColumns; ++i) {
        const Deviation one =
            deviation(f.span()[static_cast<std::size_t>(i)], f.reference[static_cast<std::size_t>(i)]);
        CHECK(all.flipped[i] == one.flipped);
        CHECK(all.flip_chance[i] == one.flip_chance);
        CHECK(all.excess[i] == one.excess);
        CHECK(all.excess_expected[i] == one.excess_expected);
        CHECK(all.z2[i] == one.z2);
        CHECK(all.contract_ulps[i] == one.contract_ulps);
      }
    }
  }

  TEST_CASE("predicted bits are 32 wide: the last one counts") {
    FloatField f;
    std::vector<PredictedBits> predicted;
    for (int i = 0; i < 24; ++i) {
      f.out.push_back(1.0f + static_cast<float>(i) * 0x1p-20f);
      f.reference.emplace_back(f.out.back(), f.out.back() - 1.0, f.out.back() + 1.0);
      predicted.push_back({Stored(f.out.back(), DType::Float32).bits(), false});
    }
    CHECK(compare_predicted(context(), f.span(), predicted).as_predicted == 24);
    f.out[13] = std::nextafterf(f.out[13], 2.0f);
    const Prediction bits = compare_predicted(context(), f.span(), predicted);
    CHECK(bits.differing == 1);
    REQUIRE(bits.first);
    CHECK(bits.first->ulps == 1);
    CHECK(bits.first->out_bits == predicted[13].bits + 1);
    CHECK(bits.first->ref == f.out[12] + 0x1p-20f);
    const Judgement judged = compare_rounded(context(), f.span(), f.reference);
    CHECK(judged.rejected == 0);
    CHECK(judged.mismatched == 1);
  }

  TEST_CASE("wrong copies are rounded to the field's own type before they are shown") {
    std::vector<Interval> fine;
    for (int i = 0; i < 24; ++i) {
      const double x = 1.0 + i * 0x1p-20;  // one value to bf16
      fine.emplace_back(x, x, x);
    }
    for (const auto& check : vacuity_of_rounded(context(), fine, {}))
      CHECK(check.outcome == VacuityOutcome::Rejected);
    const CompareContext narrow{Field::d_down_proj, kSizes};
    for (const auto& check : vacuity_of_rounded(narrow, fine, {}))
      if (check.copy == "rows rotated by one") CHECK(check.outcome == VacuityOutcome::NotApplicable);
  }

  TEST_CASE(
      "errors that end in a float32 operation differ, stray and are carried on as expected: to nearest and "
      "toward zero, of any size and shape before it") {
    using Draw = std::function<double(std::mt19937_64&)>;  // in gaps
    const auto sign = [](std::mt19937_64& e) { return (e() & 1) != 0 ? 1.0 : -1.0; };
    const std::pair<const char*, Draw> shapes[] = {
        {"none", [](std::mt19937_64&) { return 0.0; }},
        {"normal", [](std::mt19937_64& e) { return std::normal_distribution<double>()(e); }},
        {"of one size", sign},
        {"always low", [](std::mt19937_64&) { return -1.0; }},
        {"one in fifty",
         [sign](std::mt19937_64& e) { return e() % 50 == 0 ? sign(e) * std::sqrt(50.0) : 0.0; }}};
    constexpr double kGap = 0x1p-23;
    constexpr int kDraws = 100000;
    for (const auto& [name, draw] : shapes)
      for (const auto last : {to_nearest, toward_zero})
        for (const double gaps : {0.05, 0.3, 0.5, 1.0, 4.0, 50.0}) {
          std::mt19937_64 engine(31);
          double rms = 0.0;
          double mean = 0.0;
          for (int i = 0; i < kDraws; ++i) {
            const auto [ref, out] = carried(engine, gaps * kGap * draw(engine), last);
            rms += (out - ref) * (out - ref) / kDraws;
            mean += std::fabs(out - ref) / kDraws;
          }
          rms = std::sqrt(rms);
          CarriedErrors errors;
          for (int i = 0; i < kDraws; ++i) {
            const auto [ref, out] = carried(engine, gaps * kGap * draw(engine), last);
            const double wide = 500.0 * kGap;
            const Interval x{ref, ref - wide, ref + wide, rms, mean};
            const Interval kept = noise_after_float32(
                x, {static_cast<float>(x.ref), static_cast<float>(x.low), static_cast<float>(x.high)});
            errors.add({std::span(&out, 1), DType::Float32}, x, kept);
          }
          CAPTURE(name);
          CAPTURE(gaps);
          CAPTURE((last == toward_zero));
          errors.check_expected();
          // And the model of what is carried on is tight once errors are as large as a gap.
          if (gaps >= 4.0 && std::string_view(name) != "none")
            CHECK(errors.square * errors.lucky() >= errors.squares / 1.1);
        }
  }
}
