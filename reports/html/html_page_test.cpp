// Which cases a page shows how: order, folding, packing.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <algorithm>
#include <cctype>
#include <set>
#include <string>
#include <vector>

#include "harness/contract/error_map.h"
#include "reports/escape.h"
#include "reports/html/html.h"
#include "reports/html/page_reader.h"
#include "reports/sample_report.h"
#include "reports/wording.h"

using namespace assay;
using namespace assay::page_reader;

TEST_SUITE("html_page") {
  TEST_CASE("failing cases come first, the first twenty in full, of the others the headline until opened") {
    Report report = sample::many_failures(25, 8);
    std::ranges::rotate(report.cases, report.cases.begin() + 25);  // the failing ones last
    const std::string html = render_html(report);
    const auto sections = [&](const std::string& page) {
      std::vector<std::string> ids;
      for (const std::string& id : attributes(page, "id"))
        if (id[0] == 'c' && std::isdigit(static_cast<unsigned char>(id[1])) && !contains(id, "-"))
          ids.push_back(id);
      return ids;
    };
    const auto ids = sections(html);
    REQUIRE(ids.size() == 33);
    CHECK(ids[0] == "c9");
    CHECK(ids[24] == "c33");
    CHECK(ids[25] == "c1");
    CHECK(count_of(html, " data-packed") == 5 + 8);
    CHECK(contains(html, " id=\"c28-second_gemm\""));  // the twentieth
    CHECK_FALSE(contains(html, " id=\"c29-second_gemm\""));
    CHECK(contains(html, "<noscript><p class=\"remark\">13 cases are shown by their headlines"));
    CHECK(contains(unfolded(html), " id=\"c29-second_gemm\""));
    CHECK(contains(unfolded(html), " id=\"c8-second_gemm\""));
  }

  TEST_CASE(
      "of hundreds of cases the later rows and sections are text to a browser with scripts, each once") {
    const std::string html = render_html(sample::many_failures(30, 170));
    REQUIRE(unbalanced(html).empty());
    std::string shown = html;
    std::string later;
    for (std::size_t at = shown.find("<noscript class=\"later\">"); at != std::string::npos;
         at = shown.find("<noscript class=\"later\">")) {
      const std::size_t end = shown.find("</noscript>", at);
      later += shown.substr(at, end - at);
      shown.erase(at, end - at);
    }
    CHECK(count_of(shown, "<tr data-kind=") == 100);
    CHECK(count_of(shown, "<details class=\"case ") == 100);
    CHECK(count_of(later, "<tr data-kind=") == 100);
    CHECK(count_of(later, "<details class=\"case ") == 100);
    CHECK(count_of(later, "<details class=\"case good\"") == 100);
    const auto ids = attributes(html, "id");
    CHECK(std::set<std::string>(ids.begin(), ids.end()).size() == ids.size());
    CHECK_FALSE(contains(render_html(sample::many_failures(30, 70)), "class=\"later\""));
    CHECK_FALSE(contains(render_html(sample::many_failures(30, 70)), "class=\"matrix many\""));
  }

  TEST_CASE("maps of cases that unfold are painted by the script, from levels that the page's data has") {
    const std::string html = render_html(sample::distinct_failures(30, 30));
    const auto data = nlohmann::json::parse(data_of(html));
    const auto packed = nlohmann::json::parse(block(html, "details"));
    CHECK(packed["colours"].size() == 27);  // 'a' to 'z', and no ratio
    std::size_t maps = 0;
    for (const auto& piece : packed["pieces"]) {
      const std::string text = piece.get<std::string>();
      if (!contains(text, "<image")) continue;
      ++maps;
      CHECK(attributes(text, "href").empty());
      const auto& cell = data["cases"][std::stoul(attributes(text, "data-case").front())];
      const auto field = std::ranges::find_if(cell["fields"], [&](const auto& f) {
        return f["field"] == attributes(text, "data-field").front();
      });
      REQUIRE(field != cell["fields"].end());
      const auto& map = (*field)[attributes(text, "data-way").front()]["pattern"]["map"];
      CHECK(map["levels"].size() <= kCoarseBins);
      CHECK(map["levels"][0].get<std::string>().size() <= kCoarseBins);
    }
    CHECK(maps == 2 * 10);  // second_gemm and hidden_states of ten cases
    CHECK(contains(html.substr(0, html.find("id=\"details\"")), "<image href=\"data:image/png"));
  }

  TEST_CASE("a map that is not what it says is left out, also of cases that unfold") {
    for (const auto spoil : {+[](ErrorMap& m) { m.bin_columns = 0; }, +[](ErrorMap& m) { m.bin_rows = 0; },
                             +[](ErrorMap& m) { m.columns = std::int64_t{1} << 62; },
                             +[](ErrorMap& m) { m.levels.pop_back(); }}) {
      Report report = sample::distinct_failures(22, 0);
      for (CaseResult& c : report.cases)
        for (FieldResult& f : c.fields)
          for (Judgement* judgement : {&f.isolated, &f.chained})
            if (judgement->pattern) spoil(judgement->pattern->map);
      CHECK_FALSE(contains(unfolded(render_html(report)), "<figure class=\"map\""));
    }
  }

  TEST_CASE("a failing case has its three commands under the headline, each to be copied") {
    const std::string html = render_html(sample::report());
    const std::size_t headline =
        html.find("<p class=\"headline\">", html.find("<details class=\"case bad\""));
    const std::string below = html.substr(headline, html.find("<ol class=\"flow\"", headline) - headline);
    for (const char* label : {"replay", "explain", "minimize"})
      CHECK(contains(below, fmt::format("<div class=\"command\"><span>{}</span><code>assay ", label)));
    CHECK(count_of(below, "class=\"copy\"") == 3);
  }

  TEST_CASE("the worst error is none that a field passes in spite of") {
    Report report = sample::report();
    const double before = totals(report).max_ratio;
    CaseResult& c = report.cases[1];
    const auto good = std::ranges::find_if(
        c.fields, [](const FieldResult& f) { return f.verdict == Verdict::Passed && has_ratio(f.field); });
    REQUIRE(good != c.fields.end());
    good->isolated.verdict = Verdict::Suspect;  // behind a broken field, of which it was not made
    good->isolated.max_ratio = 1e6 * before;
    CHECK(totals(report).max_ratio == before);
    good->verdict = Verdict::Failed;
    CHECK(totals(report).max_ratio == 1e6 * before);
  }

  TEST_CASE("the case that the first sentence is about is named behind it") {
    const Report report = sample::report();
    CHECK(contains(render_html(report),
                   fmt::format("{} (<a href=\"#c2\">{}, {}</a>)</p>", escaped(report.cases[1].headline),
                               report.cases[1].problem, report.cases[1].candidate)));
  }

  TEST_CASE("what inherits an error is folded, the error itself is open") {
    const std::string html = render_html(sample::report());
    CHECK(contains(html, "<details class=\"field bad\" id=\"c2-second_gemm\" open>"));
    CHECK(contains(html, "<details class=\"field bad inherited\" id=\"c2-hidden_states\">"));
    CHECK(contains(html, "<dt>first own error</dt><dd><a href=\"#c2-second_gemm\">second_gemm</a>"));
  }
}
