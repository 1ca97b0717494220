// The plain forward pass: numbers by hand, roundings, routing, and parts of a problem.
#include <doctest/doctest.h>

#include <cmath>

#include "harness/contract/error.h"
#include "harness/contract/subproblem.h"
#include "reference_cpu/eigen/plain_problem.h"
#include "reference_cpu/eigen/worked_example.h"

using namespace assay;
using namespace assay::plain;

TEST_SUITE("eigen-forward") {
  TEST_CASE("one token, two experts: every field by hand, under every contract") {
    const PlainProblem example = worked_example();
    for (const auto& contract : kContracts) {
      const auto result = forward(example.problem, contract);
      const auto& of = result.grouped;
      CHECK(result.router_logits == Matrix{{1, 1}});
      CHECK(result.selected_experts == IndexMatrix{{0, 1}});
      CHECK(of.token_counts_by_expert == IndexVector{{1, 1}});
      CHECK(of.gather_indices == IndexVector{{0, 1}});
      CHECK(of.topk_weights == Matrix{{0.5, 0.5}});
      CHECK(of.first_gemm == Matrix{{64, 2}, {0, 4}});
      CHECK(of.intermediate == Matrix{{128}, {0}});
      CHECK(of.second_gemm == Matrix{{64, 128}, {0, 0}});
      CHECK(of.hidden_states_unpermute == of.second_gemm);
      CHECK(of.hidden_states == Matrix{{32, 64}});
    }
  }

  TEST_CASE("tokens keep their order within an expert, and indices are flat slots") {
    const auto order = get_token_counts_and_gather_indices(IndexMatrix{{2, 0}, {0, 3}, {2, 0}}, 4);
    CHECK(order.counts == IndexVector{{3, 0, 2, 1}});
    CHECK(order.gather_indices == IndexVector{{1, 2, 5, 0, 4, 3}});
    CHECK(rows_of(order.counts, 2).begin == 3);
    CHECK(rows_of(order.counts, 2).count == 2);
  }

  TEST_CASE("the largest come first, the lowest index among equals, NaN before everything") {
    CHECK(largest(Matrix{{1, 3, 3, 2, 3}}, 3) == IndexMatrix{{1, 2, 4}});
    CHECK(largest(Matrix{{1, 2, std::nan("")}}, 2) == IndexMatrix{{2, 1}});
  }

  TEST_CASE("weights are shares of all experts, or of the chosen ones") {
    const Matrix logits{{std::log(1.0), std::log(2.0), std::log(5.0)}};
    const auto& fp64 = find_contract("fp64");
    const Matrix of_all = weights_of(logits, IndexMatrix{{2, 1}}, false, fp64);
    CHECK(of_all(0, 0) == doctest::Approx(0.625));
    CHECK(of_all(0, 1) == doctest::Approx(0.25));
    const Matrix of_chosen = weights_of(logits, IndexMatrix{{2, 1}}, true, fp64);
    CHECK(of_chosen(0, 0) == doctest::Approx(5.0 / 7.0));
    CHECK(of_chosen.sum() == doctest::Approx(1.0));
  }

  TEST_CASE("logits far apart and NaN stay what they are") {
    const Matrix p = softmax(Matrix{{0, -1000}});
    CHECK(p == Matrix{{1, 0}});
    CHECK(softmax(Matrix{{0, std::nan("")}}).array().isNaN().all());
  }

  TEST_CASE("silu is rounded before the product where the contract says so") {
    const Matrix first{{1, 9}};
    const double silu = 1.0 / (1.0 + std::exp(-1.0));
    CHECK(act_and_mul(first, find_contract("fp64"))(0, 0) == silu * 9.0);
    const double once = to_float(round_to_bf16(silu * 9.0));
    const double twice = to_float(round_to_bf16(to_float(round_to_bf16(silu)) * 9.0));
    REQUIRE(once != twice);
    CHECK(act_and_mul(first, find_contract("fused_fp32"))(0, 0) == once);
    CHECK(act_and_mul(first, find_contract("hf"))(0, 0) == twice);
  }

  TEST_CASE("in fp32 silu of a large number is the number itself, and a tie of rounding goes to even") {
    // 21 * 1.875 = 39.375 lies halfway between 39.25 and 39.5; less a billionth of it, below.
    const Matrix first{{21, 1.875}};
    CHECK(act_and_mul(first, find_contract("fused_fp32"))(0, 0) == 39.5);
    CHECK(act_and_mul(first, find_contract("fp64"))(0, 0) < 39.375);
    CHECK(sigmoid(Matrix{{-INFINITY, INFINITY}}, find_contract("hf")) == Matrix{{0, 1}});
  }

  TEST_CASE("slots are summed once, or by bf16 additions in order of their experts") {
    // 1 + 2^-8 is a tie and goes to 1, twice; 2^-8 + 2^-8 is 2^-7, which 1 takes.
    const Matrix slots{{1}, {0x1p-8}, {0x1p-8}};
    const IndexVector experts{{4, 7, 9}};
    const IndexVector last{{9, 4, 7}};
    const auto sum = [&](const IndexVector& order, SlotSum how) {
      return rounded(sum_of_slots(slots, order, how), Store::Bf16)(0, 0);
    };
    CHECK(sum(experts, SlotSum::Exact) == 1 + 0x1p-7);
    CHECK(sum(experts, SlotSum::Bf16Ascending) == 1);
    CHECK(sum(experts, SlotSum::Bf16Descending) == 1 + 0x1p-7);
    CHECK(sum(last, SlotSum::Bf16Ascending) == 1 + 0x1p-7);
    const Matrix weights{{1, 1, 1}};
    CHECK(merge(slots, weights, experts.transpose(), find_contract("hf"))(0, 0) == 1 + 0x1p-7);
    CHECK(merge(slots, weights, experts.transpose(), find_contract("hf_eager"))(0, 0) == 1);
  }

  TEST_CASE("hf rounds weight times row, hf_fp32_merge does not") {
    const Matrix slots{{1 + 0x1p-7}, {-1 - 0x1p-6}};
    const Matrix weights{{1 + 0x1p-7, 1}};
    const IndexMatrix experts{{0, 1}};
    CHECK(merge(slots, weights, experts, find_contract("hf"))(0, 0) == 0);
    CHECK(merge(slots, weights, experts, find_contract("hf_fp32_merge"))(0, 0) == 0x1p-14);
  }

  TEST_CASE("routing is replayed when given, and refused when it names no expert") {
    const auto p = eighths({5, 3, 4, 2, true}, 3, 1);
    const auto& hf = find_contract("hf");
    const IndexMatrix routing{{3, 0}, {1, 2}, {0, 1}};
    const auto result = forward(p.problem, hf, routing);
    CHECK(result.selected_experts == routing);
    CHECK(result.grouped.token_counts_by_expert == IndexVector{{2, 2, 1, 1}});
    CHECK_THROWS_AS(forward(p.problem, hf, IndexMatrix{{3, 0}, {1, 4}, {0, 1}}), InputError);
    CHECK_THROWS_AS(forward(p.problem, hf, IndexMatrix{{3, 0}}), InputError);
  }

  TEST_CASE("an expert that cannot be loaded is an error, from whichever thread") {
    auto p = eighths({5, 3, 4, 2, true}, 9, 1);
    p.problem.experts = [](Field, std::int64_t) -> ExpertMatrix { throw InputError("no such expert"); };
    CHECK_THROWS_AS(forward(p.problem, find_contract("hf")), InputError);
  }

  TEST_CASE("no tokens: fields without rows, counts of zero") {
    const auto p = eighths({5, 3, 4, 2, true}, 0, 1);
    const auto result = forward(p.problem, find_contract("hf"));
    CHECK(result.grouped.hidden_states.rows() == 0);
    CHECK(result.grouped.token_counts_by_expert == IndexVector{{0, 0, 0, 0}});
  }

  TEST_CASE("some tokens' rows are those of the problem cut to them") {
    const auto p = eighths({40, 24, 6, 2, false}, 17, 2);
    const auto& fp64 = find_contract("fp64");
    const auto all = forward(p.problem, fp64);
    Part part = whole(p.problem.sizes());
    part.tokens = {3, 4, 11};
    const auto some = forward(subproblem(p.problem, part), fp64);
    CHECK(some.selected_experts == all.selected_experts(part.tokens, Eigen::all));
    const Matrix expected = all.grouped.hidden_states(part.tokens, Eigen::all);
    CHECK((some.grouped.hidden_states - expected).norm() <= 0x1p-45 * expected.norm());
  }
}
