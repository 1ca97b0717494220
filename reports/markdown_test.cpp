#include "reports/markdown.h"

#include <fmt/format.h>

#include <doctest/doctest.h>

#include "reports/sample_parting.h"
#include "reports/sample_report.h"

using namespace assay;

TEST_SUITE("markdown") {
  TEST_CASE("what did not pass is a row, passing cases are folded, and every fold is closed") {
    const Report report = sample::report();
    const std::string text = render_markdown(report);
    CHECK(text.starts_with("### ✘ assay: "));
    for (const CaseResult& one : report.cases) CHECK(text.find(one.problem) != std::string::npos);
    const auto count = [&](std::string_view what) {
      int found = 0;
      for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
      return found;
    };
    CHECK(count("<details>") == count("</details>"));
    CHECK(count("<details>") > 0);
  }

  TEST_CASE("no text of a report is markup: names, headlines, commands") {
    Report report;
    report.command = "assay `x` <b>";
    CaseResult& one = report.cases.emplace_back();
    one.verdict = Verdict::Failed;
    one.problem = "a|b";
    one.candidate = "<img src=x>[y](z)";
    one.headline = "first\nsecond *bold*";
    const std::string text = render_markdown(report);
    CHECK(text.find("| a\\|b | &lt;img src=x\\>\\[y\\](z) | first\\\\x0asecond \\*bold\\* |") !=
          std::string::npos);
    CHECK(text.ends_with("\n`assay x <b>`\n"));
  }

  TEST_CASE(
      "a run of a thousand cases and what changed since another fit one comment, and nothing goes untold") {
    const Report report = sample::many_failures(300, 700);
    std::vector<Finding> findings;
    for (const CaseResult& one : report.cases)
      findings.push_back({one.problem.starts_with("failing") ? Severity::Regression : Severity::Same,
                          one.problem + " has changed"});
    const std::string run = render_markdown(report);
    const std::string change = render_markdown(findings);
    CHECK(run.size() + change.size() < 65536);  // what GitHub takes
    CHECK(run.find("failing\\_0") != std::string::npos);
    CHECK(run.find("cases more, in the report") != std::string::npos);
    CHECK(change.find("failing\\_299") != std::string::npos);
    CHECK(change.find("findings more, in the report") != std::string::npos);
  }

  TEST_CASE("two candidates: the sentence, whom which contract lets pass, what parts in the open") {
    const std::string text = render_markdown(sample::parting(), sample::report());
    CHECK(text.starts_with(
        "### ~ assay diff: they part first at hidden\\_states\n\nA and B part first at hidden\\_states\n\n"
        "- A: `a.h5` (), legal under hf\n- B: `<b>.h5` (), legal under hf, hf\\_eager\n"));
    const auto row = text.find(
        "| ≠ | hidden\\_states | 936 | 3 | 2 | not written | not written | 0.25 | 0.5 | A (A 2, B 1 element) "
        "|");
    const auto fold = text.find("<details><summary>fields that do not part</summary>");
    CHECK(row < fold);
    CHECK(text.find("| = | second\\_gemm | 1,200 | 0 |", fold) != std::string::npos);
    CHECK(text.find("\nrouting: 12 of 13 tokens take the same experts") != std::string::npos);
    CHECK(text.find("- token 5: A alone takes 3, B alone 7") != std::string::npos);
    CHECK(text.ends_with(fmt::format("\n`{}`\n", sample::report().command)));
  }

  TEST_CASE("one that is not legal is told with its first error, and a name is no markup") {
    Parting parting = sample::parting();
    parting.b.legal_under.clear();
    parting.b.judged.verdict = Verdict::Failed;
    parting.b.judged.producer = "<img src=x>";
    parting.b.judged.headline = "hidden_states is the first stage with an error of its own";
    const std::string text = render_markdown(parting, {});
    CHECK(text.starts_with("### ✘ assay diff: "));
    CHECK(text.find("- B: `<b>.h5` (&lt;img src=x\\>), not legal: hidden\\_states is the first") !=
          std::string::npos);
  }

  TEST_CASE("findings are told worst first, those that say the same folded") {
    const std::vector<Finding> findings = {{Severity::Same, "3 fields are the same"},
                                           {Severity::Legal, "hidden_states: 2 elements changed"},
                                           {Severity::Regression, "first_gemm fails"}};
    const std::string text = render_markdown(findings);
    CHECK(text.starts_with(
        "### ✘ assay regress: regression\n\n- ✘ regression: first\\_gemm fails\n- ~ legal change: "
        "hidden\\_states: 2 elements changed\n"));
    CHECK(text.find("<details><summary>what is the same</summary>\n\n- = same: 3 fields") !=
          std::string::npos);
    CHECK(render_markdown(std::vector<Finding>{{Severity::Same, "x"}})
              .starts_with("### = assay regress: same\n"));
  }
}
