#include "harness/contract/config.h"

#include <string_view>

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("config") {
  TEST_CASE("a sound config has no objection") {
    CHECK(!invalid({2048, 768, 128, 8, true}));
    CHECK(!invalid({1, 1, 1, 1, false}));
    CHECK(!invalid({8, 8, 4, 4, true}));
  }

  TEST_CASE("each size is checked, and named") {
    CHECK(invalid({0, 768, 128, 8, true}) == "hidden_size must lie in 1..1048576, found 0");
    CHECK(invalid({64, -3, 128, 8, true}) == "moe_intermediate_size must lie in 1..1048576, found -3");
    CHECK(invalid({64, 32, 0, 8, true}) == "num_experts must lie in 1..1048576, found 0");
    CHECK(invalid({64, 32, 8, 0, true}) == "top_k must lie in 1..1048576, found 0");
    CHECK(invalid({std::int64_t{1} << 40, 32, 8, 2, true}).has_value());
  }

  TEST_CASE("more experts per token than there are is refused") {
    CHECK(invalid({64, 32, 8, 9, true}) == "top_k must not exceed num_experts (8), found 9");
  }

  TEST_CASE("slots are tokens times top_k") { CHECK(Sizes{{64, 32, 8, 2, true}, 5}.slots() == 10); }

  TEST_CASE("every member is visited, under its own name") {
    const MoeConfig config{64, 32, 8, 2, false};
    CHECK(to_string(config) ==
          "hidden_size 64, moe_intermediate_size 32, num_experts 8, top_k 2, norm_topk_prob false");
    MoeConfig copy;
    for_each_member(copy, [&](std::string_view to, auto& member) {
      for_each_member(config, [&](std::string_view from, const auto& value) {
        if (to == from) member = static_cast<std::remove_reference_t<decltype(member)>>(value);
      });
    });
    CHECK(copy == config);
  }
}
