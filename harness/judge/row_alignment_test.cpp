#include "harness/judge/row_alignment.h"

#include <doctest/doctest.h>

using namespace assay;

namespace {

// Expert 0 has slots 0, 1 and 2, expert 1 has slot 3.
const Routing kRouting{{0, 0, 0, 1}, {3, 1}, {0, 3, 4}, {0, 1, 2, 3}};

std::vector<Bf16> bits(std::initializer_list<double> values) {
  std::vector<Bf16> out;
  for (const double x : values) out.push_back(round_to_bf16(x));
  return out;
}

std::vector<Interval> around(std::initializer_list<double> values) {
  std::vector<Interval> all;
  for (const double x : values) all.push_back({x, x - 0.01, x + 0.01});
  return all;
}

const auto kReference = around({1, 2, 3, 4, 5, 6, 7, 8});  // [S, 2]

}  // namespace

TEST_SUITE("row_alignment") {
  TEST_CASE("rows exchanged within an expert are found by their values") {
    CHECK(align_rows(kRouting, bits({5, 6, 1, 2, 3, 4, 7, 8}), kReference) ==
          std::vector<std::int32_t>{2, 0, 1, 3});
  }

  TEST_CASE("rows in place, rows across experts, repeated rows and wrong values are no other order") {
    CHECK_FALSE(align_rows(kRouting, bits({1, 2, 3, 4, 5, 6, 7, 8}), kReference));
    CHECK_FALSE(align_rows(kRouting, bits({7, 8, 3, 4, 5, 6, 1, 2}), kReference));
    CHECK_FALSE(align_rows(kRouting, bits({3, 4, 3, 4, 1, 2, 7, 8}), kReference));
    CHECK_FALSE(align_rows(kRouting, bits({3, 4, 1, 2, 5, 9, 7, 8}), kReference));
    CHECK_FALSE(align_rows({}, {}, {}));
  }

  TEST_CASE("the sentence names the experts and what is declared") {
    const std::vector<std::int32_t> gather{1, 0, 2, 3};
    CHECK(in_another_order(kRouting, gather, ExpertRowOrder::Ascending) ==
          "rows of expert 0 stand in another order than ascending slots, and row_order any is not declared; "
          "each was compared with its own token's");
    CHECK(in_another_order(kRouting, gather, ExpertRowOrder::Any).find("as row_order any allows") !=
          std::string::npos);
  }
}
