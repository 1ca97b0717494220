#include "harness/judge/intake.h"

#include <doctest/doctest.h>

using namespace assay;

TEST_SUITE("intake") {
  TEST_CASE("a field that a file stores in another form has that verdict, and no stage reads it") {
    Problem problem;
    problem.config = {2, 1, 2, 1, true};
    problem.batch = 1;
    problem.sequence = 3;
    Candidate candidate;
    candidate.misstored[Field::router_logits] = {Verdict::WrongDtype, "expected bfloat16, found float16"};
    candidate.fields.set(Field::topk_weights, Tensor(DType::BFloat16, {3, 1}));
    Intake intake(problem, candidate, kContracts[0]);
    FieldResult logits;
    FieldResult weights;
    FieldResult absent;
    intake.check(Field::router_logits, logits);
    intake.check(Field::topk_weights, weights);
    intake.check(Field::first_gemm, absent);
    CHECK(logits.verdict == Verdict::WrongDtype);
    CHECK(logits.notes == std::vector<std::string>{"expected bfloat16, found float16"});
    CHECK_FALSE(intake.upstream.has(Field::router_logits));
    CHECK(intake.upstream.has(Field::topk_weights));
    CHECK(absent.verdict == FieldResult{}.verdict);
    CHECK_FALSE(intake.upstream.has(Field::first_gemm));
  }
}
