#include "harness/judge/statistics.h"

#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace assay;

namespace {

/// Two experts of unequal load: first_gemm [S, 2I] of 24 tokens and two slots each.
struct TwoExpertLayer {
  MoeConfig config{64, 66, 4, 2, true};
  Sizes sizes{config, 24};
  Routing routing;

  TwoExpertLayer() {
    std::vector<std::int64_t> loads = {30, 0, 13, 5};
    routing.counts = {30, 0, 13, 5};
    routing.offsets = {0, 30, 30, 43, 48};
    for (std::int32_t r = 0; r < 48; ++r) routing.gather.push_back((r * 7) % 48);
    routing.selected.assign(48, 0);
  }
  std::int64_t width() const { return 2 * config.moe_intermediate_size; }
  std::size_t size() const { return 48 * static_cast<std::size_t>(width()); }
  StatisticsContext context(double alpha, Dependence dependence = Dependence::Elements) const {
    return {{Field::first_gemm, sizes, &routing}, dependence, {}, 0, std::log(alpha)};
  }
};

using DrawErrorAt =
    std::function<double(std::mt19937_64&, std::size_t index)>;  // in units of the noise, mean square 1

struct DrawnField {
  std::vector<Interval> reference;
  std::vector<Bf16> out;
};

/// `mean` is E|e| of the error.
DrawnField draw(const TwoExpertLayer& layer, std::mt19937_64& engine, double relative_noise,
                const DrawErrorAt& error, double mean = 1.0) {
  std::normal_distribution<double> normal;
  DrawnField d;
  for (std::size_t i = 0; i < layer.size(); ++i) {
    const double ref = normal(engine);
    const double noise = relative_noise * (0.3 + std::fabs(ref));
    d.reference.push_back({ref, ref - 1e4 * noise, ref + 1e4 * noise, noise, mean * noise});
    d.out.push_back(round_to_bf16(ref + noise * error(engine, i)));
  }
  return d;
}

double gaussian(std::mt19937_64& engine, std::size_t) { return std::normal_distribution<double>()(engine); }
/// Always the full rms error, towards zero or away from it: as flipped as a distribution can be.
double two_valued(std::mt19937_64& engine, std::size_t) { return (engine() & 1) != 0 ? 1.0 : -1.0; }
double rare(std::mt19937_64& engine, std::size_t) { return engine() % 400 == 0 ? 20.0 : 0.0; }

/// Of 200 runs at 1e-2, with three standard deviations more.
constexpr double kMostAlarms = 3.1e-2;

/// Share of runs that are suspected.
double alarms(const TwoExpertLayer& layer, const StatisticsContext& context, int runs, unsigned seed,
              double relative_noise, const std::function<DrawErrorAt(std::mt19937_64&)>& of_run) {
  std::mt19937_64 engine(seed);
  int suspected = 0;
  for (int run = 0; run < runs; ++run) {
    const auto d = draw(layer, engine, relative_noise, of_run(engine));
    suspected += !field_statistics(context, d.out, d.reference).suspicion.empty();
  }
  return static_cast<double>(suspected) / runs;
}

const StatisticalTest& test_of(const Statistics& statistics, std::string_view measure,
                               std::string_view over_prefix) {
  for (const auto& test : statistics.tests)
    if (test.measure == measure && test.over.starts_with(over_prefix)) return test;
  FAIL("no such test");
  throw 0;
}

Statistics of(const TwoExpertLayer& layer, const DrawnField& d,
              Dependence dependence = Dependence::Elements) {
  return field_statistics(layer.context(1e-8, dependence), d.out, d.reference);
}

}  // namespace

TEST_SUITE("statistics") {
  TEST_CASE("sums, histogram and contract ulps, by hand") {
    TwoExpertLayer layer;
    layer.sizes.tokens = 0;
    CHECK(field_statistics(layer.context(1e-6), {}, {}).tests.empty());
    layer.sizes = {{64, 2, 1, 1, true}, 1};  // first_gemm [1, 4]
    layer.routing = {{0}, {1}, {0, 1}, {0}};
    const std::vector<Interval> reference = {
        {1.0, 0.9, 1.1, 0.001}, {1.0, 0.9, 1.1, 0.001}, {1.0, 0.9, 1.1, 0.001}, {4.0, 3.9, 4.1, 0.001}};
    const std::vector<Bf16> out = {round_to_bf16(1.0), round_to_bf16(1.0 + 0x1p-7),
                                   round_to_bf16(1.0 + 3 * 0x1p-7), round_to_bf16(4.0 - 6 * 0x1p-6)};
    const auto s = field_statistics(layer.context(1e-6), out, reference);
    const std::vector<std::pair<std::int64_t, std::int64_t>> histogram = {{0, 1}, {1, 1}, {3, 1}, {5, 1}};
    CHECK(s.ulp_histogram == histogram);
    CHECK(std::fabs(s.max_contract_ulps - 6 * 0x1p-6 / 0.2) < 1e-9);
    CHECK(s.max_contract_ulps_at[1] == std::pair<std::string, std::int64_t>("col", 3));
    CHECK(s.z2_of_rounding == 0.0);
    CHECK(s.units == "elements");
  }

  TEST_CASE("legal errors of any shape are suspected no more often than asked for") {
    const TwoExpertLayer layer;
    constexpr double kAlpha = 1e-2;
    constexpr int kRuns = 200;
    const auto independent = [](double (*error)(std::mt19937_64&, std::size_t)) {
      return [error](std::mt19937_64&) { return DrawErrorAt(error); };
    };
    unsigned seed = 1;
    for (const double noise : {1e-5, 1e-3, 2e-2})
      for (auto* error : {gaussian, two_valued, rare})
        CHECK(alarms(layer, layer.context(kAlpha), kRuns, ++seed, noise, independent(error)) <= kMostAlarms);
    // Errors that a whole token shares: all its elements together are rarely far off.
    const auto shared = [&layer](std::mt19937_64& engine) {
      std::vector<double> token(24);
      for (auto& x : token) x = engine() % 25 == 0 ? 5.0 : 0.0;
      return DrawErrorAt([token, &layer](std::mt19937_64& e, std::size_t i) {
        const auto slot = layer.routing.gather[i / static_cast<std::size_t>(layer.width())];
        return token[static_cast<std::size_t>(slot / 2)] * two_valued(e, i);
      });
    };
    for (const double noise : {1e-4, 1e-3, 2e-2})
      CHECK(alarms(layer, layer.context(kAlpha, Dependence::Tokens), kRuns, ++seed, noise, shared) <=
            kMostAlarms);
    // The element tests would not do for them: they see many flips that are one event. By Chebyshev's
    // inequality it is one of 1 in 90,000.
    std::mt19937_64 engine(4);
    const auto one_token = draw(layer, engine, 1e-5, [&layer](std::mt19937_64&, std::size_t i) {
      return layer.routing.gather[i / static_cast<std::size_t>(layer.width())] / 2 == 5 ? 300.0 : 0.0;
    });
    CHECK_FALSE(field_statistics(layer.context(1e-6), one_token.out, one_token.reference).suspicion.empty());
    CHECK(field_statistics(layer.context(1e-6, Dependence::Tokens), one_token.out, one_token.reference)
              .suspicion.empty());
  }

  TEST_CASE(
      "carried errors are expected as often as their mean size says: no legal one is suspected, and four "
      "times as large ones are") {
    const TwoExpertLayer layer;
    struct Carried {
      double (*error)(std::mt19937_64&, std::size_t);
      double mean;
    };
    std::mt19937_64 engine(30);
    for (const auto [error, mean] : {Carried{gaussian, 0.798}, {two_valued, 1.0}, {rare, 0.05}})
      for (const double noise : {1e-4, 1e-3, 2e-2}) {
        int suspected = 0;
        for (int run = 0; run < 200; ++run) {
          const auto d = draw(layer, engine, noise, error, mean);
          suspected += !field_statistics(layer.context(1e-2, Dependence::Tokens), d.out, d.reference)
                            .suspicion.empty();
        }
        CHECK(suspected <= kMostAlarms * 200);
        const auto large = draw(
            layer, engine, noise, [error](std::mt19937_64& e, std::size_t i) { return 4.0 * error(e, i); },
            mean);
        // Rare errors show in their energy, and few there are of them.
        if (error != rare)
          CHECK_FALSE(field_statistics(layer.context(1e-2, Dependence::Tokens), large.out, large.reference)
                          .suspicion.empty());
      }
  }

  TEST_CASE("errors that recur with the argument are one event per argument") {
    const TwoExpertLayer layer;
    std::mt19937_64 engine(17);
    std::vector<Bf16> arguments(layer.size());
    for (auto& a : arguments) a.bits = static_cast<std::uint16_t>(0x3f00 + engine() % 60);
    auto context = layer.context(1e-2, Dependence::Classes);
    context.classes = arguments;
    context.class_stride = layer.width();
    const auto of_run = [&](std::mt19937_64& e) {
      std::vector<double> value(65536);
      for (auto& x : value) x = e() % 25 == 0 ? 5.0 : 0.0;
      return DrawErrorAt(
          [value, &arguments](std::mt19937_64&, std::size_t i) { return value[arguments[i].bits]; });
    };
    CHECK(alarms(layer, context, 200, 3, 1e-3, of_run) <= kMostAlarms);
    // All arguments wrong together is no accident.
    auto d = draw(layer, engine, 1e-4, [](std::mt19937_64&, std::size_t) { return 20.0; });
    CHECK_FALSE(field_statistics(context, d.out, d.reference).suspicion.empty());
  }

  TEST_CASE("truncation is seen in flips, in energy and as a bias towards zero") {
    const TwoExpertLayer layer;
    std::mt19937_64 engine(7);
    auto d = draw(layer, engine, 1e-5, gaussian);
    for (std::size_t i = 0; i < d.out.size(); ++i)
      d.out[i].bits = static_cast<std::uint16_t>(
          std::bit_cast<std::uint32_t>(static_cast<float>(d.reference[i].ref)) >> 16);
    const auto s = of(layer, d);
    CHECK(std::fabs(test_of(s, "flipped bits", "the field").observed - 0.5) < 0.05);
    CHECK(test_of(s, "flipped bits", "the field").beyond);
    CHECK(test_of(s, "excess energy", "the field").beyond);
    CHECK(std::fabs(s.z2 - 4.0) < 0.3);  // 3.99 expected
    CHECK(std::fabs(s.z2_of_rounding - 1.0) < 0.1);
    CHECK(test_of(s, "bias", "the field").beyond);
    CHECK(std::fabs(test_of(s, "bias", "the field").observed + 0.5) < 0.05);
    CHECK(s.suspicion.find("are expected of any legal order of summation") != std::string::npos);
    CHECK_FALSE(of(layer, d, Dependence::Tokens).suspicion.empty());
  }

  TEST_CASE(
      "a fault in one expert, one tile or one column is named, though the field as a whole looks well") {
    const TwoExpertLayer layer;
    const auto w = static_cast<std::size_t>(layer.width());
    struct Place {
      const char* family;
      const char* over;
      std::function<bool(std::size_t row, std::size_t col)> inside;
    };
    const Place places[] = {{"expert", "expert 3", [](std::size_t r, std::size_t) { return r >= 43; }},
                            {"rows", "rows 30 to 42, cols 128 to 131",
                             [](std::size_t r, std::size_t c) { return r >= 30 && r < 43 && c >= 128; }},
                            {"col", "col 17", [](std::size_t, std::size_t c) { return c == 17; }}};
    for (const auto& place : places) {
      std::mt19937_64 engine(8);
      auto d = draw(layer, engine, 1e-4, gaussian);
      CHECK(of(layer, d).suspicion.empty());
      for (std::size_t i = 0; i < d.out.size(); ++i)
        if (place.inside(i / w, i % w)) d.out[i].bits ^= 1;
      const auto s = of(layer, d);
      CAPTURE(place.over);
      CHECK(test_of(s, "flipped bits", place.family).over == place.over);
      CHECK(test_of(s, "flipped bits", place.family).beyond);
      CHECK_FALSE(s.suspicion.empty());
    }
  }

  TEST_CASE(
      "equal rows, and rows scaled by powers of two, are one event; a value without noise is never "
      "suspected") {
    const TwoExpertLayer layer;
    const auto w = static_cast<std::size_t>(layer.width());
    std::mt19937_64 engine(9);
    auto d = draw(layer, engine, 1e-3, gaussian);
    for (std::size_t i = w; i < d.out.size(); ++i) {
      const double scale = std::ldexp(i / w % 2 == 0 ? 1.0 : -1.0, static_cast<int>(i / w % 5));
      const auto& first = d.reference[i % w];
      d.reference[i] = {first.ref * scale, std::min(first.low * scale, first.high * scale),
                        std::max(first.low * scale, first.high * scale), first.noise * std::fabs(scale)};
      d.out[i] = round_to_bf16(to_float(d.out[i % w]) * static_cast<float>(scale));
    }
    const auto s = of(layer, d);
    CHECK(s.suspicion.empty());
    CHECK(test_of(s, "flipped bits", "the field").observed * static_cast<double>(d.out.size()) <
          static_cast<double>(w));
    for (auto& x : d.reference) x = {x.ref, x.low, x.high, 0.0};
    for (auto& x : d.out) x.bits ^= 1;
    CHECK(of(layer, d).suspicion.empty());
    CHECK(of(layer, d, Dependence::Tokens).suspicion.empty());
  }

  TEST_CASE("the sums do not depend on the field's place in memory or on repeated calls") {
    const TwoExpertLayer layer;
    std::mt19937_64 engine(10);
    const auto d = draw(layer, engine, 1e-3, gaussian);
    const auto a = of(layer, d);
    const auto b = of(layer, d);
    for (std::size_t i = 0; i < a.tests.size(); ++i)
      CHECK(a.tests[i].log10_chance == b.tests[i].log10_chance);
  }
}
