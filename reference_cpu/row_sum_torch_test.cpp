// torch's order of sums over rows.
#include <doctest/doctest.h>

#include <initializer_list>
#include <vector>

#include "reference_cpu/row_sum_torch.h"

using namespace assay;

namespace {

/// The sum of a row with 1 in one place and 2^-24 in two: more than 1 only where those two meet first.
float sum_of(std::int64_t length, std::int64_t index, std::int64_t rows, std::size_t one,
             std::initializer_list<std::size_t> small) {
  std::vector<PredictedValue> row(static_cast<std::size_t>(length));
  row[one].value = 1.0f;
  for (const auto k : small) row[k].value = 0x1p-24f;
  return row_sum_torch(row, index, rows).value;
}

constexpr float kTogether = 1.0f + 0x1p-23f;

}  // namespace

TEST_SUITE("row_sum") {
  TEST_CASE("short rows: partners at distances 16, 8, 4, 2, 1, and four partial sums a thread") {
    CHECK(sum_of(100, 0, 64, 0, {1, 17}) == kTogether);
    CHECK(sum_of(100, 0, 64, 0, {1, 2}) == 1.0f);
    CHECK(sum_of(100, 0, 64, 0, {32, 64}) == 1.0f);
    CHECK(sum_of(100, 0, 64, 0, {33, 65}) == kTogether);
  }

  TEST_CASE("from 128 elements on a thread has eight partial sums, one for each element of its vectors") {
    CHECK(sum_of(512, 0, 64, 0, {1, 257}) == kTogether);
    CHECK(sum_of(512, 0, 64, 0, {1, 2}) == 1.0f);
    // One row has twice as many threads: 256 and 0 are in two of them.
    CHECK(sum_of(512, 0, 1, 0, {1, 257}) == 1.0f);
  }

  TEST_CASE("vectors are aligned in memory: a row may begin within one") {
    CHECK(sum_of(130, 1, 64, 6, {0, 22}) == kTogether);  // row 1 begins at element 2 of a vector
    CHECK(sum_of(130, 0, 64, 6, {0, 22}) == 1.0f);
  }

  TEST_CASE("not determined where a row is split among more threads than its block is wide") {
    CHECK(row_sum_torch(std::vector<PredictedValue>(8192), 0, 16).undetermined);
    CHECK_FALSE(row_sum_torch(std::vector<PredictedValue>(8192), 0, 1).undetermined);
    CHECK_FALSE(row_sum_torch(std::vector<PredictedValue>(4096), 0, 128).undetermined);
  }
}
