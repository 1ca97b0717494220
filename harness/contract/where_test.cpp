#include "harness/contract/where.h"

#include <numeric>
#include <vector>

#include <doctest/doctest.h>

using namespace assay;

namespace {

using Indices = std::vector<std::int64_t>;

/// Four tokens with two of three experts each: rows 0 to 2 are expert 0's, 3 to 5 expert 1's, 6 and 7 expert
/// 2's.
const Sizes kSizes{{16, 8, 3, 2, true}, 4};
const Routing kRouting{{0, 1, 1, 0, 2, 1, 0, 2}, {3, 3, 2}, {0, 3, 6, 8}, {0, 3, 6, 1, 2, 5, 4, 7}};

Indices all(std::int64_t count) {
  Indices indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

std::string rows_of_field(Field field, const Indices& rows) {
  return place_in_words(field, kSizes, kRouting, rows, all(width_of(field, kSizes)));
}

}  // namespace

TEST_SUITE("where") {
  TEST_CASE("indices are listed by what they have in common") {
    CHECK(listed("row", "rows", Indices{3}, 48) == "row 3");
    CHECK(listed("row", "rows", Indices{3, 4, 5, 6, 7}, 48) == "rows 3 to 7");
    CHECK(listed("row", "rows", Indices{0, 8, 16, 24, 32, 40}, 48) == "every 8th row");
    CHECK(listed("row", "rows", Indices{3, 11, 19, 27, 35, 43}, 48) == "every 8th row from 3 on");
    CHECK(listed("row", "rows", Indices{3, 5, 7}, 48) == "every 2nd row from 3 to 7");
    CHECK(listed("row", "rows", Indices{0, 23, 46}, 50) == "every 23rd row");
    CHECK(listed("row", "rows", Indices{1, 2, 9}, 48) == "rows 1, 2, 9");
    CHECK(listed("row", "rows", Indices{1, 2, 9, 10, 12}, 48) == "5 of 48 rows");
  }

  TEST_CASE("rows in expert order are told by their expert, its end, or their token") {
    CHECK(rows_of_field(Field::second_gemm, all(8)) == "");
    CHECK(rows_of_field(Field::second_gemm, {3, 4, 5}) == "for expert 1");
    CHECK(rows_of_field(Field::second_gemm, {4, 5}) == "in the last 2 rows of expert 1");
    CHECK(rows_of_field(Field::second_gemm, {4}) == "in row 4 (expert 1)");
    CHECK(rows_of_field(Field::second_gemm, {2, 5, 7}) == "in the last row of each expert");
    CHECK(rows_of_field(Field::second_gemm, {0, 1, 2, 6, 7}) == "for experts 0, 2");
    CHECK(rows_of_field(Field::second_gemm, {0, 3}) == "for token 0");
    CHECK(rows_of_field(Field::second_gemm, {0, 4}) == "in rows 0, 4");
  }

  TEST_CASE("part of a small expert's rows is not called the expert") {
    Routing many{std::vector<std::int32_t>(20, 0), {19, 1, 0}, {0, 19, 20}, {}};
    many.selected[19] = 1;
    many.offsets = {0, 5, 20, 20};
    many.counts = {5, 15, 0};
    many.gather.resize(20);
    const Sizes sizes{{16, 8, 3, 2, true}, 10};
    const auto words = [&](const Indices& rows) {
      return place_in_words(Field::second_gemm, sizes, many, rows, all(16));
    };
    CHECK(words({0, 1, 3, 4}) == "in rows 0, 1, 3, 4 (expert 0)");
    CHECK(words({5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19}) == "for expert 1");  // one by luck
  }

  TEST_CASE("slots and tokens that share an expert are told by it") {
    CHECK(rows_of_field(Field::hidden_states_unpermute, {1, 2, 5}) == "for expert 1");
    CHECK(rows_of_field(Field::hidden_states_unpermute, {1, 3, 5, 7}) == "in slot 1 of each token");
    CHECK(rows_of_field(Field::hidden_states, {0, 1, 3}) == "for the tokens of expert 0");
    CHECK(rows_of_field(Field::hidden_states, {2, 3}) == "for tokens 2 to 3");
  }

  TEST_CASE("columns carry the name of their axis") {
    CHECK(place_in_words(Field::second_gemm, kSizes, kRouting, all(8), Indices{4, 5, 6, 7}) ==
          "in columns 4 to 7");
    CHECK(place_in_words(Field::second_gemm, kSizes, kRouting, Indices{3, 4, 5}, Indices{0, 8}) ==
          "for expert 1, in columns 0, 8");
    CHECK(place_in_words(Field::router_logits, kSizes, kRouting, all(4), Indices{2}) == "in expert 2");
    CHECK(place_in_words(Field::topk_weights, kSizes, kRouting, Indices{1}, Indices{1}) ==
          "for token 1, in slot 1");
  }
}
