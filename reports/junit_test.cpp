#include "reports/junit.h"

#include <doctest/doctest.h>
#include <string>

#include "reports/escape.h"
#include "reports/sample_report.h"

using namespace assay;

namespace {

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::size_t count_of(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size()))
    ++count;
  return count;
}

std::string testcase_of(const std::string& xml, std::string_view field, std::string_view after) {
  const std::size_t suite = xml.find(after);
  const std::size_t start = xml.find("<testcase name=\"" + std::string(field) + "\"", suite);
  REQUIRE(start != std::string::npos);
  return xml.substr(start, xml.find("<testcase", start + 1) - start);
}

}  // namespace

TEST_SUITE("junit") {
  TEST_CASE("markup is escaped; forbidden characters and broken UTF-8 become replacement characters") {
    CHECK(escaped("a<b>&\"c'\n\t") == "a&lt;b&gt;&amp;&quot;c&#39;\n\t");
    CHECK(escaped("\x01\x1b[0m") == "\xef\xbf\xbd\xef\xbf\xbd[0m");
    CHECK(escaped("ü✔\xf0\x9f\x94\xac") == "ü✔\xf0\x9f\x94\xac");
    CHECK(escaped("\xc3") == "\xef\xbf\xbd");                                    // cut short
    CHECK(escaped("\xc0\xbc") == "\xef\xbf\xbd\xef\xbf\xbd");                    // overlong '<'
    CHECK(escaped("\xed\xa0\x80x") == "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx");  // surrogate
    CHECK(escaped(std::string_view("a\0b", 3)) ==
          "a\xef\xbf\xbd"
          "b");
    CHECK(escaped("]]>") == "]]&gt;");
  }

  TEST_CASE("a suite per case, a test per field, and the counts agree with the elements") {
    const std::string xml = render_junit(sample::report());
    CHECK(count_of(xml, "<testsuite ") == 2);
    CHECK(count_of(xml, "<testcase ") == 42);
    // Of the failing case: 5 failed-like, 1 suspect, 1 mistrusted, 2 not compared.
    CHECK(count_of(xml, "<failure ") == 6);
    CHECK(count_of(xml, "<skipped ") == 2);
    CHECK(contains(xml,
                   "<testsuites name=\"assay verify: qwen3_30b_a3b\" tests=\"42\" failures=\"6\" "
                   "errors=\"0\" skipped=\"2\" time=\"6.500\">"));
    CHECK(contains(xml,
                   "tests=\"21\" failures=\"6\" errors=\"0\" skipped=\"2\" time=\"3.250\" "
                   "timestamp=\"2026-11-21T08:00:00Z\">"));
  }

  TEST_CASE("each verdict has its place") {
    const std::string xml = render_junit(sample::report());
    const std::string_view suite = "<testsuite name=\"qwen3_30b_a3b, gpu_fused\"";
    CHECK(contains(testcase_of(xml, "router_logits", suite), "/>"));
    CHECK(contains(testcase_of(xml, "first_gemm", suite), "<skipped message=\"first_gemm not written\"/>"));
    CHECK(contains(testcase_of(xml, "intermediate", suite), "<failure type=\"Suspect\""));
    CHECK(contains(testcase_of(xml, "hidden_states_unpermute", suite), "<failure type=\"Mistrusted\""));
    CHECK(contains(
        testcase_of(xml, "second_gemm", suite),
        "<failure type=\"Failed\" message=\"second_gemm FAILED: 5,012 of 262,144 elements rejected\">"));
    CHECK(contains(testcase_of(xml, "d_topk_weights", suite), "<failure type=\"NonFinite\""));
    CHECK(contains(testcase_of(xml, "d_gate", suite), "expected shape [128, 2048], found [128, 1024]"));
    CHECK(contains(testcase_of(xml, "second_gemm", suite), "replay: assay verify --fixture"));
  }

  TEST_CASE("a case without fields is a test of its own, so that it cannot vanish") {
    Report report;
    CaseResult& one = report.cases.emplace_back();
    one.verdict = Verdict::Unsupported;
    CHECK(contains(render_junit(report), "tests=\"1\" failures=\"0\" errors=\"0\" skipped=\"1\""));
    one.verdict = Verdict::MissingGolden;
    CHECK(contains(render_junit(report), "<failure type=\"MissingGolden\""));
  }

  TEST_CASE("hostile names stay inside their attribute") {
    const std::string xml = render_junit(sample::hostile_report());
    CHECK_FALSE(contains(xml, "<script"));
    CHECK_FALSE(contains(xml, "<!--"));
    for (const char* raw : {"\x1b", "\xc2\x9b", "\xe2\x80\xae"}) CHECK(xml.find(raw) == std::string::npos);
    CHECK(contains(xml, "&lt;/script&gt;"));
  }
}
