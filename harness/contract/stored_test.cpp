// Stored elements of either type, against numbers by hand and the neighbours that the machine names.
#include "harness/contract/stored.h"

#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "harness/contract/error.h"

using namespace assay;

TEST_SUITE("stored") {
  TEST_CASE("values round once to either type, to nearest even") {
    CHECK(round_to(DType::BFloat16, 1.0 + 0x1p-8) == 1.0f);
    CHECK(round_to(DType::BFloat16, 1.0 + 0x1p-8 + 0x1p-40) == 1.0f + 0x1p-7f);
    CHECK(round_to(DType::Float32, 1.0 + 0x1p-24) == 1.0f);
    CHECK(round_to(DType::Float32, 1.0 + 0x1p-24 + 0x1p-50) == 1.0f + 0x1p-23f);
    CHECK(std::isinf(round_to(DType::Float32, 0x1p128)));
  }

  TEST_CASE("a float32's ulp is the distance to the next value") {
    for (const float x : {1.0f, 1.5f, 0x1.fffffep3f, 0x1p-126f, 0x1p-149f, 0x1p-130f, 3e38f}) {
      CAPTURE(x);
      const double next = std::nextafterf(x, std::numeric_limits<float>::max());
      CHECK(ulp_at(DType::Float32, x) == next - x);
      CHECK(ulp_at(DType::Float32, -x) == next - x);
    }
    CHECK(ulp_at(DType::Float32, 0.0) == 0x1p-149);
    CHECK(ulp_at(DType::BFloat16, 1.0) == 0x1p-7);
  }

  TEST_CASE("neighbours differ by one, zeros of both signs by none, and bits are the type's own") {
    const Stored one(1.0f, DType::Float32);
    CHECK(one.bits() == 0x3f800000u);
    CHECK(Stored(Bf16{0x3f80}).bits() == 0x3f80u);
    CHECK(Stored(std::nextafterf(1.0f, 2.0f), DType::Float32).ordinal() - one.ordinal() == 1);
    CHECK(Stored(Bf16{0x3f81}).ordinal() - Stored(Bf16{0x3f80}).ordinal() == 1);
    CHECK(Stored(-0.0f, DType::Float32).ordinal() == 0);
    const Stored least(-0x1p-149f, DType::Float32);
    CHECK(least.ordinal() == -1);
    const Stored nan(std::numeric_limits<float>::quiet_NaN(), DType::Float32);
    CHECK_FALSE(nan.finite());
    CHECK(Stored(Bf16{0x7fc1}).bits() == 0x7fc1u);  // of a NaN, too
  }

  TEST_CASE("float32 in memory may hold bf16 elements, or elements of its own") {
    const std::vector<float> memory = {1.0f, 1.5f, -0.0f};
    CHECK(is_bf16(memory[1]));
    const StoredSpan narrow(memory, DType::BFloat16);
    CHECK(narrow[1].bits() == 0x3fc0u);
    CHECK(StoredSpan(memory, DType::Float32)[1].bits() == 0x3fc00000u);
    CHECK(narrow.subspan(1, 1)[0].value == 1.5f);
    CHECK(narrow.subspan(1).size() == 2);
    CHECK_FALSE(is_bf16(1.0f + 0x1p-23f));
    const std::vector<Bf16> bits = {{0x3f80}};
    CHECK(StoredSpan(bits)[0].value == 1.0f);
    Tensor integers(DType::Int32, {1});
    CHECK_THROWS_AS(StoredSpan(integers, DType::BFloat16), InputError);
  }
}
