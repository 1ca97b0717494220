#include "harness/cli/mutate/false_alarms.h"

#include <doctest/doctest.h>

#include "fixtures/faults.h"
#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"

using namespace assay;
using namespace assay::cli;

TEST_SUITE("mutate-alarms") {
  TEST_CASE("right runs raise no alarm, wrong ones do: the count can fail") {
    const std::size_t contracts = kKernelContracts.size();
    const auto right = judge_correct_runs(2, 500);
    CHECK(right.runs == 2 * 6 * contracts);
    CHECK(right.judgements == 2 * contracts * (5 * 2 + 1));
    CHECK(right.alarms.empty());
    CHECK(exit_code(right) == ExitCode::Passed);
    const auto wrong = judge_correct_runs(1, 500, find_fault("output_truncated").fault);
    CHECK(wrong.alarms.size() == contracts * 5 * 2);  // all but the random order
    CHECK(exit_code(wrong) == ExitCode::Failed);
    const auto again = read_false_alarms(json(wrong, "command"));
    REQUIRE(again.alarms.size() == wrong.alarms.size());
    CHECK(again.alarms.front().verdict == wrong.alarms.front().verdict);
    CHECK(again.runs == wrong.runs);
    CHECK_THROWS_AS(merge_false_alarms({right, again}), InputError);  // seed 500 twice
    auto later = again;
    later.seeds = {{502, 1}};
    const auto both = merge_false_alarms({later, right});
    REQUIRE(both.seeds.size() == 1);
    CHECK(both.seeds.front().first == 500);
    CHECK(seed_count(both) == 3);
    CHECK(both.runs == right.runs + wrong.runs);
    CHECK(both.alarms.size() == wrong.alarms.size());
    CHECK(exit_code(both) == ExitCode::Failed);
    auto older = later;  // counted before there was the last rule
    older.rivals.pop_back();
    older = read_false_alarms(json(older, "command"));
    CHECK(older.rivals.size() == right.rivals.size() - 1);
    CHECK_THROWS_AS(merge_false_alarms({older, right}), InputError);
    CHECK(exit_code(FalseAlarms{}) == ExitCode::NothingCompared);
  }

  TEST_CASE("sums of large terms on a coarse grid and a tiny one, rounded before they are added, are right") {
    CHECK(judge_correct_runs(1, 134).alarms.empty());
    CHECK(judge_correct_runs(1, 438).alarms.empty());
  }
}
