// torch's order of sums over rows.
#include <doctest/doctest.h>

#include <vector>

#include "reference_cpu/row_sum_torch.h"

using namespace assay;

TEST_SUITE("row_sum") {
  TEST_CASE("many rows: 32 threads, each with four partial sums of every fourth stretch of 32") {
    std::vector<PredictedValue> row(256);
    row[0].value = 1.0f;
    row[32].value = row[64].value = 0x1p-24f;  // two partial sums of thread 0: each is lost beside 1
    CHECK(row_sum_torch(row, 64).value == 1.0f);
    row[64].value = 0.0f;
    row[160].value = 0x1p-24f;  // the same partial sum
    CHECK(row_sum_torch(row, 64).value == 1.0f + 0x1p-23f);
  }

  TEST_CASE("one row is read in vectors of four, fewer rows have more threads") {
    std::vector<PredictedValue> row(1024);
    row[0].value = 1.0f;
    row[32].value = row[160].value = 0x1p-24f;
    CHECK(row_sum_torch(row, 16).value == 1.0f + 0x1p-23f);
    // Threads 8 and 40 of 256: both are added to thread 0 before they meet, but at distance 32.
    CHECK(row_sum_torch(row, 1).value == 1.0f + 0x1p-23f);
    row[160].value = 0.0f;
    row[1].value = 0x1p-24f;
    CHECK(row_sum_torch(row, 1).value == 1.0f);
  }

  TEST_CASE("not determined where a row is split among more than its block's width") {
    const std::vector<PredictedValue> row(8192);
    CHECK(row_sum_torch(row, 16).undetermined);
    CHECK_FALSE(row_sum_torch(row, 1).undetermined);
    CHECK_FALSE(row_sum_torch(std::vector<PredictedValue>(4096), 128).undetermined);
  }
}
