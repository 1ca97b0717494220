#include "harness/judge/tail.h"

#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("tail") {
  TEST_CASE("the bound of a sum, by hand: ten where one is expected") {
    // 10 ln 10 - 10 + 1 = 14.02585; the Poisson tail itself is 1.1e-7 = e^-16.0.
    CHECK(std::fabs(log_chance_of_sum(10.0, 1.0) + 14.02585092994) < 1e-9);
    CHECK(std::fabs(log_chance_of_sum(120.0, 12.0, 12.0) + 14.02585092994) < 1e-9);
    CHECK(std::fabs(limit_of_sum(1.0, -14.02585092994) - 10.0) < 1e-6);
    CHECK(log_chance_of_sum(1.0, 1.0) == 0.0);
    CHECK(log_chance_of_sum(0.5, 1.0) == 0.0);
    CHECK(log_chance_of_sum(1.0, 0.0) == -std::numeric_limits<double>::infinity());
    CHECK(limit_of_sum(0.0, -10.0) == 0.0);
    CHECK(limit_of_sum(std::numeric_limits<double>::infinity(), -10.0) ==
          std::numeric_limits<double>::infinity());
  }

  TEST_CASE("the bound is above the binomial tail") {
    // 20 coins of chance 0.1: the exact tail by summing.
    for (int at = 3; at <= 20; ++at) {
      double tail = 0.0;
      double term = std::pow(0.9, 20);
      for (int k = 0; k <= 20; ++k) {
        if (k >= at) tail += term;
        term *= (20.0 - k) / (k + 1.0) * (0.1 / 0.9);
      }
      CHECK(std::exp(log_chance_of_sum(at, 2.0)) >= tail);
    }
  }

  TEST_CASE("units: four times the expectation in each of 16 units") {
    const std::vector<Unit> units(16, Unit{4.0, 1.0});
    // 4^16 at the largest bet, and at least a sixth of it on average: e^22.18 and e^20.38.
    CHECK(log_chance_of_units(units) <= -20.38);
    CHECK(log_chance_of_units(units) >= -22.19);
    CHECK(std::fabs(limit_of_units(16, std::log(1e-8)) - std::exp((std::log(6.0) + std::log(1e8)) / 16.0)) <
          1e-12);
    CHECK(log_chance_of_units(std::vector<Unit>(100, Unit{1.0, 1.0})) == 0.0);
    CHECK(log_chance_of_units(std::vector<Unit>(100, Unit{0.0, 1.0})) == 0.0);
    CHECK(log_chance_of_units(std::vector<Unit>(5, Unit{1.0, 0.0})) == 0.0);
    // One unit alone, however far off, is a small wonder only: Markov.
    CHECK(log_chance_of_units(std::vector<Unit>{{1000.0, 1.0}}) >= -std::log(1000.0));
  }
}
