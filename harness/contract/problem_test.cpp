#include "harness/contract/problem.h"

#include <memory>

#include <doctest/doctest.h>

using namespace assay;

namespace {

/// A stored layer whose elements count up, so that a wrong expert or a wrong tensor shows.
ExpertLoader counting_experts(int& calls) {
  auto gate_up = std::make_shared<Tensor>(DType::BFloat16, Shape{3, 4, 2});
  auto down = std::make_shared<Tensor>(DType::BFloat16, Shape{3, 2, 2});
  for (std::size_t i = 0; i < 24; ++i) gate_up->as<Bf16>()[i].bits = static_cast<std::uint16_t>(i);
  for (std::size_t i = 0; i < 12; ++i) down->as<Bf16>()[i].bits = static_cast<std::uint16_t>(1000 + i);
  return [stored = stored_experts(gate_up, down), &calls](Field field, std::int64_t expert) {
    ++calls;
    return stored(field, expert);
  };
}

}  // namespace

TEST_SUITE("experts") {
  TEST_CASE("stored experts are the slices of their own tensor") {
    int calls = 0;
    const auto load = counting_experts(calls);
    CHECK(load(Field::gate_up_proj, 2).values.size() == 8);
    CHECK(load(Field::gate_up_proj, 2).values[0].bits == 16);
    CHECK(load(Field::down_proj, 1).values.size() == 4);
    CHECK(load(Field::down_proj, 1).values[3].bits == 1007);
  }

  TEST_CASE("cached experts are loaded once, as far as the budget goes") {
    int calls = 0;
    const auto load =
        cached_experts(counting_experts(calls), 16 + 8);  // one gate_up matrix and one down matrix
    for (int pass = 0; pass < 3; ++pass) {
      CHECK(load(Field::gate_up_proj, 0).values[0].bits == 0);
      CHECK(load(Field::down_proj, 0).values[0].bits == 1000);
    }
    CHECK(calls == 2);
    for (int pass = 0; pass < 3; ++pass) CHECK(load(Field::gate_up_proj, 1).values[0].bits == 8);
    CHECK(calls == 5);
  }

  TEST_CASE("a matrix outlives the loader that made it") {
    int calls = 0;
    ExpertMatrix matrix;
    {
      const auto load = counting_experts(calls);
      matrix = load(Field::down_proj, 2);
    }
    CHECK(matrix.values[0].bits == 1008);
  }
}
