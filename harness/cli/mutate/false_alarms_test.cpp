#include "harness/cli/mutate/false_alarms.h"

#include <doctest/doctest.h>

#include "fixtures/faults.h"
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
    CHECK(again.alarms.size() == wrong.alarms.size());
    CHECK(again.runs == wrong.runs);
    CHECK(exit_code(FalseAlarms{}) == ExitCode::NothingCompared);
  }
}
