// What was not judged: told, and no pass where it holds values that nothing else explains.
#include "harness/judge/not_judged.h"

#include <limits>

#include <doctest/doctest.h>

using namespace assay;

namespace {

/// One token, one expert, two columns, everything finite.
struct FiniteCase {
  Problem problem;
  Candidate candidate;
  CaseResult result;

  FiniteCase() {
    problem.config = {2, 2, 1, 1, true};
    problem.sequence = 1;
    problem.input = Tensor(DType::BFloat16, {1, 2});
    problem.gate = Tensor(DType::BFloat16, {1, 2});
    problem.experts = stored_experts(std::make_shared<const Tensor>(DType::BFloat16, Shape{1, 4, 2}),
                                     std::make_shared<const Tensor>(DType::BFloat16, Shape{1, 2, 2}));
    candidate.fields.set(Field::hidden_states, Tensor(DType::BFloat16, {1, 2}));
    FieldResult field;
    field.field = Field::hidden_states;
    field.verdict = result.verdict = Verdict::Passed;
    result.fields = {field};
    result.headline = "the field passes";
  }
  void tell(const std::vector<Unjudged>& unjudged) { tell_not_judged(result, problem, candidate, unjudged); }
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_SUITE("not_judged") {
  TEST_CASE("what was not judged is named in the headline, a few of many") {
    FiniteCase one;
    one.tell({});
    CHECK(one.result.headline == "the field passes");
    one.tell({{"d_gate", "the problem has no d_hidden_states", 0}});
    CHECK(one.result.headline ==
          "the field passes; 1 not judged (d_gate), for the problem has no d_hidden_states");
    CHECK(one.result.verdict == Verdict::Passed);
    FiniteCase many;
    std::vector<Unjudged> all(6, {"x", "y", 0});
    all.push_back({"z", "w", 0});
    many.tell(all);
    CHECK(many.result.headline ==
          "the field passes; 6 not judged (x, x, x, x and 2 more), for y; 1 not judged (z), for w");
  }

  TEST_CASE("values that are not finite fail a case in which all else is") {
    FiniteCase one;
    one.tell({{"d_gate", "the problem has no d_hidden_states", 16}});
    CHECK(one.result.verdict == Verdict::NonFinite);
    CHECK(
        one.result.headline ==
        "d_gate holds 16 values that are not finite, while all that was judged is finite; the field passes; "
        "1 not judged (d_gate), for the problem has no d_hidden_states");
  }

  TEST_CASE("they are a remark where an input, a weight or a judged field is not finite either") {
    const auto remarks_only = [](auto spoil) {
      FiniteCase one;
      spoil(one);
      one.tell({{"d_gate", "why", 1}});
      CHECK(one.result.verdict != Verdict::NonFinite);
      REQUIRE(one.result.remarks.size() == 1);
      CHECK(one.result.remarks[0] == "d_gate holds 1 value that is not finite, and was not judged");
    };
    remarks_only([](FiniteCase& one) { one.problem.input.as<Bf16>()[1] = round_to_bf16(kNan); });
    remarks_only([](FiniteCase& one) { one.problem.gate.as<Bf16>()[1] = round_to_bf16(kNan); });
    remarks_only([](FiniteCase& one) {
      auto down = std::make_shared<Tensor>(DType::BFloat16, Shape{1, 2, 2});
      down->as<Bf16>()[3] = round_to_bf16(std::numeric_limits<float>::infinity());
      one.problem.experts =
          stored_experts(std::make_shared<const Tensor>(DType::BFloat16, Shape{1, 4, 2}), down);
    });
    remarks_only([](FiniteCase& one) {
      one.candidate.fields.at(Field::hidden_states).as<Bf16>()[0] = round_to_bf16(kNan);
    });
    remarks_only([](FiniteCase& one) { one.result.verdict = Verdict::Failed; });
  }

  TEST_CASE("a misspelt name is likely the field that is a slip away, another word is none") {
    CHECK(likely_field("/forward/hidden_state") == "hidden_states");
    CHECK(likely_field("/forward/first_gemn") == "first_gemm");
    CHECK(likely_field("/backward/d_gat") == "d_gate");
    CHECK(likely_field("/forward/attention_mask").empty());
    CHECK(likely_field("/backward/experts.down_proj.grad") == "d_down_proj");
    CHECK(likely_field("/backward/gate.weight.grad") == "d_gate");
    CHECK(likely_field("/backward/gate_up_proj_grad") == "d_gate_up_proj");
    CHECK(likely_field("/backward/grad_hidden_states") == "d_input_hidden_states");
    CHECK(likely_field("/backward/d_gate_up") == "d_gate_up_proj");  // begins no other
    CHECK(likely_field("/forward/hidden_").empty());                 // begins two
    CHECK(likely_field("/gradients/d_gate") == "d_gate");
    CHECK(likely_field("/x").empty());
  }

  TEST_CASE("a case of nothing but NaN is seen, and one number is enough against it") {
    FiniteCase one;
    auto values = one.candidate.fields.at(Field::hidden_states).as<Bf16>();
    CHECK_FALSE(nothing_but_nan(one.result, one.candidate));
    values[0] = values[1] = round_to_bf16(kNan);
    CHECK(nothing_but_nan(one.result, one.candidate));
    values[1] = round_to_bf16(1.0f);
    CHECK_FALSE(nothing_but_nan(one.result, one.candidate));
  }
}
