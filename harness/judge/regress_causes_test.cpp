// What regress says first, what it folds, and what it says of fields held by hashes.
#include <doctest/doctest.h>
#include <algorithm>

#include "harness/judge/regress_sample.h"

using namespace assay;
using namespace assay::regress_sample;

TEST_SUITE("regress_causes") {
  TEST_CASE("the first cause comes first, then the fields as they are computed; what follows is folded") {
    Report before = report();
    before.cases.resize(1);
    CaseResult& was = before.cases[0];
    was.fields = {field_result(Field::hidden_states), field_result(Field::d_second_gemm),
                  field_result(Field::d_down_proj), field_result(Field::d_first_gemm),
                  field_result(Field::d_gate_up_proj)};
    Report now = before;
    CaseResult& is = now.cases[0];
    for (const std::size_t i : {0u, 2u, 3u}) fail(is, i, 7.0);
    is.fields[4].verdict = is.fields[4].chained.verdict = Verdict::Failed;
    is.first_own_error = Field::d_first_gemm;
    Candidate results;
    for (const Field field :
         {Field::d_first_gemm, Field::d_down_proj, Field::d_gate_up_proj, Field::hidden_states})
      results.fields.set(field, bf16_tensor({6, 8}, 0x3e00));
    Candidate changed = results;
    for (const Field field : {Field::d_first_gemm, Field::d_down_proj, Field::d_gate_up_proj})
      changed.fields.at(field).as<Bf16>()[3].bits ^= 1;
    const auto findings = regress(&before, &now, &results, &changed);
    std::vector<Field> order;
    for (const Finding& one : findings)
      if (one.severity == Severity::Regression && one.field && (order.empty() || order.back() != *one.field))
        order.push_back(*one.field);
    CHECK(order == std::vector{Field::d_first_gemm, Field::hidden_states, Field::d_down_proj});
    CHECK(says(findings, Severity::Regression, "d_gate_up_proj fails with d_first_gemm"));
    CHECK_FALSE(says(findings, Severity::Regression, "changed with"));  // that it fails says as much
    // Changed bits of a field that fails are not legal.
    CHECK(says(findings, Severity::Regression, "d_first_gemm: Failed, Passed before: it fails now; "));
    CHECK(says(findings, Severity::Regression, "of what is allowed; 1 of 48 elements changed"));
    CHECK_FALSE(says(findings, Severity::Legal, "elements changed"));
    // How far those that follow changed is kept, for an approval not to cover more.
    const auto folded = std::ranges::find_if(findings, [](const Finding& one) {
      return one.sentence == "d_gate_up_proj fails with d_first_gemm";
    });
    REQUIRE(folded != findings.end());
    REQUIRE(folded->figures.size() == 4);
    CHECK(folded->figures[2].what == "d_gate_up_proj changed elements");
    CHECK(folded->figures[2].now == 1);
    was.fields[4].verdict = was.fields[4].chained.verdict = Verdict::Failed;  // before as well
    was.first_own_error = Field::d_first_gemm;
    CHECK(says(regress(&before, &now, &results, &changed), Severity::Regression,
               "d_gate_up_proj changed with d_first_gemm"));
  }

  TEST_CASE("who fails beside the first cause, and does not descend from it, follows nobody") {
    Report before = report();
    before.cases.resize(1);
    before.cases[0].fields = {field_result(Field::d_down_proj), field_result(Field::d_gate_up_proj)};
    Report now = before;
    fail(now.cases[0], 0, 7.0);
    now.cases[0].first_own_error = Field::d_down_proj;
    now.cases[0].fields[1].verdict = now.cases[0].fields[1].chained.verdict = Verdict::Failed;
    CHECK(says(regress(before, now), Severity::Regression, "d_gate_up_proj: Failed, Passed before"));
  }

  TEST_CASE("why a field fails stands behind its verdict, and nothing that explains less than nine tenths") {
    Report now = report();
    fail(now.cases[0], 1, 7.0);
    now.cases[0].fields[1].causes = {
        {.hypothesis = "k_dropped", .sentence = "the last 8 of K are missing", .explained = 0.95}};
    CHECK(
        says(regress(report(), now), Severity::Regression,
             "second_gemm: Failed, Passed before: it fails now; the last 8 of K are missing (explains 95.0 % "
             "of the error); "));
    now.cases[0].fields[1].causes[0].explained = 0.5;
    CHECK_FALSE(says(regress(report(), now), Severity::Regression, "are missing"));
    // The same field with the same figures is no change, whatever its cause.
    CHECK_FALSE(says(regress(now, now), Severity::Regression, "second_gemm"));
  }

  TEST_CASE("what both ways of judging say alike is said once") {
    Report before = report();
    Report now = before;
    fail(now.cases[0], 1, 7.0);
    for (Report* one : {&before, &now}) one->cases[0].fields[1].chained = one->cases[0].fields[1].isolated;
    CHECK(says(regress(before, now), Severity::Regression,
               "; isolated and chained: the largest error grew from "));
    CHECK_FALSE(says(regress(before, now), Severity::Regression, "; chained: "));
    now.cases[0].fields[1].chained.max_ratio = 8.0;
    CHECK(says(regress(before, now), Severity::Regression, "; isolated: the largest error grew from "));
    CHECK(says(regress(before, now), Severity::Regression, "; chained: the largest error grew from "));
  }

  TEST_CASE("a field that passed and is suspect now is no legal change") {
    Report now = report();
    now.cases[0].fields[1].verdict = now.cases[0].fields[1].isolated.verdict = Verdict::Suspect;
    CHECK(says(regress(report(), now), Severity::Regression,
               "second_gemm: Suspect, Passed before: it no longer passes"));
    CHECK(says(regress(now, report()), Severity::Legal, "second_gemm: Passed, Suspect before"));
  }

  TEST_CASE("of fields held by hashes the experts that changed are named") {
    HeldField held{Field::d_down_proj, DType::BFloat16, {4, 8, 2}, {"a", "b", "c", "d"}, {}, {}};
    HeldField other = held;
    other.sha256 = {"a", "x", "c", "y"};
    CHECK(says(regress({held}, {other}), Severity::Legal,
               "d_down_proj: 2 of 4 experts changed, by their hashes: 1, 3"));
    CHECK(regress({held}, {other}).front().figures.front().now == 2);
    CHECK(says(regress({held}, {held}), Severity::Same, "d_down_proj is the same by its hashes"));
    CHECK(says(regress({held}, {}), Severity::Regression, "d_down_proj is no longer written"));
    CHECK(says(regress({}, {held}), Severity::Legal, "d_down_proj is newly written"));
    other.shape = {4, 8, 3};
    CHECK(says(regress({held}, {other}), Severity::Regression,
               "d_down_proj: hashes of bfloat16 [4, 8, 3], of bfloat16 [4, 8, 2] before"));
    HeldField whole{Field::d_first_gemm, DType::BFloat16, {4, 8}, {"a"}, {}, {}};
    HeldField changed = whole;
    changed.sha256 = {"b"};
    CHECK(says(regress({whole}, {changed}), Severity::Legal, "d_first_gemm changed: it has another hash"));
  }

  TEST_CASE("a field that is newly written, or no longer, is one line beside its verdicts") {
    Report before;
    before.cases = {case_result("tiny", "gpu_fused")};
    Report now = before;
    FieldResult& field = before.cases[0].fields[1];
    field.verdict = field.isolated.verdict = field.chained.verdict = Verdict::NotMaterialised;
    Candidate with;
    with.fields.set(Field::second_gemm, bf16_tensor({6, 8}, 0x3e00));
    const Candidate without;
    const auto lines = [](const std::vector<Finding>& findings) {
      return std::ranges::count(findings, std::optional(Field::second_gemm), &Finding::field);
    };
    const auto newly = regress(&before, &now, &without, &with);
    CHECK(lines(newly) == 1);
    CHECK_FALSE(says(newly, Severity::Legal, "newly written"));
    CHECK(says(newly, Severity::Legal, "second_gemm: Passed"));
    const auto gone = regress(&now, &before, &with, &without);
    CHECK(lines(gone) == 1);
    CHECK(gone.front().severity == Severity::Regression);
  }
}
