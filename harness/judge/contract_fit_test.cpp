#include "harness/judge/contract_fit.h"

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("contract_fit") {
  TEST_CASE("hf_fp32_merge is hf but for one rounding point, and that is named") {
    const auto& hf = find_contract("hf");
    PrecisionContract merge = find_contract("hf_fp32_merge");
    CHECK(differing_points(merge, hf).size() == 1);
    merge.weighted = Store::Bf16;
    CHECK(differing_points(merge, hf).empty());
  }
}
