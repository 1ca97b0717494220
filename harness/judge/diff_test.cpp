#include "harness/judge/diff.h"

#include <doctest/doctest.h>

#include "harness/judge/fake_reference.h"

using namespace assay;

namespace {

// Two tokens, one of two experts each.
const Sizes kSizes = {{.hidden_size = 2, .moe_intermediate_size = 1, .num_experts = 2, .top_k = 1}, 2};

template <class T, class Value>
void put(FieldSet& fields, Field field, const std::vector<Value>& values) {
  Tensor tensor(DTypeOf<T>::value, expected_shape(field, kSizes));
  for (std::size_t i = 0; i < values.size(); ++i)
    if constexpr (std::is_same_v<T, Bf16>)
      tensor.as<T>()[i] = round_to_bf16(static_cast<double>(values[i]));
    else
      tensor.as<T>()[i] = values[i];
  fields.set(field, std::move(tensor));
}

Candidate candidate() {
  Candidate one;
  put<std::int32_t>(one.fields, Field::selected_experts, std::vector{0, 1});
  put<Bf16>(one.fields, Field::router_logits, std::vector{2.0, 1.0, 3.0, 5.0});
  put<Bf16>(one.fields, Field::second_gemm, std::vector{1.0, 2.0, 3.0, 4.0});
  put<Bf16>(one.fields, Field::hidden_states, std::vector{1.0, 2.0, 3.0, 4.0});
  return one;
}

/// Float64 lies at 3.1 where the candidates have 3.
WrittenAnswers float64() {
  WrittenAnswers answers;
  answers.sizes = kSizes;
  answers.routing = {{0, 1}, {1, 1}, {0, 1, 2}, {0, 1}};
  answers.expect(Field::hidden_states, {1.0, 2.0, 3.1, 4.0}, 0.0);
  answers.expect(Field::second_gemm, {1.0, 2.0, 3.1, 4.0}, 0.0);
  return answers;
}

JudgedSide passing(const Candidate& one, std::string contract) {
  JudgedSide side{&one, {}, find_contract(contract)};
  side.side.legal_under = {contract};
  side.side.judged.contract = contract;
  side.side.judged.verdict = Verdict::Passed;
  return side;
}

Problem problem() {
  Problem one;
  one.config = kSizes.config;
  one.sequence = kSizes.tokens;
  return one;
}

}  // namespace

TEST_SUITE("diff") {
  TEST_CASE("equal candidates do not part, and float64 is not asked for") {
    const Candidate a = candidate();
    WrittenAnswers answers = float64();
    const Parting found = diff(problem(), passing(a, "hf"), passing(a, "hf"), fake_references(answers));
    CHECK(found.sentence ==
          "A and B are bit for bit the same in 4 fields with 14 elements; both are legal under hf");
    CHECK_FALSE(found.first);
    CHECK(answers.asked.empty());
    CHECK(exit_code(found) == ExitCode::Passed);
  }

  TEST_CASE(
      "the first field in order of evaluation that parts is named, with what separates and who is nearer") {
    const Candidate a = candidate();
    Candidate b = candidate();
    b.fields.at(Field::hidden_states).as<Bf16>()[2] = round_to_bf16(3.125);
    WrittenAnswers answers = float64();
    const Parting found = diff(problem(), passing(a, "hf"), passing(b, "hf_eager"), fake_references(answers));
    CHECK(found.first == Field::hidden_states);
    CHECK(found.sentence ==
          "A and B part first at hidden_states: 1 of 4 elements, by at most 8 ulps, first at token 1, col 0; "
          "both "
          "are legal, A under hf, B under hf_eager; in A slots are summed in fp32, where B adds them in bf16 "
          "by "
          "ascending expert; B is nearer to float64 there");
    CHECK(exit_code(found) == ExitCode::Suspect);
    b.fields.at(Field::second_gemm).as<Bf16>()[2] = round_to_bf16(2.0);
    const Parting earlier = diff(problem(), passing(a, "hf"), passing(b, "hf"), fake_references(answers));
    CHECK(earlier.first == Field::second_gemm);
    CHECK(
        earlier.sentence.find("no rounding point separates them: the product's sums take another order; A is "
                              "nearer") != std::string::npos);
  }

  TEST_CASE("a side that is not legal is accused by its own headline, and no rounding point is") {
    const Candidate a = candidate();
    Candidate b = candidate();
    b.fields.at(Field::hidden_states).as<Bf16>()[2] = round_to_bf16(7.0);
    JudgedSide wrong = passing(b, "hf_eager");
    wrong.side.legal_under.clear();
    wrong.side.judged.verdict = Verdict::Failed;
    wrong.side.judged.headline = "hidden_states is the first stage with an error of its own";
    WrittenAnswers answers = float64();
    const Parting found = diff(problem(), passing(a, "hf"), wrong, fake_references(answers));
    CHECK(found.sentence.find(
              "A is legal under hf; B is not legal (nearest to hf_eager): hidden_states is the first "
              "stage with an error of its own; A is nearer") != std::string::npos);
    CHECK(exit_code(found) == ExitCode::Failed);
  }

  TEST_CASE("other experts are counted by token, with the gap of the logits exchanged and ties") {
    const Candidate a = candidate();
    Candidate b = candidate();
    put<std::int32_t>(b.fields, Field::selected_experts, std::vector{1, 1});
    put<Bf16>(b.fields, Field::router_logits, std::vector{1.0, 1.0, 3.0, 5.0});
    const RoutingAgreement found = compare_routing(a.fields, b.fields, kSizes);
    CHECK(found.tokens == 2);
    CHECK(found.same_sets == 1);
    REQUIRE(found.partings.size() == 1);
    CHECK(found.partings[0].only_a == std::vector<std::int64_t>{0});
    CHECK(found.partings[0].only_b == std::vector<std::int64_t>{1});
    CHECK(found.partings[0].gap_a == 1.0);
    CHECK(found.partings[0].gap_b == 0.0);
    CHECK(found.smallest_margin == 1.0);
    CHECK(found.ties == 0);
    CHECK(compare_routing(b.fields, b.fields, kSizes).ties == 1);
  }

  TEST_CASE("what both hold by hashes is compared by hashes") {
    Candidate a = candidate();
    Candidate b = candidate();
    for (Candidate* one : {&a, &b})
      one->held.push_back(
          {Field::d_gate, DType::BFloat16, expected_shape(Field::d_gate, kSizes), {"ab", "cd"}, {}, {}});
    WrittenAnswers answers = float64();
    const auto same = diff(problem(), passing(a, "hf"), passing(b, "hf"), fake_references(answers));
    CHECK_FALSE(same.first);
    CHECK(same.fields.back().hashes == 2);
    b.held[0].sha256[1] = "ce";
    const auto other = diff(problem(), passing(a, "hf"), passing(b, "hf"), fake_references(answers));
    CHECK(other.first == Field::d_gate);
    CHECK(other.sentence.starts_with("A and B part first at d_gate: 1 of 2 hashes; both are legal under hf"));
  }

  TEST_CASE("two candidates without a field in common are compared in nothing") {
    Candidate a;
    Candidate b;
    put<Bf16>(a.fields, Field::hidden_states, std::vector{1.0, 2.0, 3.0, 4.0});
    put<Bf16>(b.fields, Field::second_gemm, std::vector{1.0, 2.0, 3.0, 4.0});
    WrittenAnswers answers = float64();
    const Parting found = diff(problem(), passing(a, "hf"), passing(b, "hf"), fake_references(answers));
    CHECK(found.sentence == "A and B have no field in common: nothing was compared");
    CHECK(exit_code(found) == ExitCode::NothingCompared);
  }

  TEST_CASE("other inputs or weights are another problem, named by field") {
    Problem a = problem();
    a.input = Tensor(DType::BFloat16, {2, 2});
    a.gate = Tensor(DType::BFloat16, {2, 2});
    const auto weights = std::make_shared<Tensor>(DType::BFloat16, Shape{2, 2, 2});
    a.experts = stored_experts(weights, std::make_shared<Tensor>(DType::BFloat16, Shape{2, 2, 1}));
    CHECK_FALSE(other_problem(a, a));
    Problem b = a;
    b.input.as<Bf16>()[3].bits = 1;
    CHECK(other_problem(a, b)->find("input_hidden_states has other values") != std::string::npos);
    b = a;
    const auto other = std::make_shared<Tensor>(*weights);
    other->as<Bf16>()[7].bits = 1;
    b.experts = stored_experts(other, std::make_shared<Tensor>(DType::BFloat16, Shape{2, 2, 1}));
    CHECK(other_problem(a, b)->find("gate_up_proj has other values in B (expert 1)") != std::string::npos);
    b = a;
    b.sequence = 3;
    CHECK(other_problem(a, b)->find("2 tokens in A, 3 in B") != std::string::npos);
  }
}
