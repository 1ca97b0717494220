// The contract a candidate follows, and single rounding points that no named contract leaves out.
#include <algorithm>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "harness/cli/contract_auto.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/judge/contract_fit.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

const Accumulator kHopper{AccumulatorKind::Hopper, {}};
const Accumulators kDeclared{kHopper, kHopper, kHopper};

ContractFit fitted(const Problem& problem, const Candidate& candidate) {
  JudgeOptions options;
  options.reference = make_reference;
  options.contract = "hf";
  const CaseResult judged = judge(problem, candidate, options);
  const Accumulator assumed{AccumulatorKind::HopperAnySplit, {}};
  return fit_contract(problem, candidate, judged, every_product(assumed), options.reference, nullptr);
}

}  // namespace

TEST_SUITE("contract_auto") {
  TEST_CASE(
      "each named contract is recognised, point by point, with nothing declared and from the output alone") {
    // Of `odd` those that differ most; the others differ from one of these in a member or two.
    for (const auto& [fixture, contracts] :
         {std::pair{"tiny", kKernelContracts}, {"odd", kKernelContracts.first(4)}}) {
      const Problem problem = load_fixture(fixture);
      for (const auto contract : contracts) {
        Candidate candidate = run_pipeline("predicted", problem, {std::string(contract)});
        candidate.accumulators = {};
        CAPTURE(fixture);
        CAPTURE(contract);
        const ContractFit fit = fitted(problem, candidate);
        CHECK(fit.closest->name == contract);
        CHECK(differing_points(fit.fitted, find_contract(contract), false).empty());
        for (const Field field : {Field::first_gemm, Field::intermediate, Field::second_gemm})
          candidate.fields.erase(field);
        CHECK(fitted(problem, candidate).closest->name == contract);
        const ContractFit both =
            fitted(problem, predict_both_passes(problem, find_contract(contract), every_product(kHopper)));
        CHECK(both.closest->name == contract);
        CHECK(differing_points(both.fitted, find_contract(contract), true).empty());
      }
    }
  }

  TEST_CASE("of all contracts the one that a forward pass shows is found, whatever it declares") {
    const Problem problem = load_fixture("all_experts");
    JudgeOptions options;
    options.reference = make_reference;
    options.causes = false;
    for (const auto contract : {"hf", "hf_eager", "hf_fp32_merge", "fused_fp32", "flashinfer_fused",
                                "fp32_logits", "vllm", "vllm_fp32_logits", "sglang", "sglang_fp32_logits"}) {
      CAPTURE(contract);
      Candidate candidate = run_pipeline("predicted", problem, {contract});
      candidate.contract = kContractAuto;
      const ContractTrials trials = try_contracts(problem, candidate, options);
      CHECK(trials.best.contract == contract);
      CHECK(trials.best.verdict == Verdict::Passed);
      CHECK(trials.passed == std::vector<std::string>{contract});
    }
  }

  TEST_CASE(
      "experts chosen from float32 logits are judged by those, and a file of bf16 ones is another contract") {
    JudgeOptions options;
    options.reference = make_reference;
    const auto under = [&](const Problem& problem, const Candidate& candidate, std::string_view contract) {
      options.contract = contract;
      return judge(problem, candidate, options);
    };
    const auto of = [](const CaseResult& result, Field field) {
      return *std::ranges::find(result.fields, field, &FieldResult::field);
    };
    const auto ids = [](const Candidate& candidate) {
      return candidate.fields.at(Field::selected_experts).as<std::int32_t>();
    };
    Problem problem;
    Candidate wide;
    Candidate narrow;
    for (const char* fixture : {"all_experts", "rows", "hot_expert", "long_segment"}) {
      problem = load_fixture(fixture);
      wide = run_pipeline("predicted", problem, {"fp32_logits"});
      narrow = run_pipeline("predicted", problem, {"hf"});
      if (!std::ranges::equal(ids(wide), ids(narrow))) break;  // bf16 merges some logits
    }
    REQUIRE_FALSE(std::ranges::equal(ids(wide), ids(narrow)));
    CHECK(wide.fields.at(Field::router_logits).dtype() == DType::Float32);
    CHECK(under(problem, wide, "fp32_logits").verdict == Verdict::Passed);
    const CaseResult as_bf16 = under(problem, wide, "hf");
    CHECK(of(as_bf16, Field::router_logits).verdict == Verdict::WrongDtype);
    CHECK(of(under(problem, narrow, "fp32_logits"), Field::router_logits).verdict == Verdict::WrongDtype);
    // Chosen from rounded logits beside float32 ones: wrong by its own logits.
    Candidate rounded = wide;
    rounded.fields.set(Field::selected_experts, narrow.fields.at(Field::selected_experts));
    const CaseResult result = under(problem, rounded, "fp32_logits");
    CHECK(of(result, Field::selected_experts).isolated.verdict == Verdict::Failed);
    // A bit of a float32 logit or weight beyond bf16's is seen.
    for (const auto& [contract, field] :
         {std::pair("fp32_logits", Field::router_logits), std::pair("vllm", Field::topk_weights)}) {
      Candidate off = run_pipeline("predicted", problem, {contract});
      CHECK(under(problem, off, contract).verdict == Verdict::Passed);
      auto& x = off.fields.at(field).as<float>()[3];
      x = std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) ^ 0x100u);
      CAPTURE(contract);
      CHECK(of(under(problem, off, contract), field).verdict >= Verdict::Suspect);
    }
  }

  TEST_CASE("hf with one rounding point left out is described by exactly that point") {
    const struct {
      Store PrecisionContract::* member;
      std::string_view sentence;
    } points[] = {
        {&PrecisionContract::logits,
         "what the softmax reads of router_logits is not rounded to bf16, which hf does"},
        {&PrecisionContract::weights,
         "what the merge reads of topk_weights is not rounded to bf16, which hf does"},
        {&PrecisionContract::first_gemm,
         "what SwiGLU reads of first_gemm is not rounded to bf16, which hf does"},
        {&PrecisionContract::silu, "silu is not rounded to bf16, which hf does"},
        {&PrecisionContract::intermediate,
         "what the second product reads of intermediate is not rounded to bf16, which hf does"},
        {&PrecisionContract::second_gemm,
         "what the merge reads of second_gemm is not rounded to bf16, which hf does"},
        {&PrecisionContract::weighted, "weight times value is not rounded to bf16, which hf does"},
    };
    const Problem odd = load_fixture("odd");
    const Problem all_experts = load_fixture("all_experts");
    for (const auto& [member, sentence] : points) {
      // odd's 39 weights are too few to tell what the softmax read beyond chance.
      const Problem& problem = member == &PrecisionContract::logits ? all_experts : odd;
      PrecisionContract made_up = find_contract("hf");
      made_up.*member = Store::Unrounded;
      const Candidate candidate = predict_forward(problem, made_up, kDeclared);
      const ContractFit fit = fitted(problem, candidate);
      CAPTURE(sentence);
      const auto found = differing_points(fit.fitted, find_contract("hf"), false);
      REQUIRE(found.size() == 1);
      CHECK(found.front() == sentence);
    }
  }

  TEST_CASE("a candidate that is wrong is not taken for one that rounds elsewhere") {
    const Problem problem = load_fixture("odd");
    Candidate wrong = run_pipeline("predicted", problem, {"hf"});
    for (auto& x : wrong.fields.at(Field::intermediate).as<Bf16>()) x = round_to_bf16(1.5f * to_float(x));
    for (auto& x : wrong.fields.at(Field::hidden_states).as<Bf16>()) x.bits = 0;
    const ContractFit fit = fitted(problem, wrong);
    const auto points = differing_points(fit.fitted, *fit.closest, false);
    CHECK(fit.closest->name == "hf");
    for (const auto& point : points) FAIL_CHECK(point);
  }

  TEST_CASE("gradients tell what the forward pass does not: one backward point left out of a contract") {
    const struct {
      std::string_view from;
      void (*change)(PrecisionContract& contract);
      std::string_view sentence;
    } points[] = {
        {"hf", [](PrecisionContract& c) { c.d_weighted = Store::Unrounded; },
         "d_hidden_states times second_gemm is not rounded to bf16, which hf does"},
        {"hf", [](PrecisionContract& c) { c.d_silu = Store::Unrounded; },
         "d_intermediate times the up half is not rounded to bf16, which hf does"},
        {"hf", [](PrecisionContract& c) { c.d_input_combine = Combine::Fp32Sum; },
         "slots of dX are summed in fp32, where hf adds them in bf16 by ascending expert"},
        {"hf", [](PrecisionContract& c) { c.weight_side = WeightSide::AfterProduct; },
         "the weight is applied after the product of d_hidden_states and down_proj, where hf applies it to "
         "the "
         "output's gradient"},
        {"fused_fp32", [](PrecisionContract& c) { c.d_weights_from = WeightGradientFrom::OutputDotRow; },
         "d_topk_weights is formed from second_gemm, where fused_fp32 forms it from the activation"},
    };
    const Problem many_slots = load_fixture("hot_expert");
    const Problem three_slots = load_fixture("odd");  // two are added alike by either
    for (const auto& [from, change, sentence] : points) {
      const Problem& problem = sentence.starts_with("slots") ? three_slots : many_slots;
      PrecisionContract made_up = find_contract(from);
      change(made_up);
      const Candidate candidate = predict_both_passes(problem, made_up, every_product(kHopper));
      const ContractFit fit = fitted(problem, candidate);
      CAPTURE(sentence);
      CHECK(fit.closest->name == (sentence.starts_with("slots") ? "unsloth" : from));  // hf with that point
      const auto found = differing_points(fit.fitted, find_contract(from), true);
      REQUIRE(found.size() == 1);
      CHECK(found.front() == sentence);
    }
  }

  TEST_CASE("a field that a contract leaves in registers stays accused where it is wrong") {
    const Problem problem = load_fixture("odd");
    const Candidate right = predict_both_passes(problem, find_contract("hf"), every_product(kHopper));
    JudgeOptions options;
    options.reference = make_reference;
    for (const Field field : {Field::first_gemm, Field::d_second_gemm, Field::d_intermediate}) {
      CAPTURE(name(field));
      Candidate wrong = right;
      for (auto& x : wrong.fields.at(field).as<Bf16>()) x = round_to_bf16(1.01 * to_float(x));
      const CaseResult result = judge_best_contract(problem, wrong, options);
      CHECK(result.contract == "hf");
      CHECK(result.verdict == Verdict::Failed);
      CHECK(result.first_own_error == field);
    }
  }

  TEST_CASE("the declared contract is compared as well") {
    const Problem problem = load_fixture("odd");
    Candidate candidate = run_pipeline("predicted", problem, {"hf_eager"});
    candidate.contract = "hf";
    JudgeOptions options;
    options.reference = make_reference;
    const CaseResult result = judge_best_contract(problem, candidate, options);
    CHECK(result.contract == "hf_eager");
    CHECK(result.verdict == Verdict::Passed);
    REQUIRE(result.remarks.size() == 2);
    CHECK(result.remarks.back() ==
          "the candidate differs from contract hf: slots are added in bf16 by ascending expert, where hf "
          "sums them in fp32");
  }
}
