// Planted faults against the judge: each is reached, killed in its stage, and what is legal is not failed.
#include <doctest/doctest.h>

#include "fixtures/fixtures.h"
#include "harness/cli/mutate/grounds.h"
#include "harness/cli/mutate/mutate_score.h"
#include "harness/cli/mutate/mutation.h"
#include "harness/contract/error.h"

using namespace assay;
using namespace assay::cli;

namespace {

Mutation planted(const FaultRow& fault, std::string_view fixture, std::string_view contract = "hf") {
  return plant(fault, make_ground(fixture, contract, fault.spoil, 0, 0, strikes_backward(fault.fault)),
               fixture);
}

}  // namespace

TEST_SUITE("mutate") {
  TEST_CASE("every catalogued fault is reached on its first problem, and killed in its stage") {
    Grounds grounds;
    std::vector<Mutation> mutations;
    for (const auto& fault : faults()) {
      const auto fixture = fault.fixtures.front();
      mutations.push_back(plant(fault, grounds.of(fault, fixture), fixture));
      const Mutation& mutation = mutations.back();
      CAPTURE(fault.id);
      CAPTURE(mutation.declared.headline);
      CHECK((mutation.outcome == Outcome::Killed || mutation.outcome == Outcome::Equivalent));
      if (mutation.outcome == Outcome::Equivalent) CHECK_FALSE(failed(mutation.open.verdict));
    }
    CHECK(exit_code(score(mutations)) == ExitCode::Passed);
    CHECK(missed_by_usual_rules(mutations).size() >= 9);
  }

  TEST_CASE("right candidates pass whatever sums their products, and a fault is found beside them") {
    for (const SumsOf sums : kSums) {
      CAPTURE(name(sums));
      CHECK(find_sums(name(sums)) == sums);
      const Ground ground = make_ground("odd", "hf", Spoil::Nothing, 0, 0, false, sums);
      CHECK(judge_open(ground, ground.right, Field::second_gemm).verdict == Verdict::Passed);
      // Short sums round alike, long ones show how they were summed.
      const Ground of_long = make_ground("long", "hf", Spoil::Nothing, 0, 0, false, sums);
      CHECK(same_bits(of_long.right, make_ground("long", "hf").right) == (sums == SumsOf::Recorded));
      const Mutation mutation = plant(find_fault("down_drops_k"), ground, "odd");
      CHECK(mutation.outcome == Outcome::Killed);
      CHECK(mutation.hint_right);
    }
    CHECK_THROWS_AS(find_sums("float16"), UsageError);
  }

  TEST_CASE("what changes bits alone is a fault where bits are promised, and legal where nothing is") {
    const auto& fault = find_fault("swiglu_loses_sign_of_zero");
    for (const SumsOf sums : kSums) {
      CAPTURE(name(sums));
      const Mutation mutation =
          plant(fault, make_ground("integers", "hf", Spoil::Nothing, 0, 0, false, sums), "integers");
      CHECK(mutation.outcome == (sums == SumsOf::Float64 ? Outcome::Equivalent : Outcome::Killed));
      CHECK(mutation.open.verdict == Verdict::Passed);
    }
  }

  TEST_CASE("with float64 sums a fault of the logits reaches the choice of experts and all after it") {
    for (const bool backward : {false, true}) {
      const Ground ground = make_ground("odd", "hf", Spoil::Nothing, 0, 0, backward, SumsOf::Float64);
      for (const char* id : {"router_transposed", "router_row_of_next_token"}) {
        const auto& fault = find_fault(id);
        CAPTURE(id);
        const Candidate wrong =
            summed_candidate(ground.problem, find_contract("hf"), SumsOf::Float64, fault.fault, backward);
        const auto chosen = wrong.fields.at(Field::selected_experts).as<std::int32_t>();
        const auto right = ground.right.fields.at(Field::selected_experts).as<std::int32_t>();
        CHECK_FALSE(std::ranges::equal(chosen, right));
        // Chosen from its own logits: nothing but the logits has an error of its own.
        const Mutation mutation = plant(fault, ground, "odd");
        CHECK(mutation.outcome == Outcome::Killed);
        CHECK(mutation.open.right_stage);
      }
    }
  }

  TEST_CASE("a fault shows in the first field that the contract stores") {
    // d_intermediate's product stays in registers, and d_topk_weights is the first that is formed from it.
    const auto mutation = planted(find_fault("down_dx_tail_dropped"), "odd", "fused_fp32");
    CHECK(mutation.expected == Field::d_topk_weights);
    CHECK(mutation.outcome == Outcome::Killed);
  }

  TEST_CASE("what a contract allows is equivalent there, and an error elsewhere") {
    CHECK(planted(find_fault("silu_unrounded"), "odd", "fused_fp32").outcome == Outcome::Equivalent);
    CHECK(planted(find_fault("silu_unrounded"), "odd", "hf").outcome == Outcome::Killed);
    // No row of it is formed, so that none can lack the weight.
    CHECK(planted(find_fault("d_rows_weight_not_applied"), "odd", "fused_fp32").outcome ==
          Outcome::Equivalent);
  }

  TEST_CASE("slots added in bf16 in any order: a lost one, a doubled one and truncation are no order") {
    for (const char* fixture : {"odd", "all_experts"}) {
      CAPTURE(fixture);
      for (const char* id :
           {"slot_dropped", "slot_added_twice", "output_truncated", "slot_weights_swapped"}) {
        CAPTURE(id);
        const Mutation mutation = planted(find_fault(id), fixture, "flashinfer_fused");
        CHECK(mutation.outcome == Outcome::Killed);
        CHECK(mutation.open.killed);
      }
      const Mutation other_order = planted(find_fault("merge_in_bf16"), fixture, "flashinfer_fused");
      CHECK(other_order.outcome == Outcome::Equivalent);
      CHECK(other_order.declared.verdict == Verdict::Passed);
      CHECK(other_order.open.verdict == Verdict::Passed);
      CHECK(planted(find_fault("merge_in_bf16"), fixture, "hf_eager").outcome == Outcome::Killed);
    }
  }

  TEST_CASE("a fault that changes no bit is an error of the table") {
    const auto mutation = plant(find_fault("output_swallows_nan"), make_ground("odd", "hf"),
                                "odd");  // there is no NaN to swallow
    CHECK(mutation.outcome == Outcome::Unreached);
    CHECK(exit_code(score(std::span(&mutation, 1))) == ExitCode::Failed);
    CHECK(exit_code(score({})) == ExitCode::NothingCompared);
  }

  TEST_CASE("survivors and wrong stages fail the run") {
    auto mutation = planted(find_fault("output_truncated"), "odd");
    CHECK(exit_code(score(std::span(&mutation, 1))) == ExitCode::Passed);
    auto survivor = mutation;
    survivor.outcome = Outcome::Survived;
    survivor.declared.killed = false;
    CHECK(exit_code(score(std::span(&survivor, 1))) == ExitCode::Failed);
    CHECK(totals_text(std::span(&survivor, 1)).find("SURVIVED output_truncated") != std::string::npos);
    auto elsewhere = mutation;
    elsewhere.declared.right_stage = false;
    CHECK(exit_code(score(std::span(&elsewhere, 1))) == ExitCode::Failed);
  }

  TEST_CASE("a right run is no fault, whatever is declared") {
    for (const char* fixture : {"tiny", "odd", "wide"}) {
      const Ground ground = make_ground(fixture, "hf");
      CHECK_FALSE(judge_declared(ground, ground.right, Field::hidden_states).killed);
      CHECK_FALSE(judge_open(ground, ground.right, Field::hidden_states).killed);
    }
  }
}
