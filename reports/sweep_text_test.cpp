#include <doctest/doctest.h>

#include "reports/columns.h"
#include "reports/sweep_report.h"

namespace assay {
namespace {

CaseResult result(const std::string& problem, const std::string& candidate, Verdict verdict,
                  const std::string& headline = "") {
  CaseResult one;
  one.problem = problem;
  one.candidate = candidate;
  one.verdict = verdict;
  one.headline = headline;
  return one;
}

std::vector<CaseResult> sweep() {
  return {result("tiny", "plugin:p.so#a=1", Verdict::Passed),
          result("odd", "plugin:p.so#a=1", Verdict::Passed),
          result("tiny", "plugin:p.so#a=2", Verdict::Passed),
          result("odd", "plugin:p.so#a=2", Verdict::Failed, "second_gemm is wrong"),
          result("tiny", "plugin:p.so#a=3, second run", Verdict::Failed, "first_gemm is wrong"),
          result("tiny", "plugin:p.so#a=3, first run", Verdict::Failed, "first_gemm is wrong"),
          result("odd", "plugin:p.so#a=3", Verdict::Passed),
          result("tiny", "plugin:p.so#b", Verdict::Crashed, "p.so#b crashed in its first run"),
          result("odd", "plugin:p.so#b", Verdict::Passed)};
}

}  // namespace

TEST_SUITE("sweep_text") {
  TEST_CASE("configs are ordered by their worst case, then by how many did not pass, and keep their cases") {
    std::vector<std::string> order;
    for (const auto& one : sweep_order(sweep())) order.push_back(one.candidate + " " + one.problem);
    CHECK(order == std::vector<std::string>{
                       "plugin:p.so#b tiny", "plugin:p.so#b odd", "plugin:p.so#a=3, second run tiny",
                       "plugin:p.so#a=3, first run tiny", "plugin:p.so#a=3 odd", "plugin:p.so#a=2 tiny",
                       "plugin:p.so#a=2 odd", "plugin:p.so#a=1 tiny", "plugin:p.so#a=1 odd"});
  }

  TEST_CASE("a row a config: its verdict, cases passed, and what its worst case says of it") {
    const auto table = sweep_table(sweep());
    CHECK(table.starts_with("\n4 configs of plugin:p.so, the worst first\n"));
    CHECK(table.find("✘ CRASHED  b       1 of 2      0  tiny: crashed in its first run\n") !=
          std::string::npos);
    CHECK(table.find("✘ FAILED   a=3     1 of 3      0  tiny: first_gemm is wrong\n") != std::string::npos);
    CHECK(table.find("✘ FAILED   a=2     1 of 2      0  odd: second_gemm is wrong\n") != std::string::npos);
    CHECK(table.find("✔ passed   a=1     2 of 2      0\n") != std::string::npos);
    CHECK(table.find("CRASHED") < table.find("a=3"));
    CHECK(table.find("a=3") < table.find("a=2"));
    CHECK(sweep_table({}).empty());
  }

  TEST_CASE("what does not fit is cut between characters; configs of two pipelines keep their whole names") {
    auto cases = sweep();
    cases[3].headline = "|out - ref| is µ, ≤ and … " + std::string(200, 'x');
    for (int width = 40; width < 120; ++width) {
      const auto table = sweep_table(cases, {.width = width});
      for (std::size_t at = 0; (at = table.find("odd: ", at)) != std::string::npos; ++at) {
        const auto sentence = table.substr(at, table.find('\n', at) - at);
        CHECK(sentence.ends_with("…"));
        CHECK(display_width(sentence) <= static_cast<std::size_t>(width));
      }
    }
    cases.push_back(result("tiny", "gpu_fused#tiles=tall", Verdict::Unsupported, "no GPU"));
    CHECK(sweep_table(cases).starts_with("\n5 configs, the worst first\n"));
    CHECK(sweep_table(cases).find("- unsupported  gpu_fused#tiles=tall ") != std::string::npos);
  }
}

}  // namespace assay
