#include "harness/judge/matched_rows.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace assay;

namespace {

// Three tokens, two of three experts each.
const Sizes kSizes = {{.hidden_size = 2, .moe_intermediate_size = 1, .num_experts = 3, .top_k = 2}, 3};

FieldSet with_experts(const std::vector<std::int32_t>& selected) {
  FieldSet fields;
  fields.set(Field::selected_experts, Tensor(DType::Int32, expected_shape(Field::selected_experts, kSizes)));
  std::ranges::copy(selected, fields.at(Field::selected_experts).as<std::int32_t>().begin());
  return fields;
}

}  // namespace

TEST_SUITE("matched_rows") {
  TEST_CASE("slots of a token are matched by expert, whatever order it lists them in") {
    const FieldSet a = with_experts({2, 0, 0, 1, 1, 2});
    const FieldSet b = with_experts({0, 2, 0, 1, 2, 1});
    const MatchedRows matched(a, kSizes, b, kSizes, same_tokens(3));
    CHECK(*matched.rows(Field::hidden_states_unpermute) == RowNumbers{1, 0, 2, 3, 5, 4});
    CHECK(*matched.rows(Field::topk_weights) == RowNumbers{1, 0, 2, 3, 5, 4});
    CHECK(*matched.rows(Field::selected_experts) == RowNumbers{0, 1, 2});
    // Both sort the same (token, expert) pairs by expert and token.
    CHECK(*matched.rows(Field::first_gemm) == same_tokens(6));
  }

  TEST_CASE("a slot whose expert the other did not take has no row there") {
    const FieldSet a = with_experts({2, 0, 0, 1, 1, 2});
    const FieldSet b = with_experts({2, 1, 0, 1, 1, 2});
    const MatchedRows matched(a, kSizes, b, kSizes, same_tokens(3));
    CHECK(*matched.rows(Field::hidden_states_unpermute) == RowNumbers{0, -1, 2, 3, 4, 5});
    const auto rows = *matched.rows(Field::first_gemm);
    CHECK(std::ranges::count(rows, -1) == 1);
  }

  TEST_CASE("a run on other tokens is matched to those it repeats; sums over them are not") {
    const FieldSet a = with_experts({2, 0, 0, 1, 1, 2});
    const FieldSet b = with_experts({1, 2, 0, 1, 2, 0});
    const MatchedRows matched(a, kSizes, b, kSizes, {2, 1, 0});
    CHECK(*matched.rows(Field::hidden_states) == RowNumbers{2, 1, 0});
    CHECK(*matched.rows(Field::hidden_states_unpermute) == RowNumbers{4, 5, 2, 3, 0, 1});
    CHECK(matched.rows(Field::token_counts_by_expert));
    CHECK_FALSE(matched.rows(Field::d_down_proj));  // the same tokens' terms, added in another order
    CHECK(MatchedRows(a, kSizes, b, kSizes, same_tokens(3)).rows(Field::d_down_proj));
    CHECK_FALSE(matched.rows(Field::gather_indices));
    CHECK(matched.token_of(Field::hidden_states_unpermute, 3) == 1);
    const MatchedRows neighbour(a, kSizes, b, kSizes, {2, -1, 0});
    CHECK(*neighbour.rows(Field::hidden_states) == RowNumbers{2, -1, 0});
    CHECK_FALSE(neighbour.rows(Field::token_counts_by_expert));
    CHECK_FALSE(neighbour.rows(Field::d_gate));
  }

  TEST_CASE("rows in expert order follow gather_indices where it is written; broken ones tell nothing") {
    FieldSet a = with_experts({2, 0, 0, 1, 1, 2});
    FieldSet b = a;
    const auto gather = [](FieldSet& fields, const std::vector<std::int32_t>& slots) {
      fields.set(Field::gather_indices, Tensor(DType::Int32, {6}));
      std::ranges::copy(slots, fields.at(Field::gather_indices).as<std::int32_t>().begin());
    };
    gather(b, {2, 1, 3, 4, 0, 5});  // expert 0's rows in descending order
    const MatchedRows matched(a, kSizes, b, kSizes, same_tokens(3));
    CHECK(*matched.rows(Field::second_gemm) == RowNumbers{1, 0, 2, 3, 4, 5});
    gather(a, {7, 1, 3, 4, 0, 5});
    CHECK_FALSE(MatchedRows(a, kSizes, b, kSizes, same_tokens(3)).rows(Field::second_gemm));
  }

  TEST_CASE("one bit that differs is visited in both, and elements compared are counted") {
    Tensor a(DType::BFloat16, {3, 2});
    Tensor b(DType::BFloat16, {3, 2});
    for (std::size_t i = 0; i < 6; ++i) a.as<Bf16>()[i].bits = static_cast<std::uint16_t>(i);
    for (std::size_t i = 0; i < 6; ++i) b.as<Bf16>()[i].bits = static_cast<std::uint16_t>((i + 2) % 6);
    b.as<Bf16>()[3].bits ^= 0x8000;  // row 1 of b is row 2 of a
    std::vector<std::pair<std::int64_t, std::int64_t>> seen;
    const RowNumbers rows = {1, 2, -1};
    CHECK(visit_differences(a, b, rows, 2, [&](auto in_a, auto in_b) { seen.emplace_back(in_a, in_b); }) ==
          4);
    CHECK(seen == std::vector<std::pair<std::int64_t, std::int64_t>>{{5, 3}});
  }
}
