#include "reports/html/html.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <algorithm>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "reports/html/page_reader.h"
#include "reports/html/svg.h"
#include "reports/json.h"
#include "reports/sample_report.h"
#include "reports/wording.h"

using namespace assay;
using namespace assay::page_reader;

namespace {

std::string heading_of(Verdict first, Verdict second) {
  Report report = sample::report();
  report.cases[0].verdict = first;
  report.cases[1].verdict = second;
  const std::string html = render_html(report);
  const std::size_t start = html.find("</span> ", html.find("<h1>")) + 8;
  return html.substr(start, html.find("</h1>") - start);
}

}  // namespace

TEST_SUITE("html") {
  TEST_CASE("tags nest, whatever the report holds") {
    CHECK(unbalanced("<p><b></p>") == "</p> at 6 closes <b>");  // the checker itself
    CHECK(unbalanced("<p>") == "never closed: <p>");
    for (const Report& report :
         {Report{}, sample::report(), sample::many_cases(30), sample::hostile_report()}) {
      CHECK(unbalanced(render_html(report)) == "");
      CHECK(unbalanced(unfolded(render_html(report))) == "");
    }
  }

  TEST_CASE("every link inside the page has its target, and no id is given twice") {
    const std::string html = unfolded(render_html(sample::many_failures(30, 30)));
    const auto ids = attributes(html, "id");
    const std::set<std::string> targets(ids.begin(), ids.end());
    CHECK(targets.size() == ids.size());
    std::size_t links = 0;
    for (const std::string& href : attributes(html, "href")) {
      if (href.starts_with("data:image/png;base64,")) continue;
      REQUIRE(href.starts_with("#"));
      if (href.starts_with("#show=")) continue;
      CHECK_MESSAGE(targets.contains(href.substr(1)), href);
      ++links;
    }
    CHECK(links > 30 * 20);
  }

  TEST_CASE(
      "the page of one failing case begins with the answer: what, which stage, why, how far off, against "
      "what") {
    Report report = sample::report();
    report.cases.erase(report.cases.begin());
    CaseResult& one = report.cases[0];
    one.verdict = Verdict::Failed;
    const auto begins = [&] {
      const std::string html = render_html(report);
      const std::size_t start = html.find("<h1>");
      return html.substr(start, html.find("<dl", start) - start);
    };
    const std::string top = begins();
    CHECK(contains(top, "</span> second_gemm is wrong: stage Down</h1>"));
    CHECK(
        contains(top, "second_gemm is the first stage with an error of its own; hidden_states inherits it."));
    CHECK(contains(top, fmt::format("5,012 of 262,144 elements of second_gemm lie outside their accepted "
                                    "interval; the worst, at {}, is ",
                                    place_text(*one.fields[7].isolated.worst))));
    CHECK(contains(top,
                   "where 0.123046875 to 0.1240234375 is accepted, off by 12.40 times the bound. The "
                   "reference is float64, from the candidate&#39;s own upstream fields."));
    one.first_own_error.reset();
    CHECK(contains(begins(), "</span> The case failed</h1>"));
    CHECK(contains(begins(), "from the problem&#39;s inputs."));
    one.first_own_error = Field::selected_experts;
    one.fields[1].isolated.rejected = 1;
    one.fields[1].isolated.worst = Element{.at = {{"token", 3}, {"slot", 1}}, .out = 5, .ref = 6};
    CHECK(contains(begins(),
                   "1 of 128 elements of selected_experts is wrong; the first, at token 3, slot 1, is 5 "
                   "where 6 is right."));
  }

  TEST_CASE("both bounds of a field are said, and a report from before they were is drawn without") {
    Report report = sample::report();
    const std::string html = render_html(report);
    CHECK(contains(
        html, "<tr><th scope=\"row\">a priori</th><td>0.00041: C(n) sum |a||b| for additions in any order"));
    CHECK(contains(html,
                   "<tr><th scope=\"row\">running</th><td>3.1e-05, in force: hopper, in its own order: each "
                   "of 128 steps"));
    CHECK(contains(html,
                   "<tr><th scope=\"row\">typically</th><td>the a-priori bound is 117.2 times the one in "
                   "force: median of 62 elements, 3 more are exact"));
    for (CaseResult& c : report.cases)
      for (FieldResult& f : c.fields) f.isolated.bounds = f.chained.bounds = {};
    CHECK_FALSE(contains(render_html(report), ">a priori<"));
  }

  TEST_CASE("nothing is fetched, and a policy forbids it") {
    const std::string html = render_html(sample::report());
    CHECK(contains(html,
                   "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                   "img-src data:\""));
    CHECK_FALSE(contains(html, "http:"));
    CHECK_FALSE(contains(html, "https:"));
    CHECK_FALSE(contains(html, "url("));
    CHECK_FALSE(contains(html, "@import"));
    CHECK(attributes(html, "src").empty());
    CHECK_FALSE(contains(html, "{{"));
  }

  TEST_CASE("hostile names stay text, in markup and in the data block") {
    const std::string html = render_html(sample::hostile_report());
    CHECK(count_of(html, "<script") == 3);
    CHECK(count_of(html, "</script") == 3);
    CHECK_FALSE(contains(html, "<script>alert"));
    CHECK_FALSE(contains(html, "<!--"));
    CHECK(html.find('\x1b') == std::string::npos);
    CHECK(html.find('\xff') == std::string::npos);
    // In markup; the data block keeps what it was given, as JSON.
    const std::string markup = html.substr(0, html.find("text/plain"));
    CHECK_FALSE(contains(markup, "\xc2\x9b"));
    CHECK_FALSE(contains(markup, "\xe2\x80\xae"));
    CHECK(contains(html, "&lt;/script&gt;&lt;script&gt;alert(1)"));
    Report markers = sample::report();
    markers.title = "{{data}} {{style}}";
    CHECK(contains(render_html(markers), "<title>✘ 1 of 2 cases failed: {{data}} {{style}}</title>"));
  }

  TEST_CASE("the data block is the report") {
    for (const Report& report : {sample::report(), sample::hostile_report()}) {
      const std::string data = data_of(render_html(report));
      CHECK(to_json(report_from_json(data)) == to_json(report_from_json(to_json(report))));
    }
  }

  TEST_CASE("the heading says the verdict in words") {
    CHECK(heading_of(Verdict::Passed, Verdict::Passed) == "All 2 cases passed");
    CHECK(heading_of(Verdict::Passed, Verdict::NonFinite) == "1 of 2 cases failed");
    CHECK(heading_of(Verdict::Suspect, Verdict::Failed) == "1 of 2 cases failed");
    CHECK(heading_of(Verdict::Suspect, Verdict::Passed) == "Nothing failed, but 1 of 2 cases is in doubt");
    CHECK(heading_of(Verdict::Suspect, Verdict::Mistrusted) ==
          "Nothing failed, but 2 of 2 cases are in doubt");
    CHECK(heading_of(Verdict::Suspect, Verdict::MissingGolden) == "1 of 2 cases could not be judged");
    CHECK(heading_of(Verdict::Passed, Verdict::Unsupported) ==
          "1 of 2 cases passed, the others were not compared");
    CHECK(heading_of(Verdict::Unsupported, Verdict::NotMaterialised) == "Nothing was compared");
    CHECK(contains(render_html(Report{}), "Nothing was compared"));
  }

  TEST_CASE("own and inherited errors are told apart in words") {
    const std::string html = render_html(sample::report());
    const auto row = [&](std::string_view field) {
      const std::size_t start = html.find(fmt::format("<code><a href=\"#c2-{0}\">{0}</a>", field));
      REQUIRE(start != std::string::npos);
      return html.substr(start, html.find("</tr>", start) - start);
    };
    CHECK(contains(row("second_gemm"), "FAILED</span> <small>own error</small>"));
    CHECK(contains(row("second_gemm"), "172,032 of 262,144"));
    CHECK(contains(row("hidden_states"), "FAILED</span> <small>inherited</small>"));
    CHECK(contains(html, "<small>first own error</small>"));
    CHECK(contains(html, "the last 16 elements of K are missing for expert 33"));
  }

  TEST_CASE("drawings hold no number that is none") {
    Report report = sample::report();
    for (FieldResult& f : report.cases[1].fields) {
      if (!f.isolated.worst) continue;
      Element& e = *f.isolated.worst;
      const double values[] = {std::numeric_limits<double>::quiet_NaN(),
                               std::numeric_limits<double>::infinity(),
                               -std::numeric_limits<double>::infinity(), 0.0, 1e300};
      const auto pick = static_cast<std::size_t>(f.field);
      e.out = values[pick % 5];
      e.high = values[(pick + 1) % 5];
      e.low = values[(pick + 2) % 5];
      e.ref = values[(pick + 3) % 5];
      f.isolated.max_ratio = values[pick % 4];
      for (auto& [expert, ratio] : f.isolated.worst_by_expert)
        ratio = values[static_cast<std::size_t>(expert) % 5];
    }
    const std::string html = render_html(report);
    CHECK(unbalanced(html) == "");
    for (const char* attribute : {"x", "y", "x1", "x2", "y1", "y2", "width", "height", "d", "viewBox"})
      for (const std::string& value : attributes(html, attribute)) {
        CHECK_FALSE(contains(value, "nan"));
        CHECK_FALSE(contains(value, "inf"));
      }
  }

  TEST_CASE("a ratio of 1 ends its bar on the limit, on every axis") {
    for (const int decades : {1, 2, 6}) {
      FieldResult f = sample::passing_case().fields[0];
      f.isolated.max_ratio = 1.0;
      const std::string drawing = svg::ratio_bars(f, {decades});
      const std::size_t limit = drawing.find("<line class=\"limit\"");
      const std::string x = attributes(drawing.substr(limit), "x1").front();
      CHECK(attributes(drawing.substr(drawing.find("<rect class=\"isolated")), "width").front() == x);
    }
  }

  TEST_CASE("the number line puts what was found inside or outside the interval, as the interval decides") {
    Element e;
    e.ref = 1.0;
    e.low = 0.9921875;
    e.high = 1.0078125;
    e.out = e.high;  // on the edge is inside
    CHECK(contains(svg::number_line(e), "✔ found 1.0078125"));
    e.out = 1.015625;
    const std::string outside = svg::number_line(e);
    CHECK(contains(outside, "✘ found 1.015625"));
    const std::string band = outside.substr(outside.find("<rect class=\"interval\""));
    const double right =
        std::stod(attributes(band, "x").front()) + std::stod(attributes(band, "width").front());
    const std::string path = attributes(outside.substr(outside.find("<path")), "d").front();
    CHECK(std::stod(path.substr(1)) > right);
  }

  TEST_CASE("with earlier reports the page says what changed, and draws each case over time") {
    const Report now = sample::report();
    CHECK_FALSE(contains(render_html(now), "id=\"trend\""));
    std::vector<Report> history = {now, now};
    history[1].created = "2026-11-20T08:00:00Z";
    history[1].cases[1].fields[7].verdict = Verdict::Passed;
    history[0].cases.pop_back();
    const std::vector<Finding> since = {{Severity::Same, "nothing else"},
                                        {Severity::Regression, "it fails now"}};
    const std::string html = render_html(now, {history, since});
    CHECK(unbalanced(html) == "");
    CHECK(contains(html, "<h2>Since 2026-11-20T08:00:00Z</h2>"));
    CHECK(contains(html, "regression</span>: it fails now</li><li>"));  // the worst first
    CHECK(contains(html, "<title>worst error in 3 runs</title>"));
    CHECK(contains(html, "<title>worst error in 2 runs</title>"));
    const std::vector<Report> hostile = {sample::hostile_report()};
    CHECK(unbalanced(render_html(hostile.front(), {hostile, {}})) == "");
  }

  TEST_CASE("many cases stay small enough to be mailed") {
    CHECK(render_html(sample::many_cases(152)).size() < 2'000'000);  // of 21 fields a case
    CHECK(render_html(sample::many_failures(300, 700)).size() < 5'000'000);
    CHECK(render_html(sample::distinct_failures(300, 700)).size() < 5'000'000);
  }
}
