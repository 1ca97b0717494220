// Which predicted bits a declaration promises (candidate.h: promises_bits).
#include <doctest/doctest.h>

#include "harness/cli/judged.h"
#include "harness/cli/mutate/mutation.h"
#include "harness/cli/pipelines.h"
#include "harness/contract/precision_contract.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

TEST_SUITE("promises") {
  TEST_CASE(
      "declared products bind their own bits; those of exponentials and sums bind a candidate that promises "
      "torch's") {
    // One argument in some ten thousand of them has two legal values: an exponential is known to 2 ulps of
    // fp32.
    Problem problem;
    Candidate candidate;
    std::size_t moved = 0;
    for (std::uint64_t seed = 1; moved == 0 && seed <= 100; ++seed) {
      const Ground ground = make_ground("odd", "hf", Spoil::Nothing, seed);
      problem = ground.problem;
      candidate = run_pipeline("predicted", problem, {"hf"});
      for (const Field later : {Field::second_gemm, Field::hidden_states_unpermute, Field::hidden_states})
        candidate.fields.erase(later);
      Upstream upstream;
      upstream.fields = &candidate.fields;
      upstream.usable.fill(true);
      const auto intervals =
          make_reference(problem, upstream, find_contract("hf"), {}, false)
              ->bounded(Field::intermediate, Mode::Isolated, all_rows(Field::intermediate, problem.sizes()));
      auto values = candidate.fields.at(Field::intermediate).as<Bf16>();
      for (std::size_t i = 0; moved == 0 && i < values.size(); ++i) {
        const Bf16 low = round_to_bf16(intervals[i].low);
        const Bf16 high = round_to_bf16(intervals[i].high);
        if (low == high) continue;
        values[i] = values[i] == low ? high : low;
        ++moved;
      }
    }
    REQUIRE(moved == 1);
    const auto strict = judged(problem, candidate);
    CHECK(strict.verdict == Verdict::Suspect);
    CHECK(*strict.first_own_error == Field::intermediate);
    candidate.accumulators.rest_as_torch = false;
    const auto result = judged(problem, candidate);
    CHECK(result.verdict == Verdict::Passed);
    CHECK(of(result, Field::intermediate).isolated_bits.differing == 1);
    candidate.fields.at(Field::first_gemm).as<Bf16>()[7].bits ^= 1;
    CHECK(of(judged(problem, candidate), Field::first_gemm).verdict > Verdict::Passed);
    CHECK(of(judged(problem, candidate), Field::first_gemm).isolated_bits.binding);
  }
}
