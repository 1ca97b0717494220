#include "harness/judge/own_rounding.h"

#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace assay;

namespace {

constexpr double kShare = -18.0;  // logarithm of the false alarms allowed

/// How a value is stored: from its exact value and the error of what it sums.
using Stores = std::function<Bf16(std::mt19937_64&, double exact, double error)>;

Bf16 to_nearest(std::mt19937_64&, double exact, double error) { return round_to_bf16(exact + error); }

/// Up or down at random, by the distance.
Bf16 at_random(std::mt19937_64& engine, double exact, double error) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(exact + error));
  return {static_cast<std::uint16_t>((bits + (engine() & 0xffff)) >> 16)};
}

Bf16 truncated(std::mt19937_64&, double exact, double error) {
  return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(exact + error)) >> 16)};
}

/// Rows of normal values; `error(row, exact)` is what an implementation errs by before the last rounding, and
/// the model says `modelled`.
StatisticalTest rows_of(std::int64_t tokens, std::int64_t width, double modelled, const Stores& store,
                        const std::function<double(std::mt19937_64&, std::int64_t row, double exact)>& error,
                        unsigned seed = 1) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<CoarseAndFine> rows;
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::vector<Interval> reference;
    std::vector<Bf16> out;
    for (std::int64_t c = 0; c < width; ++c) {
      const double x = normal(engine);
      reference.push_back({x, x - 1.0, x + 1.0, modelled, 0.8 * modelled});
      out.push_back(store(engine, x, error(engine, t, x)));
    }
    rows.push_back(coarse_and_fine(out, reference));
    rows.back().token = t;
    rows.back().key = static_cast<std::uint64_t>(t);
  }
  return own_rounding_test(rows, kShare);
}

std::function<double(std::mt19937_64&, std::int64_t, double)> gaussian(double rms) {
  return [rms](std::mt19937_64& engine, std::int64_t, double) {
    return rms * std::normal_distribution<double>()(engine);
  };
}

}  // namespace

TEST_SUITE("own_rounding") {
  TEST_CASE("counts of one row, by hand") {
    // Last places 2^-7 of 1.x and 2^-10 of 0.125 x; the errors modelled are alike.
    const auto value = [](double x) { return Interval{x, x - 1.0, x + 1.0, 0x1p-8, 0x1p-8}; };
    const std::vector<Interval> reference = {value(1.02),  value(1.26),   value(1.44),  value(0.1301),
                                             value(0.153), value(0.1701), value(0.184), value(0.1903)};
    std::vector<Bf16> out;
    for (const Interval& x : reference) out.push_back(round_to_bf16(x.ref));
    const CoarseAndFine right = coarse_and_fine(out, reference);
    CHECK(right.coarse == 3);
    CHECK(right.fine == 5);
    CHECK(right.coarse_differing == 0);
    CHECK(right.fine_errors == 0.0);
    out[1].bits += 1;
    out[3].bits += 3;
    out[4].bits -= 100;
    const CoarseAndFine wrong = coarse_and_fine(out, reference);
    CHECK(wrong.coarse_differing == 1);
    CHECK(wrong.fine_errors == 3.0 / 8.0 + 1.0);
  }

  TEST_CASE("a final rounding that is not to nearest is seen, however large the model's noise") {
    for (const double modelled : {1e-5, 1e-3, 1e-1})
      for (const Stores& store : {Stores(at_random), Stores(truncated)}) {
        const auto test = rows_of(24, 1024, modelled, store, gaussian(1e-5));
        CAPTURE(modelled);
        CHECK(test.beyond);
        CHECK(test.observed > 0.2);
        CHECK(test.observed > test.limit);
        CHECK(test.limit > test.expected);
        CHECK(own_rounding_in_words(test).find("last place") != std::string::npos);
      }
  }

  TEST_CASE("carried errors of any size are not, be they many, few or shared by a token") {
    const auto of_some_tokens = [](std::mt19937_64& engine, std::int64_t row, double) {
      return row % 3 == 0 ? 0.05 * std::normal_distribution<double>()(engine) : 0.0;
    };
    const auto of_few_elements = [](std::mt19937_64& engine, std::int64_t, double) {
      return engine() % 50 == 0 ? 0.03 : 0.0;
    };
    for (unsigned seed = 1; seed <= 20; ++seed) {
      for (const double rms : {1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0}) {
        const auto test = rows_of(24, 512, 1e-2, to_nearest, gaussian(rms), seed);
        CAPTURE(rms);
        CHECK(test.log10_chance > -1.0);
      }
      CHECK(rows_of(24, 512, 1e-2, to_nearest, of_some_tokens, seed).log10_chance > -1.0);
      CHECK(rows_of(24, 512, 1e-2, to_nearest, of_few_elements, seed).log10_chance > -1.0);
    }
  }

  TEST_CASE(
      "errors twice as large in coarse values are still carried ones; a few tokens of any shape accuse "
      "nobody") {
    const auto twice = [](std::mt19937_64& engine, std::int64_t, double exact) {
      return (std::fabs(exact) > 0.5 ? 2e-3 : 1e-3) * std::normal_distribution<double>()(engine);
    };
    CHECK_FALSE(rows_of(200, 512, 1e-2, to_nearest, twice).beyond);
    // As where a weight of the merge is off: errors proportional to the value.
    const auto scaled = [](std::int64_t every) {
      return [every](std::mt19937_64&, std::int64_t row, double exact) {
        return row % every == 0 ? 0x1p-8 * exact : 0.0;
      };
    };
    CHECK_FALSE(rows_of(200, 512, 1e-2, to_nearest, scaled(10)).beyond);
    CHECK(rows_of(200, 512, 1e-2, to_nearest, scaled(1)).beyond);
  }

  TEST_CASE("equal tokens are one, values without modelled noise none, and one token never suffices") {
    CHECK_FALSE(rows_of(1, 4096, 1e-3, truncated, gaussian(0.0)).beyond);
    CHECK(rows_of(1, 4096, 1e-3, truncated, gaussian(0.0)).limit == 1.0);
    CHECK(rows_of(30, 512, 0.0, truncated, gaussian(0.0)).observed == 0.0);
    std::vector<CoarseAndFine> rows;
    for (std::int64_t t = 0; t < 100; ++t) rows.push_back({t, 7, 500, 250, 300, 4.0});
    CHECK_FALSE(own_rounding_test(rows, kShare).beyond);
    for (auto& row : rows) row.key = static_cast<std::uint64_t>(row.token);
    CHECK(own_rounding_test(rows, kShare).beyond);
    CHECK_FALSE(own_rounding_test({}, kShare).beyond);
  }

  TEST_CASE("of many tokens 256 are looked at, evenly spread") {
    for (const std::int64_t tokens : {1, 48, 256, 257, 4096, 5000}) {
      std::int64_t count = 0;
      for (std::int64_t t = 0; t < tokens; ++t) count += looked_at(t, tokens);
      CHECK(count <= 256);
      CHECK(count >= std::min<std::int64_t>(tokens, 128));
      CHECK(looked_at(0, tokens));
    }
  }
}
