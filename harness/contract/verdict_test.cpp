#include "harness/contract/verdict.h"

#include <set>
#include <string_view>
#include <utility>

#include <doctest/doctest.h>

#include "harness/contract/report.h"

using namespace assay;

TEST_SUITE("verdict") {
  TEST_CASE("exit codes are the documented numbers") {
    CHECK(static_cast<int>(ExitCode::Passed) == 0);
    CHECK(static_cast<int>(ExitCode::Failed) == 1);
    CHECK(static_cast<int>(ExitCode::Usage) == 2);
    CHECK(static_cast<int>(ExitCode::CouldNotJudge) == 3);
    CHECK(static_cast<int>(ExitCode::Suspect) == 4);
    CHECK(static_cast<int>(ExitCode::NothingCompared) == 77);
  }

  TEST_CASE("each verdict has its name and its exit code") {
    const std::pair<Verdict, ExitCode> rows[] = {
        {Verdict::NotMaterialised, ExitCode::NothingCompared},
        {Verdict::Unsupported, ExitCode::NothingCompared},
        {Verdict::Passed, ExitCode::Passed},
        {Verdict::Mistrusted, ExitCode::Suspect},
        {Verdict::Suspect, ExitCode::Suspect},
        {Verdict::Unstable, ExitCode::Suspect},
        {Verdict::NotJudged, ExitCode::CouldNotJudge},
        {Verdict::MissingGolden, ExitCode::CouldNotJudge},
        {Verdict::Failed, ExitCode::Failed},
        {Verdict::NonFinite, ExitCode::Failed},
        {Verdict::WrongDtype, ExitCode::Failed},
        {Verdict::WrongShape, ExitCode::Failed},
        {Verdict::TimedOut, ExitCode::Failed},
        {Verdict::Crashed, ExitCode::Failed},
    };
    std::set<std::string_view> names;
    for (const auto& [verdict, code] : rows) {
      CHECK(names.insert(name(verdict)).second);
      CHECK(exit_code(verdict) == code);
      CHECK(failed(verdict) == (code == ExitCode::Failed));
      CHECK(compared(verdict) == (code != ExitCode::NothingCompared));
    }
    CHECK(names.size() == static_cast<std::size_t>(kWorstVerdict) + 1);
  }

  TEST_CASE(
      "a failure outranks what could not be judged, that a suspicion, that a pass, and a pass nothing") {
    CHECK(worst(Verdict::Failed, Verdict::MissingGolden) == Verdict::Failed);
    CHECK(worst(Verdict::MissingGolden, Verdict::Suspect) == Verdict::MissingGolden);
    CHECK(worst(Verdict::Suspect, Verdict::Passed) == Verdict::Suspect);
    CHECK(worst(Verdict::NotMaterialised, Verdict::Passed) == Verdict::Passed);
    CHECK(worst(Verdict::Passed, Verdict::Unsupported) == Verdict::Passed);
  }

  TEST_CASE("a report without cases is not a pass") {
    Report report;
    CHECK(exit_code(report.verdict()) == ExitCode::NothingCompared);
    report.cases.resize(2);
    CHECK(exit_code(report.verdict()) == ExitCode::NothingCompared);
    report.cases[1].verdict = Verdict::Passed;
    CHECK(exit_code(report.verdict()) == ExitCode::Passed);
    report.cases[0].verdict = Verdict::NonFinite;
    CHECK(exit_code(report.verdict()) == ExitCode::Failed);
  }
}
