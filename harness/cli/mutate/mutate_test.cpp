// Planted faults against the judge: each is reached, killed in its stage, and what is legal is not failed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "fixtures/fixtures.h"
#include "harness/cli/mutate/detection_curves.h"
#include "harness/cli/mutate/false_alarms.h"
#include "harness/cli/mutate/mutate_evidence.h"
#include "harness/cli/mutate/mutate_score.h"
#include "harness/cli/mutate/mutation.h"
#include "harness/cli/mutate/rivals.h"
#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"

using namespace assay;
using namespace assay::cli;

namespace {

Tensor filled(std::initializer_list<float> values) {
  Tensor tensor(DType::BFloat16, {1, static_cast<std::int64_t>(values.size())});
  std::ranges::transform(values, tensor.as<Bf16>().begin(), [](float x) { return round_to_bf16(x); });
  return tensor;
}

bool accepts(std::string_view rival, const Tensor& out, const Tensor& reference) {
  const auto accepting = accepting_rivals(out, reference);
  return std::ranges::find(accepting, rival) != accepting.end();
}

Mutation planted(const FaultRow& fault, std::string_view fixture, std::string_view contract = "hf") {
  return plant(fault, make_ground(fixture, contract, fault.spoil, 0, 0, strikes_backward(fault.fault)),
               fixture);
}

}  // namespace

TEST_SUITE("mutate") {
  TEST_CASE("every catalogued fault is reached on its first problem, and killed in its stage") {
    std::vector<Mutation> mutations;
    for (const auto& fault : faults()) {
      mutations.push_back(planted(fault, fault.fixtures.front()));
      const Mutation& mutation = mutations.back();
      CAPTURE(fault.id);
      CAPTURE(mutation.declared.headline);
      CHECK((mutation.outcome == Outcome::Killed || mutation.outcome == Outcome::Equivalent));
      if (mutation.outcome == Outcome::Equivalent) CHECK_FALSE(failed(mutation.open.verdict));
    }
    CHECK(exit_code(score(mutations)) == ExitCode::Passed);
    CHECK(missed_by_usual_rules(mutations).size() >= 9);
  }

  TEST_CASE("a fault shows in the first field that the contract stores") {
    const auto mutation = planted(find_fault("gate_up_drops_k_tile"), "odd", "fused_fp32");
    CHECK(mutation.expected == Field::intermediate);
    CHECK(mutation.outcome == Outcome::Killed);
  }

  TEST_CASE("what a contract allows is equivalent there, and an error elsewhere") {
    CHECK(planted(find_fault("silu_unrounded"), "odd", "fused_fp32").outcome == Outcome::Equivalent);
    CHECK(planted(find_fault("silu_unrounded"), "odd", "hf").outcome == Outcome::Killed);
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

TEST_SUITE("mutate-curves") {
  TEST_CASE("a fault is found from the smallest size on from which every larger one is found") {
    DetectionCurve curve{
        "family", "sentence",
        "n",      {1, 2, 4, 8},
        10,       {{"steady", {0, 5, 10, 10}}, {"lucky", {10, 0, 10, 9}}, {"blind", {0, 0, 0, 0}}}};
    CHECK(detected_from(curve, curve.rules[0], 0.5) == 2.0);
    CHECK(detected_from(curve, curve.rules[0], 0.99) == 4.0);
    CHECK(detected_from(curve, curve.rules[1], 0.5) == 4.0);  // that it was found at 1 is luck
    CHECK_FALSE(detected_from(curve, curve.rules[1], 0.99).has_value());
    CHECK_FALSE(detected_from(curve, curve.rules[2], 0.5).has_value());
    const auto again = read_detection_curves(json({curve}, "command"));
    REQUIRE(again.size() == 1);
    CHECK(again[0].sizes == curve.sizes);
    CHECK(again[0].rules[1].found == curve.rules[1].found);
    CHECK_THROWS_AS(read_detection_curves("{}"), InputError);
  }

  TEST_CASE("declared accumulators find whatever changes a bit") {
    const auto curves = detection_curves({"output_scale"}, 2, 100);
    REQUIRE(curves.size() == 1);
    CHECK(curves[0].rules[0].rule == "any bit changes");
    CHECK(curves[0].rules[0].found == curves[0].rules[1].found);
    CHECK(curves[0].rules[0].found.back() == 2);
  }

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

  TEST_CASE("the page and the document show every fault and what each rule made of it") {
    const std::vector<Mutation> mutations = {planted(find_fault("output_bit_flipped"), "odd"),
                                             planted(find_fault("count_plus_one"), "odd")};
    const auto all = sensitivity(mutations, {}, "a <command>");
    REQUIRE(all.faults.size() == 2);
    const auto document = render_sensitivity_markdown(all);
    const auto page = render_sensitivity_html(all);
    // In the order of the rules: five detectors, assay with nothing declared, assay, six rules of thumb.
    CHECK(document.find("| count_plus_one: one expert's count is one too high | token_counts_by_expert | - | "
                        "- | - | - | yes | yes | yes | - | - | - | - | - | - |") != std::string::npos);
    CHECK(document.find("1e-2 \\|ref\\|") != std::string::npos);  // a bar would end the cell
    CHECK(page.find("output_bit_flipped") != std::string::npos);
    CHECK(page.find("a &lt;command&gt;") != std::string::npos);
    CHECK(page.find("default-src 'none'") != std::string::npos);
    for (const char* outside : {"<script", "src=", "href=\"http", "url("})
      CHECK(page.find(outside) == std::string::npos);
  }
}

TEST_SUITE("rivals") {
  TEST_CASE("rules of thumb, by hand") {
    const Tensor ones = filled({1, 1, 1, 1});
    for (const auto& rival : rivals()) CHECK(accepts(rival.id, ones, ones));
    const Tensor one_off = filled({1, 1, 1, 1.03125f});  // 3.1e-2 away, 2e-2 and 1.6e-2 allowed
    CHECK_FALSE(accepts("allclose_1e-2", one_off, ones));
    CHECK_FALSE(accepts("allclose_torch", one_off, ones));
    CHECK_FALSE(accepts("matched_95", one_off, ones));  // 75 % match
    CHECK(accepts("calc_diff_1e-3", one_off, ones));    // 1 - 8.0625 / 8.0635
    CHECK_FALSE(accepts("calc_diff_1e-5", one_off, ones));
    CHECK(accepts("cosine_0.997", one_off, ones));
    CHECK(accepts("cosine_0.997", filled({2, 2, 2, 2}), ones));
    CHECK_FALSE(accepts("cosine_0.997", filled({1, 1, 1, 0}), ones));
  }

  TEST_CASE("a NaN passes only where the reference has one") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const Tensor ones = filled({1, 1, 1, 1});
    const Tensor lost = filled({1, 1, 1, nan});
    for (const auto& rival : rivals()) {
      CHECK_FALSE(accepts(rival.id, lost, ones));
      CHECK(accepts(rival.id, lost, lost));
    }
  }
}
