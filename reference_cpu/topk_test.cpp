#include "reference_cpu/topk_torch.h"

#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "reference_cpu/small_layer.h"
#include "reference_cpu/softmax_bounds.h"
#include "reference_cpu/warp_sum.h"

using namespace assay;

TEST_SUITE("topk") {
  TEST_CASE("equal values come out in the order seen of torch on a GPU") {
    const std::vector<float> equal(128, 0.5f);
    CHECK(topk_torch(equal, 8) == std::vector<std::int32_t>{7, 6, 4, 5, 1, 0, 2, 3});
  }

  TEST_CASE("distinct values come out descending") {
    std::vector<float> values(50);
    for (std::size_t i = 0; i < 50; ++i) values[i] = static_cast<float>((i * 37) % 50);
    const auto top = topk_torch(values, 10);
    for (std::size_t j = 0; j < 10; ++j)
      CHECK(values[static_cast<std::size_t>(top[j])] == 49.0f - static_cast<float>(j));
  }

  TEST_CASE("the lowest index wins among equals under our own rule") {
    const std::vector<double> values = {1, 3, 3, 2, 3};
    CHECK(topk_lowest_index(values, 2) == std::vector<std::int32_t>{1, 2});
  }

  TEST_CASE("logits of which nothing is known leave weights between 0 and 1, never NaN") {
    const SmallLayer small("hf");
    for (const double noise : {1e3, 1e15, std::numeric_limits<double>::infinity()}) {
      const Values<Bounded> logits = {{1e18, 1e18 - noise, 1e18 + noise}, {0.0, -noise, noise}};
      for (const Interval& weight : topk_weights<Bounded>(small.layer, logits)) {
        CAPTURE(noise);
        CHECK(weight.low <= weight.ref);
        CHECK(weight.ref <= weight.high);
        CHECK(weight.high <= 1.0 + 0x1p-20);
      }
    }
  }

  TEST_CASE("32 lanes: each adds its own elements in order, then a butterfly") {
    std::vector<float> values(33, 0.0f);
    values[0] = 1.0f;
    values[32] = 0x1p-24f;  // same lane: 1 + 2^-24 rounds to 1
    values[1] = 0x1p-24f;   // another lane, added last
    CHECK(warp_sum(values) == 1.0f);
    values[2] = 0x1p-24f;  // 2^-24 of lanes 1 and 2 meet lane 0 one after the other
    CHECK(warp_sum(values) == 1.0f);
    values[1] = 3 * 0x1p-24f;
    CHECK(warp_sum(values) > 1.0f);
  }
}
