#include "reports/markdown.h"

#include <doctest/doctest.h>

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
