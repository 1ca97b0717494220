#include "harness/contract/layer.h"

#include <algorithm>

#include <doctest/doctest.h>

using namespace assay;

namespace {

std::size_t position(Field field) {
  return static_cast<std::size_t>(std::ranges::find(kEvaluationOrder, field) - kEvaluationOrder.begin());
}

std::vector<Field> list(std::span<const Field> fields) { return {fields.begin(), fields.end()}; }

}  // namespace

TEST_SUITE("layer") {
  TEST_CASE("every computed field is evaluated once, after all that it reads") {
    for (const FieldRow& field : kFields)
      CHECK(std::ranges::count(kEvaluationOrder, field.id) == (given(field.id) ? 0 : 1));
    for (const StepRow& step : kSteps)
      for (const auto& read : step.reads)
        if (read && !given(*read)) CHECK(position(*read) < position(step.made));
  }

  TEST_CASE("what a stage inherits from: values that are computed, not routing and not what is given") {
    CHECK(list(upstream_of(Field::router_logits)).empty());
    CHECK(list(upstream_of(Field::first_gemm)).empty());
    CHECK(list(upstream_of(Field::topk_weights)) == std::vector{Field::router_logits});
    CHECK(list(upstream_of(Field::hidden_states)) ==
          std::vector{Field::hidden_states_unpermute, Field::topk_weights});
    CHECK(list(upstream_of(Field::d_first_gemm)) == std::vector{Field::d_intermediate, Field::first_gemm});
    CHECK(list(upstream_of(Field::d_gate)) == std::vector{Field::d_router_logits});
  }

  TEST_CASE("who descends from whom follows the graph, not the order of the table") {
    CHECK(descends_from(Field::hidden_states, Field::router_logits));
    CHECK(descends_from(Field::second_gemm, Field::first_gemm));
    CHECK_FALSE(descends_from(Field::first_gemm, Field::router_logits) !=
                descends_from(Field::gather_indices, Field::router_logits));
    CHECK_FALSE(descends_from(Field::intermediate, Field::topk_weights));  // though it stands behind it
    CHECK_FALSE(descends_from(Field::d_topk_weights, Field::d_second_gemm));
    CHECK_FALSE(descends_from(Field::d_router_logits, Field::d_gate_up_proj));
    CHECK(descends_from(Field::d_gate, Field::second_gemm));
    CHECK(descends_from(Field::d_input_hidden_states, Field::d_router_logits));
    CHECK_FALSE(descends_from(Field::router_logits, Field::router_logits));
  }

  TEST_CASE("products belong to their fields, and their rows name both operands") {
    CHECK(product_of(Field::router_logits) == ProductId::router);
    CHECK(product_of(Field::d_down_proj) == ProductId::down_dw);
    CHECK_FALSE(product_of(Field::d_input_hidden_states));  // a product is a part of it
    CHECK_FALSE(product_of(Field::intermediate));
    CHECK(find_product("gate_up_dw") == ProductId::gate_up_dw);
    CHECK_FALSE(find_product("gate"));
    for (const ProductRow& product : kProducts)  // sums over rows read both operands along them
      if (product.summed == Dim::S) {
        CHECK(product.left_lies == Lies::AlongRows);
        CHECK(product.right_lies == Lies::AlongRows);
        CHECK(row(product.made).rows == RowsAre::ExpertMatrix);
      }
  }

  TEST_CASE("a contract's member says how a computed field is kept; what is given is bf16") {
    for (const FieldRow& field : kFields) {
      CAPTURE(field.name);
      const bool rounded = given(field.id) || field.dtype == DType::Int32;
      CHECK(store_of(field.id, find_contract("hf")) == Store::Bf16);
      CHECK(store_of(field.id, find_contract("fp64")) == (rounded ? Store::Bf16 : Store::Unrounded));
      CHECK((store_of(field.id, find_contract("fused_fp32")) == Store::Unrounded) ==
            (field.id == Field::d_second_gemm || field.id == Field::d_intermediate));
    }
    PrecisionContract main_gradients = find_contract("hf");
    main_gradients.weight_gradients = Store::Unrounded;
    for (const FieldRow& field : kFields)
      CHECK((store_of(field.id, main_gradients) == Store::Unrounded) ==
            ((field.rows == RowsAre::ExpertMatrix && !given(field.id)) || field.id == Field::d_gate));
  }

  TEST_CASE("with the weight after the product, gradients of down read the output's and what is recomputed") {
    const PrecisionContract& fused = find_contract("fused_fp32");
    CHECK(list(upstream_of(Field::d_topk_weights, fused)) ==
          std::vector{Field::d_intermediate, Field::first_gemm});
    CHECK(list(upstream_of(Field::d_down_proj, fused)) ==
          std::vector{Field::topk_weights, Field::first_gemm});
    CHECK(list(upstream_of(Field::d_intermediate, fused)) == std::vector{Field::topk_weights});
    CHECK(list(readers_of(Field::d_second_gemm, fused)).empty());
    CHECK(list(readers_of(Field::second_gemm, fused)) == std::vector{Field::hidden_states_unpermute});
    CHECK_FALSE(descends_from(Field::d_topk_weights, Field::second_gemm, fused));
    CHECK(descends_from(Field::d_topk_weights, Field::second_gemm));
    CHECK_FALSE(descends_from(Field::d_input_hidden_states, Field::d_second_gemm, fused));
    CHECK(descends_from(Field::d_router_logits, Field::first_gemm, fused));
    // Steps that a contract does not change stay.
    CHECK(find_step(Field::d_gate, fused) == find_step(Field::d_gate));
    CHECK(find_step(Field::d_topk_weights, find_contract("hf_fp32_merge")) ==
          find_step(Field::d_topk_weights));
  }

  TEST_CASE("what registers hold is not read from memory") {
    const PrecisionContract& fused = find_contract("fused_fp32");
    CHECK_FALSE(in_memory(Field::intermediate, Field::first_gemm, fused));
    CHECK(in_memory(Field::d_first_gemm, Field::first_gemm, fused));
    CHECK_FALSE(in_memory(Field::d_first_gemm, Field::d_intermediate, fused));
    CHECK_FALSE(in_memory(Field::d_down_proj, Field::intermediate, fused));
    CHECK(in_memory(Field::second_gemm, Field::intermediate, fused));
    for (const FieldRow& field : kFields)
      for (const Field read : upstream_of(field.id)) {
        CHECK(in_memory(field.id, read, find_contract("hf")));
        CHECK(in_memory(field.id, read, find_contract("fp64")));
      }
  }

  TEST_CASE(
      "weight gradients are float32 under main gradients, bf16 under every other contract and the oracle's") {
    for (const FieldRow& field : kFields) {
      CAPTURE(field.name);
      const bool gradient =
          field.id == Field::d_gate || field.id == Field::d_gate_up_proj || field.id == Field::d_down_proj;
      CHECK(is_weight_gradient(field.id) == gradient);
      CHECK(dtype_of(field.id, find_contract("hf_main_grads")) == (gradient ? DType::Float32 : field.dtype));
      for (const char* name : {"hf", "hf_in_place_grads", "fused_fp32", "fp64"})
        CHECK(dtype_of(field.id, find_contract(name)) == field.dtype);
    }
  }

  TEST_CASE("readers are the other end of reads") {
    CHECK(list(readers_of(Field::intermediate)) == std::vector{Field::second_gemm, Field::d_down_proj});
    CHECK(list(readers_of(Field::hidden_states)).empty());
  }
}
