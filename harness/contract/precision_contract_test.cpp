#include "harness/contract/precision_contract.h"

#include <set>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include "harness/contract/error.h"

using namespace assay;

TEST_SUITE("contract") {
  TEST_CASE("contracts are found by name, unknown names list the valid ones") {
    std::set<std::string_view> names;
    for (const auto& contract : kContracts) {
      CHECK(names.insert(contract.name).second);
      CHECK(&find_contract(contract.name) == &contract);
      CHECK(!contract.summary.empty());
    }
    std::string valid;
    for (const auto name : kContractNames)
      valid += (valid.empty() ? "unknown contract 'HF'; valid: " : ", ") + std::string(name);
    CHECK_THROWS_WITH_AS(find_contract("HF"), valid.c_str(), UsageError);
  }

  TEST_CASE("contracts differ in their rounding points") {
    const auto& hf = find_contract("hf");
    CHECK(hf.combine == Combine::Fp32Sum);
    CHECK(find_contract("hf_eager").combine == Combine::Bf16ByExpert);
    CHECK(find_contract("hf_fp32_merge").weighted == Store::Unrounded);
    CHECK(find_contract("fused_fp32").silu == Store::Unrounded);
    CHECK(find_contract("fused_fp32").first_gemm == Store::Bf16);
    CHECK(find_contract("fused_fp32").swiglu_reads == From::Registers);
    CHECK(find_contract("fused_fp32").output == Store::Bf16);
    for (const auto store :
         {find_contract("fp64").logits, find_contract("fp64").weights, find_contract("fp64").output})
      CHECK(store == Store::Unrounded);
  }

  TEST_CASE("backward adds slots and rows as seen of HuggingFace, and rounds where its forward pass does") {
    const auto& hf = find_contract("hf");
    const auto& eager = find_contract("hf_eager");
    CHECK(hf.d_input_combine == Combine::Bf16ByExpert);
    CHECK(hf.weight_gradient_rows == RowOrder::Ascending);
    CHECK(eager.d_input_combine == Combine::Bf16ByExpertDescending);
    CHECK(eager.weight_gradient_rows == RowOrder::BySlot);
    for (const auto& contract : kContracts) {
      CAPTURE(contract.name);
      // Alone a fused kernel applies the weight late, and forms its gradient from what it recomputes.
      const bool fused = contract.name == "fused_fp32";
      CHECK((contract.weight_side == WeightSide::AfterProduct) == fused);
      CHECK((contract.d_weights_from == WeightGradientFrom::Activation) == fused);
      CHECK(contract.d_weighted == contract.weighted);
      CHECK(contract.d_silu == contract.silu);
      CHECK(contract.gradients == contract.output);
      const bool main_gradients = contract.name.ends_with("main_grads");
      CHECK(contract.weight_gradients == (main_gradients ? Store::Unrounded : contract.output));
      CHECK(contract.d_logits == contract.logits);
    }
  }

  TEST_CASE("weight gradients are added rounded or not, and kept in bf16 or float32: four ways") {
    const auto way = [](std::string_view name) {
      const PrecisionContract& contract = find_contract(name);
      return std::pair(contract.weight_products, contract.weight_gradients);
    };
    CHECK(way("hf") == std::pair(Store::Bf16, Store::Bf16));
    CHECK(way("hf_in_place_grads") == std::pair(Store::Unrounded, Store::Bf16));
    CHECK(way("hf_added_main_grads") == std::pair(Store::Bf16, Store::Unrounded));
    CHECK(way("hf_main_grads") == std::pair(Store::Unrounded, Store::Unrounded));
  }
}
