// Errors of many elements, drawn by a test, beside what their noise lets the judge expect of them.
#pragma once

#include <cmath>

#include <doctest/doctest.h>

#include "harness/contract/noise.h"
#include "harness/judge/deviation.h"

namespace assay {

struct CarriedErrors {
  double flips = 0.0;
  double excess = 0.0;
  double flips_expected = 0.0;
  double excess_expected = 0.0;
  // of errors after storing, and of the noise that is carried on for them
  double size = 0.0;
  double square = 0.0;
  double sizes = 0.0;
  double squares = 0.0;

  /// One stored element of which `x` is known, and `kept` after storing.
  void add(StoredSpan out, const Interval& x, const Interval& kept) {
    Deviations d;
    deviations(out, &x, 1, d);
    flips += d.flipped[0];
    excess += d.z2[0] - d.z2_of_rounding[0];
    expect_of_carried_errors(out.dtype(), &x, 1, d);
    flips_expected += d.flip_chance[0];
    excess_expected += d.excess_expected[0];
    const double moved = out.value(0) - kept.ref;
    size += std::fabs(moved);
    square += moved * moved;
    sizes += kept.mean;
    squares += static_cast<double>(kept.noise) * kept.noise;
  }

  /// Few errors of great size decide some of these sums: four of their standard deviations.
  double lucky() const { return 1.0 + 4.0 / std::sqrt(1.0 + flips); }
  void check_expected() const {
    CHECK(flips <= flips_expected * lucky());
    CHECK(excess <= excess_expected * lucky());
    CHECK(size <= sizes * lucky());
    CHECK(square <= squares * lucky());
  }
};

}  // namespace assay
