// The judge beside a reference whose answers are written down: what it asks, and what verdict follows from
// which answer. Two tokens, three experts, one choice each.
#include "harness/judge/judge.h"

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "harness/contract/engine.h"
#include "harness/judge/fake_reference.h"

using namespace assay;

namespace {

const std::vector<double> kLogits = {1, 2, 3, 3, 1, 2};               // [T, E]
const std::vector<double> kFirst = {1, 2, 3, 4, 5, 6, 7, 8};          // [S, 2I]
const std::vector<double> kOutput = {9, 10, 11, 12, 13, 14, 15, 16};  // [T, H]

/// A problem, a candidate without the fields between first_gemm and the output, and the answers it passes
/// with.
struct AnsweredCase {
  Problem problem;
  Candidate candidate;
  WrittenAnswers answers;
  JudgeOptions options;

  AnsweredCase() {
    problem.name = "example";
    problem.config = {4, 2, 3, 1, true};
    problem.sequence = 2;
    set(Field::router_logits, kLogits);
    set(Field::first_gemm, kFirst);
    set(Field::hidden_states, kOutput);
    set(Field::selected_experts, std::vector<std::int32_t>{2, 0});
    set(Field::token_counts_by_expert, std::vector<std::int32_t>{1, 0, 1});
    set(Field::gather_indices, std::vector<std::int32_t>{1, 0});
    answers.sizes = problem.sizes();
    answers.routing = {{2, 0}, {1, 0, 1}, {0, 1, 1, 2}, {1, 0}};
    answers.expect(Field::router_logits, kLogits, 0.01);
    answers.expect(Field::first_gemm, kFirst, 0.01);
    answers.expect(Field::hidden_states, kOutput, 0.01);
    answers.integers = {{Field::selected_experts, answers.routing.selected},
                        {Field::token_counts_by_expert, answers.routing.counts},
                        {Field::gather_indices, answers.routing.gather}};
    answers.isolated_from[Field::hidden_states] = "second_gemm, intermediate";
    options.reference = fake_references(answers);
  }

  void set(Field field, const std::vector<double>& values) {
    Tensor tensor(DType::BFloat16, expected_shape(field, problem.sizes()));
    std::ranges::transform(values, tensor.as<Bf16>().begin(), [](double x) { return round_to_bf16(x); });
    candidate.fields.set(field, std::move(tensor));
  }
  void set(Field field, const std::vector<std::int32_t>& values) {
    Tensor tensor(DType::Int32, expected_shape(field, problem.sizes()));
    std::ranges::copy(values, tensor.as<std::int32_t>().begin());
    candidate.fields.set(field, std::move(tensor));
  }

  /// Bits of everything are predicted, and every accumulator is declared where `binding`.
  void predict_all(bool binding) {
    answers.predict(Field::router_logits, kLogits);
    answers.predict(Field::first_gemm, kFirst);
    answers.predict(Field::hidden_states, kOutput);
    candidate.compute_capability = "9.0";
    if (binding) candidate.accumulators = every_product({AccumulatorKind::Hopper, {}});
  }

  CaseResult judged() { return judge(problem, candidate, options); }
};

const FieldResult& of(const CaseResult& result, Field field) {
  return *std::ranges::find(result.fields, field, &FieldResult::field);
}

}  // namespace

TEST_SUITE("judge") {
  TEST_CASE("what the reference expects passes; fields that are not written are not asked for") {
    AnsweredCase e;
    const auto result = e.judged();
    CHECK(result.verdict == Verdict::Passed);
    CHECK(result.headline == "all 6 fields pass");
    CHECK(of(result, Field::intermediate).verdict == Verdict::NotMaterialised);
    CHECK(of(result, Field::hidden_states).upstream == "second_gemm, intermediate");
    CHECK(result.expert_load == std::vector<std::int64_t>{1, 0, 1});
    CHECK(e.answers.asked_for_causes.empty());
    for (const auto& [asked, rows] : e.answers.asked) CHECK(e.candidate.fields.has(asked.first));
  }

  TEST_CASE("an element outside its isolated interval fails its field, which is named with its cause") {
    AnsweredCase e;
    e.candidate.fields.at(Field::first_gemm).as<Bf16>()[5] = round_to_bf16(6.25);
    e.answers.causes[Field::first_gemm] = {{"last_k", "the last element of K is missing", 0.998, false}};
    const auto result = e.judged();
    CHECK(result.first_own_error == Field::first_gemm);
    CHECK(of(result, Field::first_gemm).isolated.rejected == 1);
    CHECK(result.headline ==
          "first_gemm is the first stage with an error of its own: the last element of K is missing "
          "(explains 99.8 % of the error)");
    CHECK(e.answers.asked_for_causes == std::vector{Field::first_gemm});
    e.options.causes = false;
    CHECK(e.judged().first_own_error == Field::first_gemm);
    CHECK(e.answers.asked_for_causes.size() == 1);
  }

  TEST_CASE("an element outside its chained interval alone accuses nobody") {
    AnsweredCase e;
    for (Interval& x : e.answers.intervals[{Field::hidden_states, Mode::Chained}]) x.low = x.ref = x.high;
    e.answers.intervals[{Field::hidden_states, Mode::Chained}][3] = {13, 12.99, 13.01};
    const auto result = e.judged();
    CHECK(result.verdict == Verdict::Failed);
    CHECK(of(result, Field::hidden_states).isolated.verdict == Verdict::Passed);
    CHECK_FALSE(result.first_own_error.has_value());
  }

  TEST_CASE("where both modes see the same, the reference is asked once") {
    AnsweredCase e;
    e.answers.same_in_both_modes = {Field::first_gemm};
    e.answers.intervals.erase({Field::first_gemm, Mode::Chained});
    const auto result = e.judged();
    CHECK(result.verdict == Verdict::Passed);
    CHECK(of(result, Field::first_gemm).chained.elements == 8);
  }

  TEST_CASE("a bit beside a binding prediction is suspect, and for information where nothing is declared") {
    for (const bool binding : {true, false}) {
      AnsweredCase e;
      e.predict_all(binding);
      e.answers.bits[{Field::first_gemm, Mode::Isolated}][2].bits ^= 1;
      e.answers.causes[Field::first_gemm] = {{"split_k", "K is split in two", 1.0, true}};
      const auto result = e.judged();
      const FieldResult& field = of(result, Field::first_gemm);
      CHECK(result.verdict == (binding ? Verdict::Suspect : Verdict::Passed));
      CHECK(field.isolated_bits.binding == binding);
      CHECK(field.isolated_bits.differing == 1);
      CHECK(field.isolated_bits.as_predicted == 7);
      if (binding) CHECK(field.isolated_bits.cause == "K is split in two: explains all 1 of them");
    }
  }

  TEST_CASE("behind fields that are not written no bit is promised, but the chain's") {
    AnsweredCase e;
    e.predict_all(true);
    const auto result = e.judged();
    CHECK(result.verdict == Verdict::Passed);
    CHECK_FALSE(of(result, Field::hidden_states).isolated_bits.binding);
    CHECK(of(result, Field::first_gemm).isolated_bits.binding);
  }

  TEST_CASE("without a declared accumulator or a Hopper GPU nothing is predicted") {
    AnsweredCase e;
    e.predict_all(false);
    e.candidate.compute_capability = "8.0";
    CHECK_FALSE(of(e.judged(), Field::first_gemm).isolated_bits.available);
  }

  TEST_CASE("a reference that accepts anything is mistrusted") {
    AnsweredCase e;
    for (Interval& x : e.answers.intervals[{Field::first_gemm, Mode::Isolated}]) x.low = -100, x.high = 100;
    const auto result = e.judged();
    CHECK(result.verdict == Verdict::Mistrusted);
    CHECK(of(result, Field::first_gemm).verdict == Verdict::Mistrusted);
    CHECK_FALSE(result.first_own_error.has_value());
  }

  TEST_CASE("a wrong integer fails its field") {
    AnsweredCase e;
    e.answers.integers[Field::token_counts_by_expert] = {1, 1, 0};
    const auto result = e.judged();
    CHECK(of(result, Field::token_counts_by_expert).isolated.rejected == 2);
    CHECK(result.first_own_error == Field::token_counts_by_expert);
  }

  TEST_CASE("another expert than the logits' fails the selection, an equal one does not") {
    AnsweredCase e;
    e.set(Field::selected_experts, std::vector<std::int32_t>{1, 0});
    CHECK(e.judged().first_own_error == Field::selected_experts);
    AnsweredCase tied;
    const std::vector<double> logits = {1, 3, 3, 3, 1, 2};
    tied.set(Field::router_logits, logits);
    tied.answers.expect(Field::router_logits, logits, 0.01);
    tied.set(Field::selected_experts, std::vector<std::int32_t>{2, 0});
    const auto result = tied.judged();
    CHECK(of(result, Field::selected_experts).verdict == Verdict::Passed);
    REQUIRE(result.flips.size() == 1);
    CHECK(result.flips[0].tier == RoutingTier::ExactTie);
  }

  TEST_CASE("fields of wrong shape are verdicts and are not offered to the reference") {
    AnsweredCase e;
    e.candidate.fields.set(Field::first_gemm, Tensor(DType::BFloat16, {3, 3}));
    FieldFlags offered{};
    e.options.reference = [&](const Problem&, const Upstream& upstream, const PrecisionContract&,
                              const Accumulators&, bool predict, const Engine*) {
      offered = upstream.usable;
      return std::unique_ptr<Reference>(std::make_unique<FakeReference>(e.answers, predict));
    };
    const auto result = e.judged();
    CHECK(of(result, Field::first_gemm).verdict == Verdict::WrongShape);
    CHECK_FALSE(offered[static_cast<std::size_t>(Field::first_gemm)]);
    CHECK(offered[static_cast<std::size_t>(Field::router_logits)]);
    AnsweredCase nothing;
    nothing.candidate.fields = {};
    nothing.options.reference = nullptr;  // not asked for
    CHECK(nothing.judged().verdict == Verdict::NotMaterialised);
  }

  TEST_CASE("one stage can be asked for alone") {
    AnsweredCase e;
    e.options.only = {Stage::GateUp};
    e.answers.expect(Field::hidden_states, std::vector<double>(8, 0.0), 0.01);  // would fail
    const auto result = e.judged();
    CHECK(result.verdict == Verdict::Passed);
    CHECK(result.headline == "the field passes");
  }

  TEST_CASE("the reference gets the contract, accumulators and engine that were asked for") {
    AnsweredCase e;
    Engine engine;  // takes nothing over
    e.options.contract = "hf_eager";
    e.options.accumulators = every_product({AccumulatorKind::Ampere, {}});
    e.options.engine = &engine;
    e.candidate.ties = TieRule::LowestIndex;
    bool made = false;
    e.options.reference = [&](const Problem&, const Upstream&, const PrecisionContract& contract,
                              const Accumulators& accumulators, bool predict, const Engine* offered) {
      made = true;
      CHECK(offered == &engine);
      CHECK(contract.name == "hf_eager");
      CHECK(contract.ties == TieRule::LowestIndex);
      CHECK(contract.product_slack == 2.0);
      CHECK(accumulators[ProductId::down].kind == AccumulatorKind::Ampere);
      CHECK(predict);
      return std::unique_ptr<Reference>(std::make_unique<FakeReference>(e.answers, false));
    };
    e.judged();
    CHECK(made);
  }
}
