#include "reference_cpu/stages.h"

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("permute") {
  TEST_CASE("tokens keep their order within an expert, and indices are flat slots") {
    const MoeConfig config{8, 8, 4, 2, true};
    const auto routing = get_token_counts_and_gather_indices(config, {2, 0, 0, 3, 2, 0});
    CHECK(routing.counts == std::vector<std::int32_t>{3, 0, 2, 1});
    CHECK(routing.offsets == std::vector<std::int64_t>{0, 3, 3, 5, 6});
    CHECK(routing.gather == std::vector<std::int32_t>{1, 2, 5, 0, 4, 3});
  }
}
