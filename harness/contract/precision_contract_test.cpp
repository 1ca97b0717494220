// What sides must agree on besides fields: precision contract, accumulators, verdicts and exit codes.
#include "harness/contract/precision_contract.h"

#include <set>
#include <string>

#include <doctest/doctest.h>

#include "harness/contract/accumulator.h"
#include "harness/contract/candidate.h"
#include "harness/contract/error.h"
#include "harness/contract/report.h"
#include "harness/contract/summation.h"
#include "harness/contract/verdict.h"

using namespace assay;

TEST_SUITE("contract") {
  TEST_CASE("contracts are found by name, unknown names list the valid ones") {
    std::set<std::string_view> names;
    for (const auto& contract : kContracts) {
      CHECK(names.insert(contract.name).second);
      CHECK(&find_contract(contract.name) == &contract);
      CHECK(!contract.summary.empty());
    }
    CHECK_THROWS_WITH_AS(find_contract("HF"),
                         "unknown contract 'HF'; valid: hf, hf_eager, hf_fp32_merge, fused_fp32, fp64",
                         UsageError);
  }

  TEST_CASE("contracts differ in their rounding points") {
    const auto& hf = find_contract("hf");
    CHECK(hf.combine == Combine::Fp32Sum);
    CHECK(find_contract("hf_eager").combine == Combine::Bf16ByExpert);
    CHECK(find_contract("hf_fp32_merge").weighted == Store::Unrounded);
    CHECK(find_contract("fused_fp32").silu == Store::Unrounded);
    CHECK(find_contract("fused_fp32").first_gemm == Store::Unrounded);
    CHECK(find_contract("fused_fp32").output == Store::Bf16);
    for (const auto store :
         {find_contract("fp64").logits, find_contract("fp64").weights, find_contract("fp64").output})
      CHECK(store == Store::Unrounded);
  }

  TEST_CASE("backward adds slots and rows as seen of HuggingFace, and rounds where its forward pass does") {
    const auto &hf = find_contract("hf"), &eager = find_contract("hf_eager");
    CHECK(hf.d_input_combine == Combine::Bf16ByExpert);
    CHECK(hf.weight_gradient_rows == RowOrder::Ascending);
    CHECK(eager.d_input_combine == Combine::Bf16ByExpertDescending);
    CHECK(eager.weight_gradient_rows == RowOrder::BySlot);
    for (const auto& contract : kContracts) {
      CAPTURE(contract.name);
      CHECK(contract.d_weighted == contract.weighted);
      CHECK(contract.d_silu == contract.silu);
      CHECK(contract.gradients == contract.output);
      CHECK(contract.weight_gradients == contract.output);
      CHECK(contract.d_logits == contract.logits);
    }
  }
}

TEST_SUITE("accumulator") {
  TEST_CASE("what is written is read back") {
    for (const auto kind :
         {AccumulatorKind::Unknown, AccumulatorKind::Fp32Sequential, AccumulatorKind::Fp32Pairwise,
          AccumulatorKind::Hopper, AccumulatorKind::HopperAnySplit, AccumulatorKind::Ampere}) {
      const Accumulator accumulator{kind, {}};
      CHECK(parse_accumulator(to_string(accumulator)) == accumulator);
    }
    const Accumulator split{AccumulatorKind::Hopper, {1408, 1408, 1280}};
    CHECK(to_string(split) == "hopper_split(1408, 1408, 1280)");
    CHECK(parse_accumulator(to_string(split)) == split);
    const Accumulator descending{AccumulatorKind::HopperDescending, {}, 64},
        dealt{AccumulatorKind::HopperInterleaved, {}, 64, 2};
    CHECK(to_string(descending) == "hopper_descending(64)");
    CHECK(to_string(dealt) == "hopper_interleaved(2, 64)");
    CHECK(parse_accumulator(to_string(descending)) == descending);
    CHECK(parse_accumulator(to_string(dealt)) == dealt);
  }

  TEST_CASE("each walks K in its own order") {
    using Stretches = std::vector<SumStretch>;
    CHECK(summation({AccumulatorKind::Hopper, {}}, 40).stretches == Stretches{{0, 40, true}});
    CHECK(summation({AccumulatorKind::Hopper, {16, 16}}, 40).stretches ==
          Stretches{{0, 16, true}, {16, 40, true}});
    CHECK(summation({AccumulatorKind::HopperDescending, {}, 16}, 40).stretches ==
          Stretches{{32, 40, false}, {16, 32, false}, {0, 16, true}});
    CHECK(summation({AccumulatorKind::HopperInterleaved, {}, 16, 2}, 72).stretches ==
          Stretches{{0, 16, false}, {32, 48, false}, {64, 72, true}, {16, 32, false}, {48, 64, true}});
    CHECK(summation({AccumulatorKind::Ampere, {}}, 8).rule == StepRule::Truncate8);
    CHECK(order_declared({AccumulatorKind::Ampere, {}}));
    CHECK_FALSE(order_declared({AccumulatorKind::HopperAnySplit, {}}));
  }

  TEST_CASE(
      "a tensor core that aligns 8 products has twice the a-priori bound, and so has one that nobody knows") {
    Candidate candidate;
    candidate.device = "cpu";
    CHECK(product_slack(candidate, {}) == 1.0);
    Accumulators one_of_ampere;
    one_of_ampere[ProductId::router] = {AccumulatorKind::Ampere, {}};
    CHECK(product_slack(candidate, one_of_ampere) == 2.0);
    candidate.device = "NVIDIA H200";
    CHECK(product_slack(candidate, {}) == 2.0);
    candidate.compute_capability = "9.0";
    CHECK(product_slack(candidate, {}) == 1.0);
    for (const char* older : {"7.5", "8.0", "8.9"}) {
      candidate.compute_capability = older;
      CHECK(product_slack(candidate, {}) == 2.0);
    }
  }

  TEST_CASE("spaces between the lengths do not matter") {
    CHECK(parse_accumulator("hopper_split(16,32)") == Accumulator{AccumulatorKind::Hopper, {16, 32}});
    CHECK(parse_accumulator("hopper_split(16)") == Accumulator{AccumulatorKind::Hopper, {16}});
  }

  TEST_CASE("anything else is refused with the valid forms") {
    for (const std::string text :
         {"", "Hopper", "hopper_split", "hopper_split()", "hopper_split(0)", "hopper_split(-16)",
          "hopper_split(16", "hopper_split(a)", "hopper_split(99999999999999999999)", "hopper_split(16, 32) ",
          "hopper_descending", "hopper_descending()", "hopper_descending(16, 32)", "hopper_interleaved(2)",
          "ampere(8)"}) {
      CAPTURE(text);
      CHECK_THROWS_AS(parse_accumulator(text), UsageError);
    }
    CHECK_THROWS_WITH_AS(parse_accumulator("fp16"),
                         "unknown accumulator 'fp16'; valid: unknown, fp32_sequential, fp32_pairwise, "
                         "hopper, hopper_any_split, hopper_split(k1, k2, ...), hopper_descending(block), "
                         "hopper_interleaved(parts, block), ampere",
                         UsageError);
  }
}

TEST_SUITE("verdict") {
  TEST_CASE("exit codes are the documented numbers") {
    CHECK(static_cast<int>(ExitCode::Passed) == 0);
    CHECK(static_cast<int>(ExitCode::Failed) == 1);
    CHECK(static_cast<int>(ExitCode::Usage) == 2);
    CHECK(static_cast<int>(ExitCode::CouldNotJudge) == 3);
    CHECK(static_cast<int>(ExitCode::Suspect) == 4);
    CHECK(static_cast<int>(ExitCode::NothingCompared) == 77);
  }

  TEST_CASE("each verdict has its name and its exit code") {
    const std::pair<Verdict, ExitCode> rows[] = {
        {Verdict::NotMaterialised, ExitCode::NothingCompared},
        {Verdict::Unsupported, ExitCode::NothingCompared},
        {Verdict::Passed, ExitCode::Passed},
        {Verdict::Mistrusted, ExitCode::Suspect},
        {Verdict::Suspect, ExitCode::Suspect},
        {Verdict::Unstable, ExitCode::Suspect},
        {Verdict::NotJudged, ExitCode::CouldNotJudge},
        {Verdict::MissingGolden, ExitCode::CouldNotJudge},
        {Verdict::Failed, ExitCode::Failed},
        {Verdict::NonFinite, ExitCode::Failed},
        {Verdict::WrongDtype, ExitCode::Failed},
        {Verdict::WrongShape, ExitCode::Failed},
        {Verdict::TimedOut, ExitCode::Failed},
        {Verdict::Crashed, ExitCode::Failed},
    };
    std::set<std::string_view> names;
    for (const auto& [verdict, code] : rows) {
      CHECK(names.insert(name(verdict)).second);
      CHECK(exit_code(verdict) == code);
      CHECK(failed(verdict) == (code == ExitCode::Failed));
      CHECK(compared(verdict) == (code != ExitCode::NothingCompared));
    }
    CHECK(names.size() == static_cast<std::size_t>(kWorstVerdict) + 1);
  }

  TEST_CASE(
      "a failure outranks what could not be judged, that a suspicion, that a pass, and a pass nothing") {
    CHECK(worst(Verdict::Failed, Verdict::MissingGolden) == Verdict::Failed);
    CHECK(worst(Verdict::MissingGolden, Verdict::Suspect) == Verdict::MissingGolden);
    CHECK(worst(Verdict::Suspect, Verdict::Passed) == Verdict::Suspect);
    CHECK(worst(Verdict::NotMaterialised, Verdict::Passed) == Verdict::Passed);
    CHECK(worst(Verdict::Passed, Verdict::Unsupported) == Verdict::Passed);
  }

  TEST_CASE("a report without cases is not a pass") {
    Report report;
    CHECK(exit_code(report.verdict()) == ExitCode::NothingCompared);
    report.cases.resize(2);
    CHECK(exit_code(report.verdict()) == ExitCode::NothingCompared);
    report.cases[1].verdict = Verdict::Passed;
    CHECK(exit_code(report.verdict()) == ExitCode::Passed);
    report.cases[0].verdict = Verdict::NonFinite;
    CHECK(exit_code(report.verdict()) == ExitCode::Failed);
  }
}
