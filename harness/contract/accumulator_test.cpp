#include "harness/contract/accumulator.h"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "harness/contract/candidate.h"
#include "harness/contract/error.h"
#include "harness/contract/summation.h"

using namespace assay;

TEST_SUITE("accumulator") {
  TEST_CASE("what is written is read back") {
    for (const auto kind :
         {AccumulatorKind::Unknown, AccumulatorKind::Fp32Sequential, AccumulatorKind::Fp32Pairwise,
          AccumulatorKind::Hopper, AccumulatorKind::HopperAnySplit, AccumulatorKind::Ampere}) {
      const Accumulator accumulator{kind, {}};
      CHECK(parse_accumulator(to_string(accumulator)) == accumulator);
    }
    const Accumulator split{AccumulatorKind::Hopper, {1408, 1408, 1280}};
    CHECK(to_string(split) == "hopper_split(1408, 1408, 1280)");
    CHECK(parse_accumulator(to_string(split)) == split);
    const Accumulator descending{AccumulatorKind::HopperDescending, {}, 64};
    const Accumulator dealt{AccumulatorKind::HopperInterleaved, {}, 64, 2};
    CHECK(to_string(descending) == "hopper_descending(64)");
    CHECK(to_string(dealt) == "hopper_interleaved(2, 64)");
    CHECK(parse_accumulator(to_string(descending)) == descending);
    CHECK(parse_accumulator(to_string(dealt)) == dealt);
  }

  TEST_CASE("each walks K in its own order") {
    using Stretches = std::vector<SumStretch>;
    CHECK(summation({AccumulatorKind::Hopper, {}}, 40).stretches == Stretches{{0, 40, true}});
    CHECK(summation({AccumulatorKind::Hopper, {16, 16}}, 40).stretches ==
          Stretches{{0, 16, true}, {16, 40, true}});
    CHECK(summation({AccumulatorKind::HopperDescending, {}, 16}, 40).stretches ==
          Stretches{{32, 40, false}, {16, 32, false}, {0, 16, true}});
    CHECK(summation({AccumulatorKind::HopperInterleaved, {}, 16, 2}, 72).stretches ==
          Stretches{{0, 16, false}, {32, 48, false}, {64, 72, true}, {16, 32, false}, {48, 64, true}});
    CHECK(summation({AccumulatorKind::Ampere, {}}, 8).rule == StepRule::Truncate8);
    CHECK(order_declared({AccumulatorKind::Ampere, {}}));
    CHECK_FALSE(order_declared({AccumulatorKind::HopperAnySplit, {}}));
  }

  TEST_CASE(
      "a tensor core that aligns 8 products has twice the a-priori bound, and so has one that nobody knows") {
    Candidate candidate;
    candidate.device = "cpu";
    CHECK(product_slack(candidate, {}) == 1.0);
    Accumulators one_of_ampere;
    one_of_ampere[ProductId::router] = {AccumulatorKind::Ampere, {}};
    CHECK(product_slack(candidate, one_of_ampere) == 2.0);
    candidate.device = "NVIDIA H200";
    CHECK(product_slack(candidate, {}) == 2.0);
    candidate.compute_capability = "9.0";
    CHECK(product_slack(candidate, {}) == 1.0);
    for (const char* older : {"7.5", "8.0", "8.9"}) {
      candidate.compute_capability = older;
      CHECK(product_slack(candidate, {}) == 2.0);
    }
  }

  TEST_CASE("spaces between the lengths do not matter") {
    CHECK(parse_accumulator("hopper_split(16,32)") == Accumulator{AccumulatorKind::Hopper, {16, 32}});
    CHECK(parse_accumulator("hopper_split(16)") == Accumulator{AccumulatorKind::Hopper, {16}});
  }

  TEST_CASE("anything else is refused with the valid forms") {
    for (const std::string text :
         {"", "Hopper", "hopper_split", "hopper_split()", "hopper_split(0)", "hopper_split(-16)",
          "hopper_split(16", "hopper_split(a)", "hopper_split(99999999999999999999)", "hopper_split(16, 32) ",
          "hopper_descending", "hopper_descending()", "hopper_descending(16, 32)", "hopper_interleaved(2)",
          "ampere(8)"}) {
      CAPTURE(text);
      CHECK_THROWS_AS(parse_accumulator(text), UsageError);
    }
    CHECK_THROWS_WITH_AS(parse_accumulator("fp16"),
                         "unknown accumulator 'fp16'; valid: unknown, fp32_sequential, fp32_pairwise, "
                         "hopper, hopper_any_split, hopper_split(k1, k2, ...), hopper_descending(block), "
                         "hopper_interleaved(parts, block), ampere",
                         UsageError);
    // A sum of them must not overflow, nor a walk over them take for ever.
    CHECK_THROWS_WITH_AS(parse_accumulator("hopper_split(8, 9223372036854775807, 8)"),
                         "accumulator 'hopper_split(8, 9223372036854775807, 8)': expected "
                         "hopper_split(k1, k2, ...) with numbers from 1 to 1048576",
                         UsageError);
    CHECK_THROWS_AS(parse_accumulator("hopper_interleaved(1000000000, 1)"), UsageError);
  }
}
