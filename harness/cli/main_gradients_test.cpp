// The judge on float32 weight gradients and on gradients added to those of before.
#include <doctest/doctest.h>

#include <bit>

#include "harness/cli/contract_auto.h"
#include "harness/cli/judged.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/layer.h"
#include "reference_cpu/qwen3_moe.h"

using namespace assay;
using namespace assay::cli;

namespace {

constexpr Field kGradients[] = {Field::d_down_proj, Field::d_gate_up_proj, Field::d_gate};
constexpr std::string_view kMain[] = {"hf_main_grads", "hf_added_main_grads"};

Candidate predicted_layer(const Problem& problem, std::string_view contract) {
  return predict_both_passes(problem, find_contract(contract), every_product({AccumulatorKind::Hopper, {}}),
                             {});
}

/// The same gradients in the other type.
Tensor converted(const Tensor& tensor, DType dtype) {
  Tensor out(dtype, tensor.shape());
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (dtype == DType::Float32)
      out.as<float>()[at] = to_float(tensor.as<Bf16>()[at]);
    else
      out.as<Bf16>()[at] = round_to_bf16(tensor.as<float>()[at]);
  }
  return out;
}

}  // namespace

TEST_SUITE("main gradients") {
  TEST_CASE("float32 gradients are judged like any field: bounds, bits, statistics, wrong copies") {
    for (const char* fixture : {"tiny", "odd", "rows", "hot_expert", "long_segment", "accumulated"})
      for (const auto contract : kMain) {
        CAPTURE(fixture);
        CAPTURE(contract);
        const Problem problem = load_fixture(fixture);
        const CaseResult result = judged(problem, predicted_layer(problem, contract));
        CHECK(result.verdict == Verdict::Passed);
        for (const Field field : kGradients) {
          const FieldResult& found = of(result, field);
          CAPTURE(name(field));
          CHECK(found.dtype == DType::Float32);
          // Its routing, empty_experts, drives some gradients of logits below what the tensor core was
          // measured with.
          const bool open = field == Field::d_gate && std::string_view(fixture) == "accumulated";
          CHECK((found.isolated_bits.undetermined > 0) == open);
          CHECK(found.isolated_bits.differing == 0);
          CHECK(found.isolated_bits.as_predicted + found.isolated_bits.undetermined ==
                element_count(expected_shape(field, problem.sizes())));
          CHECK(found.chained_bits.differing == 0);
          CHECK(found.isolated.max_ratio <= 1.0);
          CHECK_FALSE(found.isolated.bounds.a_priori.empty());
          CHECK(found.vacuity.size() == 4);
          CHECK_FALSE(found.isolated.statistics.tests.empty());
        }
      }
  }

  TEST_CASE("a flipped last bit of a float32 gradient turns that field red and no earlier one") {
    const Problem problem = load_fixture("odd");
    const Candidate right = predicted_layer(problem, "hf_main_grads");
    for (const Field field : kGradients) {
      CAPTURE(name(field));
      Candidate wrong = right;
      auto out = wrong.fields.at(field).as<float>();
      float& victim = out[out.size() / 3];
      victim = std::bit_cast<float>(std::bit_cast<std::uint32_t>(victim) ^ 1u);
      const CaseResult result = judged(problem, wrong);
      // Suspect; where a sum has one row it is exact, and the interval one value: Failed.
      CHECK((result.verdict == Verdict::Suspect || result.verdict == Verdict::Failed));
      CHECK(result.first_own_error == field);
      CHECK(of(result, field).isolated_bits.differing == 1);
      for (const FieldResult& other : result.fields)
        if (other.field != field) CHECK(other.verdict <= Verdict::Passed);
    }
  }

  TEST_CASE("NaN in one element is NonFinite, and the worst element is named by expert, row and column") {
    const Problem problem = load_fixture("odd");
    Candidate wrong = predicted_layer(problem, "hf_main_grads");
    const Shape shape = expected_shape(Field::d_gate_up_proj, problem.sizes());
    auto out = wrong.fields.at(Field::d_gate_up_proj).as<float>();
    out[static_cast<std::size_t>((2 * shape[1] + 3) * shape[2] + 4)] =
        std::numeric_limits<float>::quiet_NaN();
    const CaseResult result = judged(problem, wrong);
    const FieldResult& found = of(result, Field::d_gate_up_proj);
    CHECK(found.verdict == Verdict::NonFinite);
    REQUIRE(found.isolated.worst);
    using At = std::vector<std::pair<std::string, std::int64_t>>;
    CHECK(found.isolated.worst->at == At{{"expert", 2}, {"row", 3}, {"col", 4}});
  }

  TEST_CASE("each contract asks for its own type; float32 that holds bf16 values is read as that") {
    const Problem problem = load_fixture("odd");
    const Candidate hf = predicted_layer(problem, "hf");
    const Candidate wide = predicted_layer(problem, "hf_main_grads");
    for (const Field field : kGradients) {
      CAPTURE(name(field));
      CHECK(of(judged(problem, hf, "hf_main_grads"), field).verdict == Verdict::WrongDtype);
      const CaseResult of_wide = judged(problem, wide, "hf");
      const FieldResult& more = of(of_wide, field);
      CHECK(more.verdict == Verdict::WrongDtype);
      REQUIRE(more.notes.size() == 1);
      CHECK(more.notes[0].starts_with("expected bfloat16, found float32 whose element "));
      Candidate exact = hf;
      exact.fields.set(field, converted(hf.fields.at(field), DType::Float32));
      const CaseResult of_exact = judged(problem, exact);
      const FieldResult& read = of(of_exact, field);
      CHECK(read.verdict == Verdict::Passed);
      CHECK(read.isolated_bits.differing == 0);
    }
  }

  TEST_CASE("gradients of before are added to, under every contract and in both arithmetics") {
    const Problem problem = load_fixture("accumulated");
    for (const auto contract : kKernelContracts) {
      CAPTURE(contract);
      CHECK(judged(problem, predicted_layer(problem, contract)).verdict == Verdict::Passed);
      const Candidate plain = run_pipeline("reference_cpu", problem, {std::string(contract)});
      const CaseResult result = judged(problem, plain);
      CHECK(result.verdict == Verdict::Passed);
      CHECK(result.confirmed_values == result.reference_values);
    }
  }

  TEST_CASE("another way of adding is seen in the gradients and nowhere else") {
    const Problem problem = load_fixture("accumulated");
    const std::pair<std::string_view, std::string_view> pairs[] = {{"hf", "hf_in_place_grads"},
                                                                   {"hf_main_grads", "hf_added_main_grads"}};
    for (const auto& [one, other] : pairs)
      for (const auto& [follows, declares] : {std::pair(one, other), std::pair(other, one)}) {
        CAPTURE(follows);
        const CaseResult result = judged(problem, predicted_layer(problem, follows), declares);
        CHECK(result.verdict >= Verdict::Suspect);
        for (const FieldResult& field : result.fields)
          CHECK((field.verdict > Verdict::Passed) == is_weight_gradient(field.field));
      }
  }

  TEST_CASE("the contract is found that a candidate's gradients follow") {
    const Problem problem = load_fixture("accumulated");
    for (const std::string_view contract :
         {"hf", "hf_in_place_grads", "hf_main_grads", "hf_added_main_grads"}) {
      Candidate candidate = predicted_layer(problem, contract);
      candidate.contract = "auto";
      JudgeOptions options;
      options.reference = make_reference;
      CHECK(judge_best_contract(problem, candidate, options).contract == contract);
    }
  }
}
