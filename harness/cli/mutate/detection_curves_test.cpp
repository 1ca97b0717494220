#include "harness/cli/mutate/detection_curves.h"

#include <doctest/doctest.h>

#include "harness/contract/error.h"

using namespace assay;
using namespace assay::cli;

TEST_SUITE("mutate-curves") {
  TEST_CASE("a fault is found from the smallest size on from which every larger one is found") {
    DetectionCurve curve{
        "family", "sentence",
        "n",      {1, 2, 4, 8},
        10,       {{"steady", {0, 5, 10, 10}}, {"lucky", {10, 0, 10, 9}}, {"blind", {0, 0, 0, 0}}}};
    CHECK(detected_from(curve, curve.rules[0], 0.5) == 2.0);
    CHECK(detected_from(curve, curve.rules[0], 0.99) == 4.0);
    CHECK(detected_from(curve, curve.rules[1], 0.5) == 4.0);  // that it was found at 1 is luck
    CHECK_FALSE(detected_from(curve, curve.rules[1], 0.99).has_value());
    CHECK_FALSE(detected_from(curve, curve.rules[2], 0.5).has_value());
    const auto again = read_detection_curves(json({curve}, "command"));
    REQUIRE(again.size() == 1);
    CHECK(again[0].sizes == curve.sizes);
    CHECK(again[0].rules[1].found == curve.rules[1].found);
    CHECK_THROWS_AS(read_detection_curves("{}"), InputError);
  }

  TEST_CASE("declared accumulators find whatever changes a bit") {
    const auto curves = detection_curves({"output_scale"}, 2, 100);
    REQUIRE(curves.size() == 1);
    CHECK(curves[0].rules[0].rule == "any bit changes");
    CHECK(curves[0].rules[0].found == curves[0].rules[1].found);
    CHECK(curves[0].rules[0].found.back() == 2);
  }
}
