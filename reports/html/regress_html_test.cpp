#include <doctest/doctest.h>

#include "reports/html/page_reader.h"
#include "reports/regress_report.h"

using namespace assay;

namespace {

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// hidden_states [2, 3] with its worst element at token 1, col 2.
Report report(double out, Verdict verdict) {
  Element worst;
  worst.at = {{"token", 1}, {"col", 2}};
  worst.out = out;
  worst.ref = 1.5;
  worst.low = 1.25;
  worst.high = 1.75;
  worst.ratio = 0.5;
  FieldResult field;
  field.field = Field::hidden_states;
  field.verdict = field.isolated.verdict = verdict;
  field.isolated.elements = 6;
  field.isolated.max_ratio = 0.5;
  field.isolated.worst = worst;
  CaseResult one;
  one.problem = "odd";
  one.candidate = "<mine>";
  one.verdict = verdict;
  one.fields = {field};
  Report all;
  all.created = "2026-11-30";
  all.cases = {one};
  return all;
}

Finding change(Severity severity) {
  Finding one{severity, "hidden_states: changed & told", "odd", "<mine>", Field::hidden_states};
  return one;
}

FieldSet dump(float value) {
  Tensor tensor(DType::Float32, {2, 3});
  tensor.as<float>()[5] = value;
  FieldSet fields;
  fields.set(Field::hidden_states, std::move(tensor));
  return fields;
}

}  // namespace

TEST_SUITE("regress_html") {
  TEST_CASE("a change is shown with what A and B hold and what is accepted") {
    const Report before = report(1.5, Verdict::Passed);
    const Report now = report(7.25, Verdict::Failed);
    const Finding all[] = {change(Severity::Regression)};
    const std::string page = render_regress_html(all, {"a.json", &before}, {"b.json", &now}, Report{});
    CHECK(has(page, "1 regression</h1>"));
    CHECK(has(page, "hidden_states: changed &amp; told"));
    CHECK(has(page, "odd, &lt;mine&gt;"));
    CHECK(has(page, "A</th><td><code>1.5</code> <span class=\"good\">"));
    CHECK(has(page, "B</th><td><code>7.25</code> <span class=\"bad\">"));
    CHECK(has(page, "<code>1.25</code> to <code>1.75</code>"));
    CHECK(has(page, "✘ B 7.25"));
    CHECK(has(page, "<h3>B as judged</h3>"));
    CHECK_FALSE(has(page, "<h3>A as judged</h3>"));  // nothing of it is wrong
    CHECK(page_reader::unbalanced(page) == "");
    CHECK_FALSE(has(page, "<script"));
  }

  TEST_CASE("the page begins with what B's case says of itself, where that is about the first change") {
    const Report before = report(1.5, Verdict::Passed);
    Report now = report(7.25, Verdict::Failed);
    now.cases[0].headline = "hidden_states loses a tail";
    const Finding all[] = {change(Severity::Regression)};
    const auto page = [&] { return render_regress_html(all, {"a", &before}, {"b", &now}, Report{}); };
    CHECK(has(page(), "<p class=\"lead\">hidden_states: changed &amp; told</p>"));
    now.cases[0].first_own_error = Field::hidden_states;
    CHECK(has(page(), "<p class=\"lead\">hidden_states loses a tail</p>"));
  }

  TEST_CASE("a place that only one report lists is taken from the other's dump, or said to be unknown") {
    Report before = report(1.5, Verdict::Passed);
    before.cases[0].fields[0].isolated.worst->at = {{"token", 0}, {"col", 0}};
    const Report now = report(7.25, Verdict::Failed);
    const Finding all[] = {change(Severity::Regression)};
    CHECK(has(render_regress_html(all, {"a", &before}, {"b", &now}, Report{}), "not in the report"));
    const FieldSet a = dump(1.625F);
    const FieldSet b = dump(7.25F);
    const std::string page = render_regress_html(all, {"a", &before, &a}, {"b", &now, &b}, Report{});
    CHECK(has(page, "A</th><td><code>1.625</code> <span class=\"good\">"));
    CHECK_FALSE(has(page, "not in the report"));
  }

  TEST_CASE("rows in another order are not taken for each other") {
    Report before = report(1.5, Verdict::Passed);
    before.cases[0].fields[0].isolated.worst->at = {{"token", 0}, {"col", 0}};
    const Report now = report(7.25, Verdict::Failed);
    FieldSet a = dump(1.625F);
    FieldSet b = dump(7.25F);
    a.set(Field::gather_indices, Tensor(DType::Int32, {4}));
    b.set(Field::gather_indices, Tensor(DType::Int32, {4}));
    b.at(Field::gather_indices).as<std::int32_t>()[0] = 1;
    const Finding all[] = {change(Severity::Regression)};
    CHECK(has(render_regress_html(all, {"a", &before, &a}, {"b", &now, &b}, Report{}), "not in the report"));
  }

  TEST_CASE("the gravest gives the title; nothing changed is said") {
    const Report same = report(1.5, Verdict::Passed);
    const auto page = [&](std::vector<Finding> all) {
      return render_regress_html(all, {"a", &same}, {"b", &same}, Report{});
    };
    CHECK(has(page({{Severity::Same, "no difference"}}), "Nothing changed</h1>"));
    CHECK(has(page({change(Severity::Approved)}), "1 approved change, nothing else</h1>"));
    CHECK(has(page({change(Severity::Approved), change(Severity::Legal), change(Severity::Legal)}),
              "2 legal changes</h1>"));
  }
}
