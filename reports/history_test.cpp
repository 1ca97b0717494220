#include "reports/history.h"

#include <doctest/doctest.h>

#include "reports/html/html.h"

using namespace assay;

namespace {

/// One case with hidden_states (a ratio) and gather_indices (exact).
Report run(std::string created, Verdict verdict, double ratio, std::int64_t wrong, double seconds) {
  FieldResult output;
  output.field = Field::hidden_states;
  output.verdict = output.isolated.verdict = verdict;
  output.isolated.elements = 100;
  output.isolated.max_ratio = ratio;
  FieldResult indices;
  indices.field = Field::gather_indices;
  indices.verdict = indices.isolated.verdict = wrong > 0 ? Verdict::Failed : Verdict::Passed;
  indices.isolated.elements = 10;
  indices.isolated.rejected = wrong;
  CaseResult one;
  one.problem = "odd";
  one.candidate = "mine";
  one.verdict = worst(output.verdict, indices.verdict);
  one.fields = {indices, output};
  one.seconds = seconds;
  Report report;
  report.created = std::move(created);
  report.cases = {one};
  return report;
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("history") {
  TEST_CASE("each run's errors, verdicts and times, and since when") {
    const std::vector<Report> earlier = {run("2026-11-01T00:00:00Z", Verdict::Passed, 0.25, 0, 1.0),
                                         run("2026-11-02T00:00:00Z", Verdict::Passed, 0.5, 3, 2.0)};
    const Report now = run("2026-11-03T00:00:00Z", Verdict::Failed, 12.5, 0, 4.0);
    const std::string text = render_history_text(now, earlier, {});
    CHECK(has(text, "odd, mine: 3 reports"));
    CHECK(has(text, "  field           2026-11-01T00:00  2026-11-02T00:00  2026-11-03T00:00\n"));
    CHECK(has(text, "  gather_indices  ✔ exact           ✘ 3 wrong         ✔ exact\n"));
    CHECK(has(text, "  hidden_states   ✔ 0.250           ✔ 0.500           ✘ 12.50\n"));
    CHECK(has(text, "  the case        ✔ passed          ✘ FAILED          ✘ FAILED\n"));
    CHECK(has(text, "  verified in     1.0 s             2.0 s             4.0 s\n"));
    CHECK(has(text, "  hidden_states: FAILED since 2026-11-03T00:00:00Z, passed before\n"));
    CHECK(has(text, "  gather_indices: passed since 2026-11-03T00:00:00Z, FAILED before\n"));
    CHECK(has(text, "  gather_indices: FAILED since 2026-11-02T00:00:00Z, passed before\n"));
    CHECK(has(text, "  the case: FAILED since 2026-11-02T00:00:00Z, passed before\n"));
    const std::string page = render_html(now, {earlier, {}});
    CHECK(has(page, "field by field in 3 reports"));
    CHECK(has(page, "FAILED since 2026-11-02T00:00:00Z, passed before"));
    CHECK(has(page, "4.0 s<small>2.0 s before</small>"));
  }

  TEST_CASE("runs without the case are left out, a case that is new has no history") {
    Report now = run("2026-11-03", Verdict::Passed, 0.1, 0, 1.0);
    Report before = now;
    before.cases[0].candidate = "other";
    CHECK(case_histories(now, {&before, 1}).empty());
    CHECK(render_history_text(now, {&before, 1}, {}).empty());
    before = now;
    before.cases[0].fields.pop_back();
    const auto all = case_histories(now, {&before, 1});
    REQUIRE(all.size() == 1);
    REQUIRE(all[0].fields.size() == 2);
    CHECK(history_cell(all[0].fields[1], 0) == "-");
    CHECK(history_cell(all[0].fields[1], 1) == "0.100");
  }

  TEST_CASE("of many runs the first and the last are shown") {
    CHECK(runs_shown(0).empty());
    CHECK(runs_shown(3) == std::vector<std::size_t>{0, 1, 2});
    CHECK(runs_shown(9) == std::vector<std::size_t>{0, 4, 5, 6, 7, 8});
  }
}
