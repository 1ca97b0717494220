#include "harness/contract/tensor.h"

#include <algorithm>
#include <utility>

#include <doctest/doctest.h>

#include "harness/contract/error.h"

using namespace assay;

TEST_SUITE("tensor") {
  TEST_CASE("a new tensor is zero and has the bytes of its dtype") {
    for (const auto& row : kDTypes) {
      const Tensor tensor(row.dtype, {3, 5});
      CHECK(tensor.size() == 15);
      CHECK(tensor.bytes().size() == 15 * row.size);
      CHECK(std::ranges::all_of(tensor.bytes(), [](std::byte b) { return b == std::byte{0}; }));
    }
  }

  TEST_CASE("no elements is a legal size, a scalar has one") {
    CHECK(element_count({0, 64}) == 0);
    CHECK(element_count({}) == 1);
    CHECK(Tensor(DType::Int32, {0}).as<std::int32_t>().empty());
    CHECK(Tensor().size() == 0);
  }

  TEST_CASE("negative and overflowing shapes are refused") {
    CHECK_THROWS_WITH_AS(element_count({2, -1}), "shape [2, -1] has a negative or too large extent",
                         InputError);
    CHECK_THROWS_AS(element_count({std::int64_t{1} << 32, std::int64_t{1} << 32}), InputError);
    CHECK(element_count({std::int64_t{1} << 31, std::int64_t{1} << 31}) == std::int64_t{1} << 62);
  }

  TEST_CASE("elements are read as their own dtype only") {
    Tensor tensor(DType::BFloat16, {2});
    tensor.as<Bf16>()[1] = {0x3f80};
    CHECK(std::as_const(tensor).as<Bf16>()[1].bits == 0x3f80);
    CHECK_THROWS_WITH_AS(tensor.as<double>(), "expected a tensor of float64, found bfloat16", InputError);
    CHECK_THROWS_AS(tensor.as<std::int32_t>(), InputError);
  }

  TEST_CASE("reshaping keeps the elements and refuses another number of them") {
    Tensor tensor(DType::Int32, {2, 3});
    tensor.as<std::int32_t>()[5] = 7;
    tensor.reshape({3, 2});
    CHECK(tensor.shape() == Shape{3, 2});
    CHECK(tensor.as<std::int32_t>()[5] == 7);
    CHECK_THROWS_WITH_AS(tensor.reshape({7}), "cannot view shape [3, 2] as [7]", InputError);
  }

  TEST_CASE("a matrix view's rows are the tensor's") {
    Tensor tensor(DType::Int32, {2, 3});
    for (int i = 0; i < 6; ++i) tensor.as<std::int32_t>()[static_cast<std::size_t>(i)] = i;
    const MatrixView<std::int32_t> view{tensor.as<std::int32_t>(), 2, 3};
    CHECK(view.row(1).size() == 3);
    CHECK(view.row(1)[0] == 3);
  }
}
