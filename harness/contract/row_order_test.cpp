#include "harness/contract/row_order.h"

#include <doctest/doctest.h>

#include "harness/contract/error.h"

using namespace assay;

TEST_SUITE("row_order") {
  // Two tokens' two slots: expert 0 has slots 1 and 2, expert 2 has 0 and 3.
  const Routing kRouting{{2, 0, 0, 2}, {2, 0, 2}, {0, 2, 2, 4}, {1, 2, 0, 3}};

  TEST_CASE("slots of one expert may be exchanged, and none may cross, repeat or be missing") {
    const auto same = [](std::vector<std::int32_t> gather) {
      return same_slots_per_expert(kRouting, gather);
    };
    CHECK(same({1, 2, 0, 3}));
    CHECK(same({2, 1, 3, 0}));
    CHECK_FALSE(same({1, 0, 2, 3}));   // crosses
    CHECK_FALSE(same({1, 1, 0, 3}));   // repeats
    CHECK_FALSE(same({1, 2, 0}));      // is missing
    CHECK_FALSE(same({1, 2, 0, 99}));  // points nowhere
  }

  TEST_CASE("orders have names, and no others are known") {
    CHECK(parse_row_order("any") == ExpertRowOrder::Any);
    CHECK(parse_row_order(name(ExpertRowOrder::Ascending)) == ExpertRowOrder::Ascending);
    CHECK_THROWS_AS(parse_row_order("descending"), UsageError);
  }
}
