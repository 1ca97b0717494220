#include "harness/judge/contract_fit.h"

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("contract_fit") {
  TEST_CASE("hf_fp32_merge is hf but for one rounding point, and that is named") {
    const auto& hf = find_contract("hf");
    PrecisionContract merge = find_contract("hf_fp32_merge");
    CHECK(differing_points(merge, hf, false).size() == 1);
    CHECK(differing_points(merge, hf, true).size() == 3);
    merge.weighted = Store::Bf16;
    CHECK(differing_points(merge, hf, false).empty());
  }

  TEST_CASE("fused_fp32 differs from hf in seven points, three of them of the forward pass") {
    const auto& hf = find_contract("hf");
    const auto& fused = find_contract("fused_fp32");
    CHECK(differing_points(fused, hf, false) ==
          std::vector<std::string>{"silu is not rounded to bf16, which hf does",
                                   "weight times value is not rounded to bf16, which hf does",
                                   "what SwiGLU reads of first_gemm is not rounded to bf16, which hf does"});
    // Of the products that d_topk_weights is not formed from, nothing is said.
    CHECK(differing_points(fused, hf, true).size() == 7);
    CHECK(differing_points(hf, fused, true).back() ==
          "slots of dX are added in bf16 by ascending expert, where fused_fp32 sums them in fp32");
  }
}
