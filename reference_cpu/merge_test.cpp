#include "reference_cpu/small_layer.h"

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("merge") {
  TEST_CASE(
      "hf rounds weight times value, sums in fp32 and rounds once; eager adds in bf16 by ascending expert") {
    // Slot 0 is expert 1, slot 1 is expert 0. 1 * 1 and 2^-9 * 1: their sum is a tie in bf16 and rounds to
    // even, 1.
    const Values<Predicted> rows = {{1.0f, false}, {0x1.8p-8f, false}};
    const Values<Predicted> weights = {{1.0f, false}, {1.0f, false}};
    const SmallLayer hf("hf");
    const SmallLayer eager("hf_eager");
    CHECK(merge<Predicted>(hf.layer, rows, weights)[0].value == 1.0f + 0x1.8p-8f);
    CHECK(merge<Predicted>(eager.layer, rows, weights)[0].value ==
          1.0f + 0x1.8p-8f);  // the last rounding is the field's store
  }

  TEST_CASE("hf_fp32_merge keeps weight times value in fp32, which hf rounds") {
    const Values<Predicted> rows = {{1.0f + 0x1p-7f, false}, {0.0f, false}};
    const Values<Predicted> weights = {{1.0f + 0x1p-7f, false}, {1.0f, false}};
    CHECK(merge<Predicted>(SmallLayer("hf").layer, rows, weights)[0].value == 1.0f + 0x1p-6f);
    CHECK(merge<Predicted>(SmallLayer("hf_fp32_merge").layer, rows, weights)[0].value ==
          1.0f + 0x1p-6f + 0x1p-14f);
  }

  TEST_CASE(
      "eight slots are four interleaved sums: the element of an H200 run that no other order explains") {
    SmallLayer small("hf");
    small.problem.config = {1, 1, 8, 8, true};
    small.layer.routing = get_token_counts_and_gather_indices(small.problem.config, {0, 1, 2, 3, 4, 5, 6, 7});
    Values<Predicted> rows;
    Values<Predicted> weights(8, {1.0f, false});
    for (const float x : {0x1.06p-6f, 0x1.5ep-28f, 0x1.7ep-5f, -0x1.6ep-6f, 0x1.32p-5f, -0x1.2cp-7f,
                          -0x1.92p-7f, -0x1.fep-7f})
      rows.push_back({x, false});
    CHECK(round_to_bf16(merge<Predicted>(small.layer, rows, weights)[0].value).bits == 0x3d26);
    float ascending = 0.0f;
    for (const auto& row : rows) ascending += row.value;
    CHECK(round_to_bf16(ascending).bits == 0x3d27);
  }

  TEST_CASE("eager's merge of exact rows has an interval without width") {
    const Values<Bounded> rows = {{1.5, 1.5, 1.5}, {0x1.8p-8, 0x1.8p-8, 0x1.8p-8}};
    const Values<Bounded> weights = {{0.75, 0.75, 0.75}, {0.25, 0.25, 0.25}};
    const auto out = merge<Bounded>(SmallLayer("hf_eager").layer, rows, weights);
    CHECK(out[0].low == out[0].high);
    CHECK(out[0].ref == 1.125 + 0x1.8p-10);
  }
}
