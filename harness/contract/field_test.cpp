#include "harness/contract/field.h"

#include <algorithm>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include "harness/contract/error.h"
#include "harness/contract/field_set.h"

using namespace assay;

namespace {

constexpr Sizes kSizes{{64, 32, 8, 2, true}, 5};

}  // namespace

TEST_SUITE("field") {
  TEST_CASE("names are unique, found, and nothing else is") {
    std::set<std::string_view> names;
    for (const auto& row : kFields) {
      CHECK(names.insert(row.name).second);
      CHECK(find_field(row.name) == row.id);
    }
    CHECK(names.size() == kFieldCount);
    CHECK(!find_field(""));
    CHECK(!find_field("Gate"));
    CHECK(!find_field("gate_"));
  }

  TEST_CASE("rows are in the order of the stages, inputs and weights first") {
    for (std::size_t i = 1; i < kFieldCount; ++i) CHECK(kFields[i - 1].stage <= kFields[i].stage);
  }

  TEST_CASE("a group holds what its name says") {
    for (const auto& row : kFields) {
      CAPTURE(row.name);
      CHECK((row.group == Group::Inputs) == (row.stage == Stage::Input));
      CHECK((row.group == Group::Weights) == (row.stage == Stage::Weight));
      CHECK((row.group == Group::Backward) == (row.stage >= Stage::MergeGrad));
      CHECK((row.match == Match::Given) == (row.stage <= Stage::Weight));
      CHECK(row.name.starts_with("d_") == (row.group == Group::Backward || row.id == Field::d_hidden_states));
    }
  }

  TEST_CASE("shapes have no hole and at most 3 axes, integers are indices and counts only") {
    for (const auto& row : kFields) {
      CAPTURE(row.name);
      CHECK(row.shape[0] != Dim::None);
      CHECK((row.shape[1] != Dim::None || row.shape[2] == Dim::None));
      CHECK((row.dtype == DType::Int32) ==
            (row.match == Match::Selection ||
             (row.match == Match::Exact && row.id != Field::hidden_states_unpermute)));
      CHECK(row.dtype != DType::Float64);
    }
  }

  TEST_CASE("shapes of a problem are the symbols' extents") {
    CHECK(expected_shape(Field::input_hidden_states, kSizes) == Shape{5, 64});
    CHECK(expected_shape(Field::gate_up_proj, kSizes) == Shape{8, 64, 64});
    CHECK(expected_shape(Field::down_proj, kSizes) == Shape{8, 64, 32});
    CHECK(expected_shape(Field::router_logits, kSizes) == Shape{5, 8});
    CHECK(expected_shape(Field::selected_experts, kSizes) == Shape{5, 2});
    CHECK(expected_shape(Field::token_counts_by_expert, kSizes) == Shape{8});
    CHECK(expected_shape(Field::gather_indices, kSizes) == Shape{10});
    CHECK(expected_shape(Field::first_gemm, kSizes) == Shape{10, 64});
    CHECK(expected_shape(Field::intermediate, kSizes) == Shape{10, 32});
    CHECK(expected_shape(Field::d_gate, kSizes) == Shape{8, 64});
    CHECK(expected_shape(Field::hidden_states, {kSizes.config, 0}) == Shape{0, 64});
  }

  TEST_CASE("rows and columns of any rank; experts' matrices come in blocks of whole ones") {
    CHECK(rows_of(Field::token_counts_by_expert, kSizes) == 8);
    CHECK(width_of(Field::token_counts_by_expert, kSizes) == 1);
    CHECK(rows_of(Field::hidden_states_unpermute, kSizes) == 10);
    CHECK(rows_of(Field::d_gate_up_proj, kSizes) == 8 * 64);
    CHECK(width_of(Field::d_down_proj, kSizes) == 32);
    for (const auto& row : kFields) {
      std::int64_t next = 0;
      for (const RowRange block : blocks_of(row.id, kSizes)) {
        CHECK(block.begin == next);
        next = block.end;
      }
      CHECK(next == rows_of(row.id, kSizes));
    }
    const Sizes qwen{{2048, 768, 128, 8, true}, 4};
    CHECK(blocks_of(Field::first_gemm, qwen).size() == 1);
    CHECK(blocks_of(Field::d_gate_up_proj, qwen).size() == 128);  // 3 million elements each
    CHECK(blocks_of(Field::d_gate_up_proj, qwen)[1] == RowRange{1536, 3072});
  }

  TEST_CASE("a gradient has the shape of what it is the gradient of") {
    for (const auto& row : kFields) {
      if (!row.name.starts_with("d_")) continue;
      auto of = find_field(row.name.substr(2));
      if (row.id == Field::d_permuted_hidden_states) of = Field::second_gemm;
      if (row.id == Field::d_experts_hidden_states) of = Field::input_hidden_states;
      CAPTURE(row.name);
      REQUIRE(of.has_value());
      CHECK(expected_shape(row.id, kSizes) == expected_shape(*of, kSizes));
    }
  }

  TEST_CASE("every stage has a name that finds it, and computes something") {
    std::set<std::string_view> names;
    for (int stage = 0; stage <= static_cast<int>(Stage::InputGrad); ++stage) {
      const auto id = static_cast<Stage>(stage);
      CHECK(names.insert(name(id)).second);
      CHECK(find_stage(name(id)) == id);
      CHECK(std::ranges::any_of(kFields, [&](const FieldRow& row) { return row.stage == id; }));
    }
    CHECK(!find_stage("router"));
  }

  TEST_CASE("words for groups, kinds of match and axes") {
    CHECK(name(Group::Inputs) == "inputs");
    CHECK(name(Group::Backward) == "backward");
    CHECK(name(Match::Selection) == "selection");
    CHECK(symbol(Dim::TwoI) == "2I");
    CHECK(axis_name(Field::topk_weights, 0) == "token");
    CHECK(axis_name(Field::topk_weights, 1) == "slot");
    CHECK(axis_name(Field::router_logits, 1) == "expert");
    CHECK(axis_name(Field::first_gemm, 0) == "row");
    CHECK(axis_name(Field::d_down_proj, 0) == "expert");
    CHECK(axis_name(Field::d_down_proj, 1) == "row");
    CHECK(axis_name(Field::d_down_proj, 2) == "col");
  }

  TEST_CASE("an absent field is told by name") {
    FieldSet fields;
    CHECK(!fields.has(Field::first_gemm));
    CHECK_THROWS_WITH_AS(fields.at(Field::first_gemm), "field first_gemm is not materialised", InputError);
    fields.set(Field::first_gemm, Tensor(DType::BFloat16, {2, 3}));
    CHECK(fields.has(Field::first_gemm));
    CHECK(fields.at(Field::first_gemm).size() == 6);
    fields.erase(Field::first_gemm);
    CHECK(!fields.has(Field::first_gemm));
  }
}
