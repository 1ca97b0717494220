#include "reference_cpu/small_layer.h"

#include <doctest/doctest.h>

#include "reference_cpu/expf_sm90.h"

using namespace assay;

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
