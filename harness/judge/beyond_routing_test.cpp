// Routing is wrong, and a stage behind it, too: which errors the routing explains.
#include "harness/judge/beyond_routing.h"

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "harness/judge/fake_reference.h"
#include "harness/judge/judge.h"

using namespace assay;

namespace {

/// Four tokens, three experts, one choice each: tokens 0 and 3 to expert 0, 1 to expert 1, 2 to expert 2.
struct RoutedCase {
  Problem problem;
  Candidate candidate;
  WrittenAnswers answers;
  JudgeOptions options;

  RoutedCase() {
    problem.config = {4, 2, 3, 1, true};
    problem.sequence = 4;
    answers.sizes = problem.sizes();
    answers.routing = {{0, 1, 2, 0}, {2, 1, 1}, {0, 2, 3, 4}, {0, 3, 1, 2}};
    answers.integers = {{Field::selected_experts, answers.routing.selected},
                        {Field::token_counts_by_expert, answers.routing.counts},
                        {Field::gather_indices, answers.routing.gather}};
    rounded(Field::router_logits, {3, 2, 1, 1, 3, 2, 2, 1, 3, 3, 1, 2});
    rounded(Field::first_gemm, counted(16));
    rounded(Field::second_gemm, counted(16));
    rounded(Field::hidden_states, counted(16));
    integers(Field::selected_experts, {0, 1, 2, 0});
    integers(Field::token_counts_by_expert, {2, 1, 1});
    integers(Field::gather_indices, {0, 3, 1, 2});
    options.reference = fake_references(answers);
  }

  static std::vector<double> counted(int count) {
    std::vector<double> values;
    for (int i = 1; i <= count; ++i) values.push_back(i);
    return values;
  }
  void rounded(Field field, const std::vector<double>& values) {
    Tensor tensor(DType::BFloat16, expected_shape(field, problem.sizes()));
    std::ranges::transform(values, tensor.as<Bf16>().begin(), [](double x) { return round_to_bf16(x); });
    candidate.fields.set(field, std::move(tensor));
    answers.expect(field, values, 0.01);
  }
  void integers(Field field, const std::vector<std::int32_t>& values) {
    Tensor tensor(DType::Int32, expected_shape(field, problem.sizes()));
    std::ranges::copy(values, tensor.as<std::int32_t>().begin());
    candidate.fields.set(field, std::move(tensor));
  }
  void spoil(Field field, std::int64_t r, std::int64_t columns = 1) {
    const auto width = width_of(field, problem.sizes());
    for (std::int64_t c = 0; c < columns; ++c)
      candidate.fields.at(field).as<Bf16>()[static_cast<std::size_t>(r * width + c)] = round_to_bf16(99.0);
  }
  /// What was computed from wrong values: as they give it, and not as the inputs do.
  void spoil_chained(Field field) { answers.intervals[{field, Mode::Chained}][0] = {77.0, 76.0, 78.0}; }
  std::string said() { return judge(problem, candidate, options).headline; }
};

bool accused(const std::string& headline, const char* field) {
  return headline.find(std::string(field) + " has an error of its own too") != std::string::npos;
}

}  // namespace

TEST_SUITE("beyond_routing") {
  TEST_CASE("errors in rows that wrong indices do not reach are a stage's own") {
    RoutedCase e;
    e.integers(Field::gather_indices, {0, 3, 2, 1});
    e.spoil(Field::first_gemm, 2, 4);
    e.spoil(Field::first_gemm, 3, 4);
    CHECK(e.said().starts_with("gather_indices is the first stage with an error of its own"));
    CHECK_FALSE(accused(e.said(), "first_gemm"));
    e.spoil(Field::first_gemm, 1, 3);
    CHECK(accused(e.said(), "first_gemm"));
    const auto result = judge(e.problem, e.candidate, e.options);
    const auto first = std::ranges::find(result.fields, Field::first_gemm, &FieldResult::field);
    CHECK(first->notes.back() ==
          "3 of its rejected elements lie in rows that the wrong gather_indices does not reach");
    CHECK(first->isolated.verdict == Verdict::Failed);
  }

  TEST_CASE("rows in an order that wrong indices do not tell are nobody's error") {
    RoutedCase e;
    e.integers(Field::gather_indices,
               {3, 3, 1, 2});  // expert 0's rows are in descending order, its indices wrong
    e.spoil(Field::first_gemm, 1, 4);
    CHECK_FALSE(accused(e.said(), "first_gemm"));
    e.candidate.fields.erase(Field::first_gemm);
    e.candidate.fields.erase(Field::second_gemm);
    e.spoil(Field::hidden_states, 3, 4);
    CHECK_FALSE(accused(e.said(), "hidden_states"));
  }

  TEST_CASE("an index twice reaches the slot that it takes another row to") {
    RoutedCase e;
    e.integers(Field::gather_indices, {0, 3, 1, 1});  // slot 1 twice, slot 2 never
    e.candidate.fields.erase(Field::first_gemm);
    e.candidate.fields.erase(Field::second_gemm);
    e.spoil(Field::hidden_states, 1);
    e.spoil(Field::hidden_states, 2);
    CHECK_FALSE(accused(e.said(), "hidden_states"));
    e.spoil(Field::hidden_states, 3);
    CHECK(accused(e.said(), "hidden_states"));
  }

  TEST_CASE("wrong counts reach the rows that change their expert by them") {
    RoutedCase e;
    e.integers(Field::token_counts_by_expert, {1, 2, 1});
    e.spoil(Field::second_gemm, 1);  // expert 0's, which the counts give to expert 1
    CHECK_FALSE(accused(e.said(), "second_gemm"));
    e.spoil(Field::second_gemm, 3);
    e.spoil_chained(Field::hidden_states);
    CHECK(e.said().ends_with("; second_gemm has an error of its own too, which hidden_states inherits"));
    e = {};
    e.options.reference = fake_references(e.answers);
    e.integers(Field::token_counts_by_expert, {2, 1, 0});  // a row too few
    e.spoil(Field::second_gemm, 3);
    CHECK_FALSE(accused(e.said(), "second_gemm"));
  }

  TEST_CASE("wrong ids reach their tokens, and rows that stand elsewhere by them") {
    RoutedCase e;
    e.integers(Field::selected_experts, {0, 1, 1, 0});
    e.candidate.fields.erase(Field::gather_indices);
    e.candidate.fields.erase(Field::token_counts_by_expert);
    for (const Field field : {Field::first_gemm, Field::second_gemm}) e.candidate.fields.erase(field);
    e.spoil(Field::hidden_states, 2, 4);
    CHECK(e.said().starts_with("selected_experts is the first stage with an error of its own"));
    CHECK_FALSE(accused(e.said(), "hidden_states"));
    e.spoil(Field::hidden_states, 0);
    CHECK(accused(e.said(), "hidden_states"));
  }

  TEST_CASE("lists of integers behind wrong ids are judged by the ids") {
    RoutedCase e;
    e.integers(Field::selected_experts, {0, 1, 7, 0});
    e.integers(Field::gather_indices, {0, 3, 2, 1});
    CHECK_FALSE(accused(e.said(), "gather_indices"));
  }

  TEST_CASE("behind a stage that failed nothing is anybody's own") {
    RoutedCase e;
    e.integers(Field::gather_indices, {0, 3, 2, 1});
    e.spoil(Field::second_gemm, 0, 4);
    e.spoil(Field::hidden_states, 0, 4);
    e.answers.isolated_from = {};
    CHECK_FALSE(accused(e.said(), "hidden_states"));
  }
}
