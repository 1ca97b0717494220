#include "harness/judge/regress_sample.h"

#include <doctest/doctest.h>
#include <algorithm>
#include <limits>

#include "harness/contract/error.h"

using namespace assay;
using namespace assay::regress_sample;

namespace {

FieldSet fields() {
  FieldSet f;
  f.set(Field::input_hidden_states, bf16_tensor({3, 8}, 0x3f00));
  f.set(Field::second_gemm, bf16_tensor({6, 8}, 0x3e00));
  f.set(Field::selected_experts, Tensor(DType::Int32, {3, 2}));
  return f;
}

}  // namespace

TEST_SUITE("regress") {
  TEST_CASE("a report against itself is the same, and says how much was compared") {
    const auto findings = regress(report(), report());
    REQUIRE(findings.size() == 1);
    CHECK(findings[0].sentence ==
          "no difference in 2 cases and 6 fields: verdicts, error ratios and counts of bits are the same");
    CHECK(exit_code(worst(findings)) == ExitCode::Passed);
  }

  TEST_CASE("a newly failing field is a regression that names case, field and both verdicts") {
    Report now = report();
    fail(now.cases[1], 1, 12.5);
    const auto findings = regress(report(), now);
    CHECK(says(findings, Severity::Regression,
               "odd, gpu_fused: second_gemm: Failed, Passed before: it fails now"));
    CHECK(exit_code(worst(findings)) == ExitCode::Failed);
    // The way back is a change, not a regression.
    CHECK(says(regress(now, report()), Severity::Legal, "second_gemm: Passed, Failed before"));
    CHECK(worst(regress(now, report())) == Severity::Legal);
  }

  TEST_CASE("a failing field that fails further off is a regression, the same failure is not") {
    Report before = report();
    Report now = report();
    fail(before.cases[0], 1, 2.0);
    fail(now.cases[0], 1, 2.0);
    CHECK(worst(regress(before, now)) == Severity::Same);
    fail(now.cases[0], 1, 200.0);
    CHECK(says(regress(before, now), Severity::Regression, "grew from 2 to 200 of what is allowed"));
    fail(now.cases[0], 1, std::numeric_limits<double>::infinity());
    CHECK(worst(regress(before, now)) == Severity::Regression);
  }

  TEST_CASE("fields that must match exactly are measured by wrong elements, not by ratios") {
    Report before = report();
    Report now = report();
    for (Report* r : {&before, &now}) {
      r->cases[0].fields[0].field = Field::gather_indices;
      fail(r->cases[0], 0, std::numeric_limits<double>::infinity());
      r->cases[0].fields[0].isolated.rejected = 2;
    }
    CHECK(worst(regress(before, now)) == Severity::Same);
    now.cases[0].fields[0].isolated.rejected = 9;
    CHECK(says(regress(before, now), Severity::Regression,
               "gather_indices: isolated: 9 of 100 elements wrong, 2 before"));
    now = report();
    now.cases[0].fields[0].field = Field::gather_indices;
    CHECK_FALSE(says(regress(now, before), Severity::Legal, "grew"));
  }

  TEST_CASE("error ratios count as grown by 1.5 times and by 0.05, both") {
    const auto growth = [](double before_ratio, double now_ratio) {
      Report before = report();
      Report now = report();
      before.cases[0].fields[0].chained.max_ratio = before_ratio;
      now.cases[0].fields[0].chained.max_ratio = now_ratio;
      return worst(regress(before, now));
    };
    CHECK(growth(0.4, 0.59) == Severity::Same);
    CHECK(growth(0.4, 0.61) == Severity::Legal);
    CHECK(growth(0.01, 0.05) == Severity::Same);
    CHECK(growth(0.01, 0.07) == Severity::Legal);
    CHECK(growth(0.0, 0.06) == Severity::Legal);
    CHECK(growth(0.9, 0.1) == Severity::Same);
  }

  TEST_CASE("growth is legal within the bound and with a passing verdict only") {
    const auto finding = [](Verdict verdict, double ratio) {
      Report now = report();
      now.cases[0].fields[1].isolated.verdict = verdict;
      now.cases[0].fields[1].isolated.max_ratio = ratio;
      for (const Finding& one : regress(report(), now))
        if (one.sentence.find("grew") != std::string::npos) return one;
      return Finding{};
    };
    CHECK(finding(Verdict::Passed, 0.9).severity == Severity::Legal);
    CHECK(finding(Verdict::Suspect, 0.9).severity == Severity::Regression);
    CHECK(finding(Verdict::Passed, 1.2).severity == Severity::Regression);
    const auto large = finding(Verdict::Failed, 1.61e40);
    CHECK(large.severity == Severity::Regression);
    CHECK(large.sentence.find("grew from 0.4 to 1.61e+40 of what is allowed") != std::string::npos);
    CHECK(large.sentence.find("legal") == std::string::npos);
  }

  TEST_CASE("what fails with the first field that has an error of its own is one finding") {
    Report now = report();
    CaseResult& one = now.cases[0];
    fail(one, 1, 7.0);
    one.first_own_error = Field::second_gemm;
    one.fields[2].verdict = one.fields[2].chained.verdict = Verdict::Failed;
    one.fields[2].chained.max_ratio = 900.0;
    auto findings = regress(report(), now);
    CHECK(says(findings, Severity::Regression, "hidden_states fails with second_gemm"));
    CHECK_FALSE(says(findings, Severity::Regression, "hidden_states: chained"));
    CHECK(says(findings, Severity::Regression, "second_gemm: Failed, Passed before: it fails now"));
    // One with an error of its own follows nobody.
    one.fields[2].isolated.verdict = Verdict::Failed;
    findings = regress(report(), now);
    CHECK(says(findings, Severity::Regression, "hidden_states: Failed, Passed before"));
  }

  TEST_CASE("counts of bits that changed are legal changes with both counts") {
    Report now = report();
    now.cases[0].fields[2].isolated_bits.as_predicted = 96;
    now.cases[0].fields[2].isolated_bits.differing = 4;
    now.cases[0].fields[1].isolated.mismatched = 5;
    const auto findings = regress(report(), now);
    CHECK(says(findings, Severity::Legal,
               "hidden_states: isolated: bits as predicted: 96 of 100, 100 of 100 before"));
    CHECK(says(findings, Severity::Legal,
               "second_gemm: isolated: 5 of 100 elements differ from the rounded reference, 3 before"));
    CHECK(exit_code(worst(findings)) == ExitCode::Suspect);
    now.cases[0].fields[2].isolated_bits.available = false;
    CHECK(says(regress(report(), now), Severity::Legal,
               "hidden_states: isolated: bits are no longer predicted"));
  }

  TEST_CASE("a field is one line, and one that fails is never called legal") {
    Report before = report();
    Report now = report();
    fail(now.cases[0], 1, 12.5);
    now.cases[0].fields[1].isolated.rejected = 9;
    now.cases[0].fields[1].isolated.mismatched = 12;
    auto findings = regress(report(), now);
    REQUIRE(findings.size() == 1);
    CHECK(
        findings[0].sentence ==
        "tiny, gpu_fused: second_gemm: Failed, Passed before: it fails now; isolated: 9 of 100 elements "
        "outside the bound, 0 before; isolated: the largest error grew from 0.4 to 12.5 of what is allowed; "
        "isolated: 12 of 100 elements differ from the rounded reference, 3 before");
    CHECK(findings[0].field == Field::second_gemm);
    CHECK(findings[0].figures.size() == 3);
    // It failed before as well: other bits are no legal change, more wrong elements a regression.
    fail(before.cases[0], 1, 12.5);
    before.cases[0].fields[1].isolated.rejected = 9;
    findings = regress(before, now);
    CHECK(says(findings, Severity::Same, "3 before; it still fails"));
    CHECK(worst(findings) == Severity::Same);
    now.cases[0].fields[1].isolated.rejected = 10;
    CHECK(says(regress(before, now), Severity::Regression, "10 of 100 elements outside the bound, 9 before"));
    now.cases[0].fields[1].verdict = Verdict::NonFinite;
    CHECK(says(regress(before, now), Severity::Regression, "NonFinite, Failed before: it fails worse"));
    CHECK(worst(regress(now, before)) == Severity::Same);
  }

  TEST_CASE("changed bits of a field that fails join its line and are not legal") {
    Report before = report();
    Report now = report();
    before.cases.pop_back();
    now.cases.pop_back();
    fail(now.cases[0], 1, 12.5);
    Candidate results;
    results.fields = fields();
    Candidate changed = results;
    changed.fields.at(Field::second_gemm).as<Bf16>()[3].bits += 2;
    auto findings = regress(&before, &now, &results, &changed);
    CHECK(says(findings, Severity::Regression, "it fails now; isolated"));
    CHECK(says(findings, Severity::Regression, "; 1 of 48 elements changed"));
    CHECK(std::ranges::count_if(findings, [](const Finding& f) { return f.field == Field::second_gemm; }) ==
          1);
    findings = regress(&now, &now, &results, &changed);
    CHECK(says(findings, Severity::Regression, "second_gemm: 1 of 48 elements changed"));
    CHECK(says(findings, Severity::Regression, "; it is Failed"));
    CHECK(exit_code(worst(findings)) == ExitCode::Failed);
  }

  TEST_CASE("what is missing is a regression, what is new is a change") {
    Report fewer = report();
    fewer.cases[0].fields.pop_back();
    CHECK(says(regress(report(), fewer), Severity::Regression,
               "tiny, gpu_fused: hidden_states is missing, Passed before"));
    CHECK(says(regress(fewer, report()), Severity::Legal, "hidden_states is new: Passed"));
    fewer.cases.pop_back();
    CHECK(says(regress(report(), fewer), Severity::Regression, "case odd, gpu_fused is missing"));
    CHECK(says(regress(fewer, report()), Severity::Legal, "case odd, gpu_fused is new: Passed"));
    Report absent = report();
    absent.cases[0].fields[0].verdict = Verdict::NotMaterialised;
    CHECK(says(regress(report(), absent), Severity::Regression, "no longer compared"));
  }

  TEST_CASE("nothing compared is a regression, never the same") {
    CHECK(worst(regress(Report{}, Report{})) == Severity::Regression);
    CHECK(worst(regress(FieldSet{}, FieldSet{})) == Severity::Regression);
    Report unsupported = report();
    for (CaseResult& c : unsupported.cases) {
      c.fields.clear();
      c.verdict = Verdict::Unsupported;
    }
    CHECK(worst(regress(unsupported, unsupported)) == Severity::Regression);
    CHECK(worst(regress(report(), unsupported)) == Severity::Regression);
  }

  TEST_CASE("a case that changes as a whole is said, though no field did") {
    Report before = report();
    Report now = report();
    now.cases[0].verdict = Verdict::NonFinite;
    CHECK(says(regress(before, now), Severity::Regression,
               "tiny, gpu_fused: the case: NonFinite, Passed before"));
  }

  TEST_CASE("another contract is a legal change of its own, time is information") {
    Report now = report();
    now.cases[0].contract = "hf_eager";
    now.cases[1].seconds = 1.5;
    const auto findings = regress(report(), now);
    CHECK(says(findings, Severity::Legal, "contract changed from hf to hf_eager"));
    CHECK(says(findings, Severity::Same, "odd, gpu_fused: verification took 1.5 s, 1 s before"));
    CHECK(findings.size() == 2);
  }

  TEST_CASE("the time of a short run is noise and not mentioned") {
    Report before = report();
    Report now = report();
    for (auto& one : before.cases) one.seconds = 0.01;
    for (auto& one : now.cases) one.seconds = 0.04;
    CHECK_FALSE(says(regress(before, now), Severity::Same, "verification took"));
    now.cases[1].seconds = 0.6;
    CHECK(
        says(regress(before, now), Severity::Same, "odd, gpu_fused: verification took 0.6 s, 0.01 s before"));
    CHECK(says(regress(before, now), Severity::Same, "no difference in 2 cases"));
  }

  TEST_CASE("runs under other names are paired by problem; other problems are not compared") {
    Report before;
    Report now;
    before.cases = {case_result("tiny", "before.h5")};
    now.cases = {case_result("tiny", "after.h5")};
    CHECK(says(regress(before, now), Severity::Same, "after.h5 is compared with before.h5"));
    CHECK(worst(regress(before, now)) == Severity::Same);
    now.cases[0].tokens = 4;
    CHECK_THROWS_AS(regress(before, now), InputError);
    before.cases.push_back(case_result("odd", "before.h5"));
    now.cases.push_back(case_result("odd", "after.h5"));
    CHECK(says(regress(before, now), Severity::Regression, "the problems differ"));
    before.cases.pop_back();
    now.cases.pop_back();
    now.cases[0] = case_result("other", "after.h5");
    CHECK(worst(regress(before, now)) == Severity::Regression);
    // Two candidates of one problem on each side, all renamed: which is which cannot be known.
    before.cases = {case_result("tiny", "a"), case_result("tiny", "b")};
    now.cases = {case_result("tiny", "c"), case_result("tiny", "d")};
    CHECK(says(regress(before, now), Severity::Regression, "case tiny, a is missing"));
  }

  TEST_CASE("equal dumps are the same, with fields and elements counted") {
    const auto findings = regress(fields(), fields());
    REQUIRE(findings.size() == 1);
    CHECK(findings[0].sentence ==
          "3 fields with 78 elements are bit for bit the same: input_hidden_states, selected_experts, "
          "second_gemm");
    CHECK(findings[0].severity == Severity::Same);
  }

  TEST_CASE("changed bits are counted, placed and measured") {
    FieldSet now = fields();
    now.at(Field::second_gemm).as<Bf16>()[8 + 3].bits += 2;
    now.at(Field::second_gemm).as<Bf16>()[40].bits -= 1;
    const auto findings = regress(fields(), now);
    CHECK(says(findings, Severity::Legal, "second_gemm: 2 of 48 elements changed (4.17 %), first at "));
    CHECK(says(findings, Severity::Legal, " 1, "));
    CHECK(says(findings, Severity::Legal, " 3, by at most 2 ulps"));
    now.at(Field::second_gemm).as<Bf16>()[0].bits = 0x7fc0;
    CHECK(says(regress(fields(), now), Severity::Regression, "1 newly not finite"));
  }

  TEST_CASE("-0 against +0 is a changed bit, at no distance") {
    FieldSet before = fields();
    FieldSet now = fields();
    before.at(Field::second_gemm).as<Bf16>()[0].bits = 0x0000;
    now.at(Field::second_gemm).as<Bf16>()[0].bits = 0x8000;
    CHECK(says(regress(before, now), Severity::Legal, "1 of 48 elements changed"));
    CHECK_FALSE(says(regress(before, now), Severity::Legal, "ulp"));
  }

  TEST_CASE("fields gone, new, reshaped, retyped and inputs that differ are told apart") {
    FieldSet now = fields();
    now.erase(Field::second_gemm);
    CHECK(says(regress(fields(), now), Severity::Regression, "second_gemm is no longer written"));
    CHECK(says(regress(now, fields()), Severity::Legal, "second_gemm is newly written"));
    now.set(Field::second_gemm, bf16_tensor({8, 6}, 0x3e00));
    CHECK(says(regress(fields(), now), Severity::Regression, "second_gemm: shape [8, 6], [6, 8] before"));
    now.set(Field::second_gemm, Tensor(DType::Float64, {6, 8}));
    CHECK(says(regress(fields(), now), Severity::Regression, "second_gemm: dtype float64, bfloat16 before"));
    FieldSet other = fields();
    other.at(Field::input_hidden_states).as<Bf16>()[0].bits ^= 1;
    CHECK(says(regress(fields(), other), Severity::Regression, "the two runs had different inputs"));
    FieldSet rerouted = fields();
    rerouted.at(Field::selected_experts).as<std::int32_t>()[0] = 5;
    CHECK(says(regress(fields(), rerouted), Severity::Legal, "selected_experts: 1 of 6 elements changed"));
  }

  TEST_CASE("reports and dumps combine, the gravest first; half a pair is a wrong call") {
    const Report before = report();
    Report now = report();
    now.cases[0].contract = "hf_eager";
    Candidate changed;
    changed.fields = fields();
    changed.fields.erase(Field::second_gemm);
    Candidate old_fields;
    old_fields.fields = fields();
    const auto findings = regress(&before, &now, &old_fields, &changed);
    CHECK(findings.front().sentence == "second_gemm is no longer written");
    CHECK(says(findings, Severity::Legal, "contract changed"));
    CHECK(findings.back().severity == Severity::Same);
    CHECK_THROWS_AS(regress(&before, nullptr, nullptr, nullptr), UsageError);
    CHECK_THROWS_AS(regress(nullptr, nullptr, nullptr, nullptr), UsageError);
    CHECK(regress(nullptr, nullptr, &old_fields, &old_fields).size() == 1);
  }
}
