// Parts of a small problem: every element holds a number of its own.
#include "harness/contract/subproblem.h"

#include <algorithm>

#include <doctest/doctest.h>

using namespace assay;

namespace {

using Indices = std::vector<std::int64_t>;

/// T = 3, H = 4, I = 2, E = 4, K = 2; token t takes experts t and t + 1. Every element holds a number of its
/// own.
struct SmallProblem {
  Problem problem;
  FieldSet fields;
  std::vector<std::int32_t> selected = {1, 0, 1, 2, 2, 3};

  SmallProblem() {
    problem.config = {4, 2, 4, 2, true};
    problem.sequence = 3;
    const auto numbered = [](Shape shape, int first) {
      Tensor tensor(DType::BFloat16, std::move(shape));
      for (std::size_t i = 0; i < tensor.as<Bf16>().size(); ++i)
        tensor.as<Bf16>()[i] = Bf16{static_cast<std::uint16_t>(first + static_cast<int>(i))};
      return tensor;
    };
    problem.input = numbered({3, 4}, 100);
    problem.gate = numbered({4, 4}, 200);
    problem.experts = stored_experts(std::make_shared<Tensor>(numbered({4, 4, 4}, 1000)),
                                     std::make_shared<Tensor>(numbered({4, 4, 2}, 2000)));
    Tensor experts(DType::Int32, {3, 2});
    Tensor gather(DType::Int32, {6});
    Tensor counts(DType::Int32, {4});
    std::ranges::copy(selected, experts.as<std::int32_t>().begin());
    std::ranges::copy(Indices{1, 0, 2, 3, 4, 5},
                      gather.as<std::int32_t>().begin());  // expert 0, 1, 1, 2, 2, 3
    std::ranges::copy(Indices{1, 2, 2, 1}, counts.as<std::int32_t>().begin());
    fields.set(Field::selected_experts, experts);
    fields.set(Field::gather_indices, gather);
    fields.set(Field::token_counts_by_expert, counts);
    fields.set(Field::router_logits, numbered({3, 4}, 300));
    fields.set(Field::first_gemm, numbered({6, 4}, 400));
    fields.set(Field::hidden_states_unpermute, numbered({6, 4}, 500));
    problem.output_gradient = numbered({3, 4}, 600);
    fields.set(Field::d_first_gemm, numbered({6, 4}, 700));
    fields.set(Field::d_router_logits, numbered({3, 4}, 800));
    fields.set(Field::d_gate, numbered({4, 4}, 900));
    fields.set(Field::d_down_proj, numbered({4, 4, 2}, 3000));
    fields.set(Field::d_input_hidden_states, numbered({3, 4}, 4000));
  }
};

template <class T>
Indices bits(std::span<T> values) {
  Indices out;
  for (const auto& v : values) {
    if constexpr (std::is_same_v<std::remove_const_t<T>, Bf16>)
      out.push_back(v.bits);
    else
      out.push_back(static_cast<std::int64_t>(v));
  }
  return out;
}

}  // namespace

TEST_SUITE("subproblem") {
  TEST_CASE("kept tokens and experts keep their values, and slots, rows and experts are renumbered") {
    const SmallProblem s;
    Part part = whole(s.problem.sizes());
    part.tokens = {1, 2};
    part.experts = {1, 2, 3};
    const auto sub = subproblem(s.problem, part);
    CHECK(bits(sub.input.as<Bf16>()) == Indices{104, 105, 106, 107, 108, 109, 110, 111});
    CHECK(bits(sub.gate.as<Bf16>()).front() == 204);
    CHECK(sub.experts(Field::down_proj, 0).values[0].bits == 2008);
    const auto fields = subfields(s.fields, s.problem.sizes(), s.selected, part);
    REQUIRE(fields);
    CHECK(bits(fields->at(Field::selected_experts).as<std::int32_t>()) == Indices{0, 1, 1, 2});
    CHECK(bits(fields->at(Field::gather_indices).as<std::int32_t>()) == Indices{0, 1, 2, 3});
    CHECK(bits(fields->at(Field::token_counts_by_expert).as<std::int32_t>()) == Indices{1, 2, 1});
    CHECK(bits(fields->at(Field::router_logits).as<Bf16>()) == Indices{305, 306, 307, 309, 310, 311});
    CHECK(bits(fields->at(Field::first_gemm).as<Bf16>()).front() == 408);  // row 2: token 1 at expert 1
    CHECK(bits(fields->at(Field::hidden_states_unpermute).as<Bf16>()).front() == 508);  // slot 2
  }

  TEST_CASE("columns are cut in both halves of the first product and on both sides of the second") {
    const SmallProblem s;
    Part part = whole(s.problem.sizes());
    part.hidden = {1, 2};
    part.intermediate = {1, 1};
    const auto sub = subproblem(s.problem, part);
    CHECK(sub.config == MoeConfig{2, 1, 4, 2, true});
    CHECK(bits(sub.input.as<Bf16>()) == Indices{101, 102, 105, 106, 109, 110});
    // Expert 1's gate_up rows are 1016.. of four each; gate row 1 and up row 1 (of the second half) stay,
    // columns 1 and 2.
    CHECK(bits(sub.experts(Field::gate_up_proj, 1).values) == Indices{1021, 1022, 1029, 1030});
    CHECK(bits(sub.experts(Field::down_proj, 1).values) == Indices{2011, 2013});
    CHECK_FALSE(subfields(s.fields, s.problem.sizes(), s.selected, part));
  }

  TEST_CASE("gradients are cut with their rows, and left out where they sum over what was dropped") {
    SmallProblem s;
    Part part = whole(s.problem.sizes());
    part.tokens = {1, 2};
    part.experts = {1, 2, 3};
    CHECK(bits(subproblem(s.problem, part).output_gradient.as<Bf16>()).front() == 604);
    auto fields = subfields(s.fields, s.problem.sizes(), s.selected, part);
    REQUIRE(fields);
    CHECK(bits(fields->at(Field::d_first_gemm).as<Bf16>()).front() == 708);
    // A softmax's gradient is a sum over all experts, and so is what is made of it.
    for (const Field sum :
         {Field::d_router_logits, Field::d_gate, Field::d_down_proj, Field::d_input_hidden_states})
      CHECK_FALSE(fields->has(sum));
    // Nobody chose expert 3 any more: dropped, it takes its matrix with it.
    std::ranges::copy(Indices{1, 0, 1, 2, 2, 0}, s.selected.begin());
    std::ranges::copy(s.selected, s.fields.at(Field::selected_experts).as<std::int32_t>().begin());
    part = whole(s.problem.sizes());
    part.experts = {0, 1, 2};
    fields = subfields(s.fields, s.problem.sizes(), s.selected, part);
    REQUIRE(fields);
    CHECK(fields->at(Field::d_down_proj).shape() == Shape{3, 4, 2});
    CHECK(bits(fields->at(Field::d_down_proj).as<Bf16>()).back() == 3023);
    for (const Field sum : {Field::d_router_logits, Field::d_gate, Field::d_input_hidden_states})
      CHECK_FALSE(fields->has(sum));
    part.experts = {0, 1, 2, 3};
    fields = subfields(s.fields, s.problem.sizes(), s.selected, part);
    REQUIRE(fields);
    CHECK(bits(fields->at(Field::d_input_hidden_states).as<Bf16>()).back() == 4011);
  }

  TEST_CASE("an expert in the middle takes its own matrix out of a gradient") {
    SmallProblem s;
    std::ranges::copy(Indices{0, 2, 0, 2, 2, 3}, s.selected.begin());
    std::ranges::copy(s.selected, s.fields.at(Field::selected_experts).as<std::int32_t>().begin());
    Part part = whole(s.problem.sizes());
    part.experts = {0, 2, 3};
    const auto fields = subfields(s.fields, s.problem.sizes(), s.selected, part);
    REQUIRE(fields);
    Indices kept;
    for (std::int64_t i = 0; i < 32; ++i)
      if (i / 8 != 1) kept.push_back(3000 + i);
    CHECK(bits(fields->at(Field::d_down_proj).as<Bf16>()) == kept);
  }

  TEST_CASE("a kept token's expert cannot be dropped, and a wrong count stays as wrong") {
    SmallProblem s;
    Part part = whole(s.problem.sizes());
    part.experts = {0, 1, 2};
    CHECK_FALSE(subfields(s.fields, s.problem.sizes(), s.selected, part));
    part = whole(s.problem.sizes());
    part.tokens = {0};
    s.fields.at(Field::token_counts_by_expert).as<std::int32_t>()[2] += 5;
    const auto fields = subfields(s.fields, s.problem.sizes(), s.selected, part);
    CHECK(bits(fields->at(Field::token_counts_by_expert).as<std::int32_t>()) == Indices{1, 1, 5, 0});
  }

  TEST_CASE("a row that reads a dropped token cannot be cut out") {
    SmallProblem s;
    s.fields.at(Field::gather_indices).as<std::int32_t>()[0] = 5;  // token 0's row reads token 2
    Part part = whole(s.problem.sizes());
    part.tokens = {0, 1};
    CHECK_FALSE(subfields(s.fields, s.problem.sizes(), s.selected, part));
  }

  TEST_CASE("gradients of before are cut as the weights are, in either type") {
    SmallProblem s;
    Tensor gate(DType::Float32, {4, 4});
    Tensor gate_up(DType::BFloat16, {4, 4, 4});
    Tensor down(DType::Float32, {4, 4, 2});
    for (std::size_t i = 0; i < 16; ++i) gate.as<float>()[i] = static_cast<float>(i);
    for (std::size_t i = 0; i < 64; ++i) gate_up.as<Bf16>()[i].bits = static_cast<std::uint16_t>(i);
    for (std::size_t i = 0; i < 32; ++i) down.as<float>()[i] = static_cast<float>(i);
    s.problem.previous.set(Field::d_gate, std::move(gate));
    s.problem.previous.set(Field::d_gate_up_proj, std::move(gate_up));
    s.problem.previous.set(Field::d_down_proj, std::move(down));
    Part part = whole(s.problem.sizes());
    part.experts = {1, 3};
    part.hidden = {1, 2};
    part.intermediate = {1, 1};
    const FieldSet cut = subproblem(s.problem, part).previous;
    CHECK(bits(cut.at(Field::d_gate).as<float>()) == Indices{5, 6, 13, 14});
    // Of [E, 2I, H] the gate row 1 and the up row 2 + 1; of [E, H, I] rows 1 and 2, column 1.
    CHECK(bits(cut.at(Field::d_gate_up_proj).as<Bf16>()) == Indices{21, 22, 29, 30, 53, 54, 61, 62});
    CHECK(bits(cut.at(Field::d_down_proj).as<float>()) == Indices{11, 13, 27, 29});
    CHECK(cut.at(Field::d_gate_up_proj).shape() == Shape{2, 2, 2});
  }
}
