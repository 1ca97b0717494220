#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "reports/invariance_report.h"

using namespace assay;

namespace {

InvarianceCase sample() {
  InvarianceChange same{.name = "run to run", .of = Invariant::Run, .runs = 19};
  same.fields = {{Field::first_gemm, 228, 0, 9000, 0}, {Field::hidden_states, 228, 0, 3000, 0}};
  InvarianceChange other{.name = "a batch of 16", .of = Invariant::Batch, .runs = 1, .differing_runs = 1};
  other.fields = {{Field::first_gemm, 16, 0, 900, 0}, {Field::hidden_states, 16, 3, 300, 5}};
  other.first = Field::hidden_states;
  other.judged = Verdict::Passed;
  return {"tiny", "plugin:<x>.so", {same, other}};
}

Report judged() {
  Report report;
  CaseResult& one = report.cases.emplace_back();
  one.problem = "tiny";
  one.candidate = "plugin:<x>.so";
  one.verdict = Verdict::Passed;
  one.headline = "other bits: hidden_states";
  return report;
}

}  // namespace

TEST_SUITE("invariance_report") {
  TEST_CASE("the terminal has a row per change, and per field how many tokens differ") {
    const std::string text = invariance_table(sample(), {});
    CHECK(text.find("run to run       19  =") != std::string::npos);
    CHECK(text.find("a batch of 16     1  hidden_states") != std::string::npos);
    CHECK(text.find("first_gemm                                 =") != std::string::npos);
    CHECK(text.find("3 of 16") != std::string::npos);
    CHECK(invariance_table({"tiny", "x", {}}, {}).empty());
  }

  TEST_CASE("the JSON has the whole matrix and the report") {
    const InvarianceCase one = sample();
    const auto json = nlohmann::json::parse(invariance_json({&one, 1}, judged()));
    CHECK(json.at("schema") == "assay-invariance");
    CHECK(json.at("verdict") == "Passed");
    CHECK(json.at("cases")[0].at("changes")[1].at("fields")[1].at("differing_tokens") == 3);
    CHECK(json.at("cases")[0].at("changes")[0].at("first").is_null());
    CHECK(json.at("judged").at("schema") == "assay-report");
  }

  TEST_CASE("the page has the matrix and the headline, and takes no name for markup") {
    const InvarianceCase one = sample();
    const std::string page = render_invariance_html({&one, 1}, judged());
    CHECK(page.find("Other bits in 1 of 1 case") != std::string::npos);
    CHECK(page.find("<span class=\"doubt\">3 of 16</span>") != std::string::npos);
    CHECK(page.find("other bits: hidden_states") != std::string::npos);
    CHECK(page.find("<x>") == std::string::npos);
    CHECK(page.find("<script") == std::string::npos);
  }
}
