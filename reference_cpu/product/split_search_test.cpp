#include "reference_cpu/product/split_search.h"

#include <algorithm>
#include <numeric>

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("splits") {
  TEST_CASE("the candidates hold the splits seen of cuBLAS") {
    const auto of4096 = candidate_splits(4096);
    CHECK(std::ranges::find(of4096, std::vector<std::int64_t>{2048, 2048}) != of4096.end());
    CHECK(std::ranges::find(of4096, std::vector<std::int64_t>{1408, 1408, 1280}) != of4096.end());
    for (const auto& split : of4096)
      CHECK(std::accumulate(split.begin(), split.end(), std::int64_t{0}) == 4096);
  }
}
