// Stages by hand: expf and silu, sums by 32 lanes, torch's top-k order, the order of rows, the merge.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "reference_cpu/expf_sm90.h"
#include "reference_cpu/product/split_search.h"
#include "reference_cpu/stages.h"
#include "reference_cpu/topk_torch.h"
#include "reference_cpu/warp_sum.h"

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

TEST_SUITE("permute") {
  TEST_CASE("tokens keep their order within an expert, and indices are flat slots") {
    const MoeConfig config{8, 8, 4, 2, true};
    const auto routing = get_token_counts_and_gather_indices(config, {2, 0, 0, 3, 2, 0});
    CHECK(routing.counts == std::vector<std::int32_t>{3, 0, 2, 1});
    CHECK(routing.offsets == std::vector<std::int64_t>{0, 3, 3, 5, 6});
    CHECK(routing.gather == std::vector<std::int32_t>{1, 2, 5, 0, 4, 3});
  }
}

namespace {

/// One token, two experts, H = 1: everything can be written down.
struct SmallLayer {
  Problem problem;
  Layer layer;
  explicit SmallLayer(std::string_view contract) {
    problem.config = {1, 1, 2, 2, true};
    problem.sequence = 1;
    layer.problem = &problem;
    layer.contract = &find_contract(contract);
    layer.routing = get_token_counts_and_gather_indices(problem.config, {1, 0});
  }
};

}  // namespace

TEST_SUITE("merge") {
  TEST_CASE(
      "hf rounds weight times value, sums in fp32 and rounds once; eager adds in bf16 by ascending expert") {
    // Slot 0 is expert 1, slot 1 is expert 0. 1 * 1 and 2^-9 * 1: their sum is a tie in bf16 and rounds to
    // even, 1.
    const Values<Predicted> rows = {{1.0f, false}, {0x1.8p-8f, false}},
                            weights = {{1.0f, false}, {1.0f, false}};
    const SmallLayer hf("hf"), eager("hf_eager");
    CHECK(merge<Predicted>(hf.layer, rows, weights)[0].value == 1.0f + 0x1.8p-8f);
    CHECK(merge<Predicted>(eager.layer, rows, weights)[0].value ==
          1.0f + 0x1.8p-8f);  // the last rounding is the field's store
  }

  TEST_CASE("hf_fp32_merge keeps weight times value in fp32, which hf rounds") {
    const Values<Predicted> rows = {{1.0f + 0x1p-7f, false}, {0.0f, false}},
                            weights = {{1.0f + 0x1p-7f, false}, {1.0f, false}};
    CHECK(merge<Predicted>(SmallLayer("hf").layer, rows, weights)[0].value == 1.0f + 0x1p-6f);
    CHECK(merge<Predicted>(SmallLayer("hf_fp32_merge").layer, rows, weights)[0].value ==
          1.0f + 0x1p-6f + 0x1p-14f);
  }

  TEST_CASE(
      "eight slots are four interleaved sums: the element of an H200 run that no other order explains") {
    SmallLayer small("hf");
    small.problem.config = {1, 1, 8, 8, true};
    small.layer.routing = get_token_counts_and_gather_indices(small.problem.config, {0, 1, 2, 3, 4, 5, 6, 7});
    Values<Predicted> rows, weights(8, {1.0f, false});
    for (const float x : {0x1.06p-6f, 0x1.5ep-28f, 0x1.7ep-5f, -0x1.6ep-6f, 0x1.32p-5f, -0x1.2cp-7f,
                          -0x1.92p-7f, -0x1.fep-7f})
      rows.push_back({x, false});
    CHECK(round_to_bf16(merge<Predicted>(small.layer, rows, weights)[0].value).bits == 0x3d26);
    float ascending = 0.0f;
    for (const auto& row : rows) ascending += row.value;
    CHECK(round_to_bf16(ascending).bits == 0x3d27);
  }

  TEST_CASE("eager's merge of exact rows has an interval without width") {
    const Values<Bounded> rows = {{1.5, 1.5, 1.5}, {0x1.8p-8, 0x1.8p-8, 0x1.8p-8}},
                          weights = {{0.75, 0.75, 0.75}, {0.25, 0.25, 0.25}};
    const auto out = merge<Bounded>(SmallLayer("hf_eager").layer, rows, weights);
    CHECK(out[0].low == out[0].high);
    CHECK(out[0].ref == 1.125 + 0x1.8p-10);
  }
}

TEST_SUITE("swiglu") {
  TEST_CASE("silu is rounded before the product under hf and kept in fp32 under fused_fp32") {
    const Values<Predicted> first = {{1.0f, false}, {3.0f, false}, {-2.0f, false}, {5.0f, false}};
    const float silu = 1.0f / (1.0f + expf_sm90(-1.0f).value);
    CHECK(act_and_mul<Predicted>(SmallLayer("hf").layer, first)[0].value ==
          to_float(round_to_bf16(silu)) * 3.0f);
    CHECK(act_and_mul<Predicted>(SmallLayer("fused_fp32").layer, first)[0].value == silu * 3.0f);
  }

  TEST_CASE("the interval of silu holds the GPU's value on every finite bf16 input") {
    SmallLayer small("fused_fp32");
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
      const Bf16 x{static_cast<std::uint16_t>(bits)};
      if (!is_finite(x)) continue;
      const double a = to_float(x);
      const Values<Bounded> bounded = {{a, a, a}, {1, 1, 1}, {a, a, a}, {1, 1, 1}};
      const Values<Predicted> predicted = {
          {to_float(x), false}, {1, false}, {to_float(x), false}, {1, false}};
      const auto accepted = act_and_mul<Bounded>(small.layer, bounded)[0];
      const auto got = act_and_mul<Predicted>(small.layer, predicted)[0];
      const bool inside = accepted.low <= got.value && got.value <= accepted.high;
      CHECK_MESSAGE(inside, a);
    }
  }
}

TEST_SUITE("splits") {
  TEST_CASE("the candidates hold the splits seen of cuBLAS") {
    const auto of4096 = candidate_splits(4096);
    CHECK(std::ranges::find(of4096, std::vector<std::int64_t>{2048, 2048}) != of4096.end());
    CHECK(std::ranges::find(of4096, std::vector<std::int64_t>{1408, 1408, 1280}) != of4096.end());
    for (const auto& split : of4096)
      CHECK(std::accumulate(split.begin(), split.end(), std::int64_t{0}) == 4096);
  }
}
