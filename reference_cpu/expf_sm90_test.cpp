#include "reference_cpu/expf_sm90.h"

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("expf") {
  TEST_CASE("the table of ex2 holds the recorded counts of -1, 0 and +1") {
    std::int64_t counts[4] = {};
    for (const auto byte : ex2_table())
      for (int i = 0; i < 4; ++i) ++counts[(byte >> (2 * i)) & 3];
    CHECK(counts[0] == 1245563);
    CHECK(counts[1] == 11968158);
    CHECK(counts[2] == 3563495);
    CHECK(counts[3] == 0);
  }

  TEST_CASE("expf stays within two units in the last place of exp, and special values are as in CUDA") {
    double worst = 0.0;
    for (int i = 0; i <= 200000; ++i) {
      const float x = -80.0f + 160.0f * static_cast<float>(i) / 200000.0f;
      const double exact = std::exp(static_cast<double>(x));
      const auto got = expf_sm90(x);
      CHECK_FALSE(got.undetermined);
      worst = std::max(worst, std::fabs(got.value - exact) / std::ldexp(1.0, std::ilogb(exact) - 23));
    }
    CHECK(worst <= 2.0);
    CHECK(expf_sm90(0.0f).value == 1.0f);
    CHECK(expf_sm90(-INFINITY).value == 0.0f);
    CHECK(expf_sm90(INFINITY).value == INFINITY);
    CHECK(expf_sm90(-95.0f).undetermined);
    CHECK(std::isnan(expf_sm90(NAN).value));
  }
}
