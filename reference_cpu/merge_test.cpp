#include "reference_cpu/small_layer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "reference_cpu/term_sums.h"

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

  TEST_CASE(
      "bf16 adds in any order: the hull is that of all K! orders, and bits are known where it is one value") {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    int determined = 0;
    for (int round = 0; round < 300; ++round) {
      const std::size_t count = 1 + random() % 6;
      std::vector<std::int32_t> order(count);
      std::iota(order.begin(), order.end(), 0);
      Values<Bounded> terms;
      Values<Predicted> values;
      for (std::size_t j = 0; j < count; ++j) {
        const double width = round % 2 == 0 ? 0.0 : 0x1p-7;
        const double x = to_float(round_to_bf16(normal(random)));
        terms.push_back({x, x - width, x + width});
        values.push_back({static_cast<float>(x), false});
      }
      double low = std::numeric_limits<double>::infinity();
      double high = -low;
      std::set<std::uint16_t> bits;
      auto any = order;
      do {
        const Interval one =
            add_in_bf16(std::span<const Interval>(terms), std::span<const std::int32_t>(any));
        low = std::min(low, one.low);
        high = std::max(high, one.high);
        const auto value =
            add_in_bf16(std::span<const PredictedValue>(values), std::span<const std::int32_t>(any));
        bits.insert(round_to_bf16(value.value).bits);
      } while (std::ranges::next_permutation(any).found);
      const Interval hull = add_in_bf16_any_order(terms, order);
      CHECK(to_float(round_to_bf16(hull.low)) == to_float(round_to_bf16(low)));
      CHECK(to_float(round_to_bf16(hull.high)) == to_float(round_to_bf16(high)));
      const PredictedValue value = add_in_bf16_any_order(values, order);
      CHECK(value.undetermined == (bits.size() > 1));
      CHECK(bits.contains(round_to_bf16(value.value).bits));
      determined += !value.undetermined;
    }
    CHECK(determined > 50);
    CHECK(determined < 300);
  }

  TEST_CASE("a sum that no order of bf16 adds gives lies outside their hull") {
    // 1 + 2^-8 + 2^-8: every order gives 1 (a tie, to even) or 1 + 2^-7; never 1 + 2^-6.
    Values<Bounded> terms = {{1.0, 1.0, 1.0}, {0x1p-8, 0x1p-8, 0x1p-8}, {0x1p-8, 0x1p-8, 0x1p-8}};
    const std::vector<std::int32_t> order = {0, 1, 2};
    const Interval hull = stored(add_in_bf16_any_order(terms, order), Store::Bf16);
    CHECK(hull.low == 1.0);
    CHECK(hull.high == 1.0 + 0x1p-7);
  }

  TEST_CASE("with more slots than sets can be walked, what any order loses is bounded") {
    const std::vector<std::int32_t> order = [] {
      std::vector<std::int32_t> all(16);
      std::iota(all.begin(), all.end(), 0);
      return all;
    }();
    Values<Bounded> terms(16, {1.0 / 3, 1.0 / 3, 1.0 / 3});
    for (auto& term : terms) term = stored(term, Store::Bf16);
    const Interval sum = add_in_bf16_any_order(terms, order);
    CHECK(sum.low < sum.ref);
    CHECK(sum.high > sum.ref);
    CHECK(sum.high - sum.low < 2.1 * 15 * 0x1p-8 * 16 / 3 * 1.01 + 0x1p-4);
  }
}
