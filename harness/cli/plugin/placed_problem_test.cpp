#include "harness/cli/plugin/placed_problem.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "harness/cli/plugin/child_rooms.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

constexpr std::int64_t kGuard = 4096;
const std::vector<PlacedField> kResults = {{Field::hidden_states, DType::BFloat16}};
const std::vector<PlacedField> kGradients = {{Field::d_gate, DType::BFloat16},
                                             {Field::d_down_proj, DType::Float32}};

Tensor counted(const Shape& shape, int from) {
  Tensor tensor(DType::BFloat16, shape);
  for (Bf16& x : tensor.as<Bf16>()) x = round_to_bf16(static_cast<float>(from++));
  return tensor;
}

/// Two tokens, three experts, and gradients of before for two of three weights.
Problem problem() {
  Problem problem;
  problem.config = {.hidden_size = 4, .moe_intermediate_size = 2, .num_experts = 3, .top_k = 1};
  problem.sequence = 2;
  problem.input = counted({2, 4}, 1);
  problem.output_gradient = counted({2, 4}, 11);
  problem.gate = counted({3, 4}, 21);
  problem.experts = stored_experts(std::make_shared<Tensor>(counted({3, 4, 4}, 41)),
                                   std::make_shared<Tensor>(counted({3, 4, 2}, 91)));
  problem.previous.set(Field::d_gate, counted({3, 4}, 121));
  problem.previous.set(Field::d_down_proj, counted({3, 4, 2}, 141));
  return problem;
}

/// As the child maps it, in this process.
ChildRooms mapped(const PlacedProblem& placed) {
  return ChildRooms(placed.request(wire::Kind::Place), ::dup(placed.problem_descriptor()),
                    ::dup(placed.results_descriptor()), nullptr);
}

}  // namespace

TEST_SUITE("placed_problem") {
  TEST_CASE(
      "the child finds inputs, the output's gradient and gradients of before, in the gradients' types") {
    const PlacedProblem placed(problem(), kResults, kGradients, kGuard, 1);
    const ChildRooms rooms = mapped(placed);
    const auto bits = [&](Field field, wire::Role role, std::size_t i) {
      return Bf16{static_cast<const std::uint16_t*>(rooms.payload(field, role))[i]};
    };
    CHECK(to_float(bits(Field::input_hidden_states, wire::Role::Input, 7)) == 8.0f);
    CHECK(to_float(bits(Field::d_hidden_states, wire::Role::Input, 7)) == 18.0f);
    CHECK(to_float(bits(Field::d_gate, wire::Role::Previous, 11)) == 132.0f);
    CHECK(static_cast<const float*>(rooms.payload(Field::d_down_proj, wire::Role::Previous))[23] == 164.0f);
    CHECK(rooms.payload(Field::d_gate_up_proj, wire::Role::Previous) == nullptr);
    CHECK(rooms.gradient_dtype(Field::d_down_proj) == DType::Float32);
    CHECK(rooms.gradient_dtype(Field::d_gate) == DType::BFloat16);
    CHECK_FALSE(rooms.gradient_dtype(Field::d_input_hidden_states));
  }

  TEST_CASE("forward alone has neither the output's gradient nor gradients of before") {
    const PlacedProblem placed(problem(), kResults, {}, kGuard, 1);
    const ChildRooms rooms = mapped(placed);
    CHECK(rooms.payload(Field::gate, wire::Role::Input) != nullptr);
    CHECK(rooms.payload(Field::d_hidden_states, wire::Role::Input) == nullptr);
    CHECK(rooms.payload(Field::d_gate, wire::Role::Previous) == nullptr);
    CHECK(rooms.payload(Field::d_gate, wire::Role::Gradient) == nullptr);
  }

  TEST_CASE("before backward gradients are poison again, and results are as forward left them") {
    const Problem given = problem();
    PlacedProblem placed(given, kResults, kGradients, kGuard, 1);
    placed.prepare(given.input.as<Bf16>(), given.output_gradient.as<Bf16>());
    const ChildRooms rooms = mapped(placed);
    static_cast<std::uint16_t*>(rooms.payload(Field::hidden_states, wire::Role::Result))[3] = 0x3f80;
    static_cast<float*>(rooms.payload(Field::d_down_proj, wire::Role::Gradient))[5] = 2.0f;
    CHECK(placed.gradients().at(Field::d_down_proj).as<float>()[5] == 2.0f);
    placed.prepare_gradients();
    const FieldSet gradients = placed.gradients();
    for (const float x : gradients.at(Field::d_down_proj).as<float>()) CHECK(x != x);
    CHECK_FALSE(gradients.has(Field::hidden_states));
    CHECK(placed.results().at(Field::hidden_states).as<Bf16>()[3].bits == 0x3f80);
    CHECK(placed.broken_results_guard().empty());
    static_cast<float*>(rooms.payload(Field::d_down_proj, wire::Role::Gradient))[24] = 2.0f;
    CHECK(
        placed.broken_results_guard().starts_with("expected the memory behind d_down_proj to be left alone"));
    CHECK(placed.changed_input(nullptr).empty());
  }

  TEST_CASE("a gradient of before in float32 is no bf16") {
    Problem wide = problem();
    wide.previous.set(Field::d_gate, Tensor(DType::Float32, {3, 4}));
    CHECK_THROWS_WITH_AS(
        PlacedProblem(wide, kResults, kGradients, kGuard, 1),
        "expected d_gate of before in bfloat16, in which the plugin keeps the gradient, found "
        "float32",
        InputError);
  }
}

}  // namespace assay::cli
