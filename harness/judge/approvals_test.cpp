#include "harness/judge/approvals.h"

#include <doctest/doctest.h>
#include <limits>

#include "harness/contract/error.h"

using namespace assay;

namespace {

const Approval kAda = {"Ada", "sums in fp32 now", "2026-11-30T06:00:00Z"};

Finding change(Severity severity, double ratio, double bits) {
  Finding one{severity, "tiny, gpu: second_gemm: grew", "tiny", "gpu", Field::second_gemm};
  one.before = one.now = Verdict::Passed;
  one.figures = {{"isolated worst error", 0.4, ratio}, {"isolated other bits", 3, bits}};
  return one;
}

ApprovedFinding approved(Finding one) {
  one.approval = kAda;
  return one;
}

}  // namespace

TEST_SUITE("approvals") {
  TEST_CASE("an approval covers the change and less, nothing beyond in any figure") {
    const auto ok = approved(change(Severity::Legal, 0.9, 12));
    CHECK(covers(ok, change(Severity::Legal, 0.9, 12)));
    CHECK(covers(ok, change(Severity::Legal, 0.8, 1)));
    CHECK_FALSE(covers(ok, change(Severity::Legal, 0.901, 12)));
    CHECK_FALSE(covers(ok, change(Severity::Legal, 0.9, 13)));
    CHECK_FALSE(covers(ok, change(Severity::Legal, std::numeric_limits<double>::quiet_NaN(), 12)));
    CHECK_FALSE(covers(ok, change(Severity::Regression, 0.9, 12)));
  }

  TEST_CASE("another figure, field, case or candidate, or a worse verdict, is not covered") {
    const auto ok = approved(change(Severity::Regression, 0.9, 12));
    Finding other = change(Severity::Legal, 0.9, 12);
    other.figures.push_back({"chained other bits", 0, 1});
    CHECK_FALSE(covers(ok, other));
    other = change(Severity::Legal, 0.9, 12);
    other.field = Field::hidden_states;
    CHECK_FALSE(covers(ok, other));
    other = change(Severity::Legal, 0.9, 12);
    other.problem = "odd";
    CHECK_FALSE(covers(ok, other));
    other = change(Severity::Legal, 0.9, 12);
    other.candidate = "mine";
    CHECK_FALSE(covers(ok, other));
    other = change(Severity::Regression, 0.9, 12);
    other.now = Verdict::Failed;
    CHECK_FALSE(covers(ok, other));
  }

  TEST_CASE("what has no figures is covered word for word, with or without the case's name") {
    Finding contract{Severity::Legal, "contract changed from hf to hf_eager", "tiny", "gpu"};
    const auto ok = approved(contract);
    CHECK(covers(ok, contract));
    contract.sentence = "tiny, gpu: contract changed from hf to hf_eager";
    CHECK(covers(ok, contract));
    contract.sentence = "contract changed from hf to fused_fp32";
    CHECK_FALSE(covers(ok, contract));
    // The case's own verdict is another matter.
    Finding verdict{Severity::Legal, "the case: Suspect, Passed before", "tiny", "gpu"};
    verdict.before = Verdict::Passed;
    verdict.now = Verdict::Suspect;
    CHECK_FALSE(covers(ok, verdict));
    CHECK_FALSE(covers(approved(verdict), contract));
  }

  TEST_CASE("a covered change is Approved and says who and why; one beyond says what was") {
    const std::vector<ApprovedFinding> all = {approved(change(Severity::Legal, 0.9, 12))};
    auto findings = with_approvals({change(Severity::Legal, 0.9, 12)}, all);
    REQUIRE(findings.size() == 1);
    CHECK(findings[0].severity == Severity::Approved);
    CHECK(findings[0].sentence ==
          "tiny, gpu: second_gemm: grew (approved by Ada on 2026-11-30: sums in fp32 now)");
    CHECK(findings[0].approval->by == "Ada");
    findings = with_approvals({change(Severity::Legal, 0.95, 12)}, all);
    CHECK(findings[0].severity == Severity::Legal);
    CHECK(findings[0].sentence ==
          "tiny, gpu: second_gemm: grew; beyond what was approved, isolated worst error 0.4 to 0.9, isolated "
          "other bits 3 to 12 (by Ada on 2026-11-30: sums in fp32 now)");
  }

  TEST_CASE("what was not compared is neither covered nor approved") {
    Finding none{Severity::Regression, "nothing was compared"};
    none.incomparable = true;
    CHECK_FALSE(covers(approved(none), none));
    CHECK_THROWS_AS(to_approve(std::vector{none}), InputError);
    CHECK(to_approve(std::vector{Finding{Severity::Same, "the same"}}).empty());
    CHECK(to_approve(std::vector{change(Severity::Legal, 0.9, 12)}).size() == 1);
  }
}
