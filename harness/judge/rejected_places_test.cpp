#include "harness/judge/rejected_places.h"

#include <functional>

#include <doctest/doctest.h>

using namespace assay;

namespace {

/// 16 tokens of 32 columns, one of two experts each: even tokens go to expert 0, odd ones to expert 1.
const Sizes kSizes{{32, 8, 2, 1, true}, 16};

Routing routing() {
  Routing routing;
  for (std::int32_t t = 0; t < 16; ++t) routing.selected.push_back(t % 2);
  for (std::int32_t r = 0; r < 16; ++r) routing.gather.push_back(r % 8 * 2 + r / 8);
  routing.counts = {8, 8};
  routing.offsets = {0, 8, 16};
  return routing;
}

std::string words(Field field, const std::function<bool(std::int64_t row, std::int64_t column)>& rejected) {
  const Routing its = routing();
  RejectedPlaces places({field, kSizes, &its});
  const std::int64_t width = width_of(field, kSizes);
  for (std::int64_t r = 0; r < 16; ++r)
    for (std::int64_t c = 0; c < width; ++c)
      if (rejected(r, c)) places.add(r * width + c);
  return places.in_words();
}

}  // namespace

TEST_SUITE("rejected_places") {
  TEST_CASE("whole rows and columns are named") {
    CHECK(words(Field::hidden_states, [](auto, auto) { return false; }) == "");
    CHECK(words(Field::hidden_states, [](auto, auto) { return true; }) == "everywhere");
    CHECK(words(Field::hidden_states, [](auto r, auto c) { return r == 3 && c == 4; }) == "");
    CHECK(words(Field::hidden_states, [](auto r, auto) { return r >= 8 && r < 12; }) ==
          "all in tokens 8 to 11");
    CHECK(words(Field::second_gemm, [](auto r, auto) { return r < 8; }) == "all in expert 0");
    CHECK(words(Field::second_gemm, [](auto r, auto c) { return r < 8 && c >= 16 && c < 20; }) ==
          "all in columns 16 to 19 of expert 0");
    CHECK(words(Field::second_gemm, [](auto r, auto c) { return r % 4 == 1 && c % 8 == 0; }) ==
          "all in every 8th column of every 4th row from 1 on");
    CHECK(words(Field::hidden_states, [](auto r, auto) { return r % 2 == 1; }) ==
          "all in the tokens of expert 1");
  }

  TEST_CASE("elements that are right by luck do not hide the place") {
    CHECK(words(Field::second_gemm, [](auto r, auto c) { return r >= 8 && (r + 3 * c) % 5 != 0; }) ==
          "all in expert 1");
  }

  TEST_CASE("a few stray elements do not either") {
    const Routing its = routing();
    const Sizes wide{{256, 8, 2, 1, true}, 16};
    RejectedPlaces places({Field::hidden_states, wide, &its});
    for (std::int64_t c = 0; c < 256; ++c) places.add(2 * 256 + c);
    for (std::int64_t r = 5; r < 13; ++r) places.add(r * 256 + 7 * r);
    CHECK(places.in_words() == "nearly all in token 2");
  }

  TEST_CASE("scattered elements are called so, with what they share") {
    CHECK(words(Field::hidden_states, [](auto r, auto c) { return c == (7 * r + 3) % 32; }) ==
          "16 scattered elements");
    CHECK(words(Field::second_gemm, [](auto r, auto c) { return r < 7 && c == (5 * r + 3) % 32; }) ==
          "7 scattered elements, in the first 7 rows of expert 0");
  }
}
