#include "reports/text.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <algorithm>
#include <limits>
#include <sstream>

#include "reports/columns.h"
#include "reports/sample_report.h"
#include "reports/wording.h"

using namespace assay;

namespace {

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string line_with(const std::string& text, std::string_view part) {
  for (const std::string& line : lines_of(text))
    if (contains(line, part)) return line;
  return "";
}

}  // namespace

TEST_SUITE("text") {
  TEST_CASE("counts, ratios and bits are said the same way everywhere") {
    CHECK(grouped_digits(0) == "0");
    CHECK(grouped_digits(-100) == "-100");
    CHECK(grouped_digits(-1000) == "-1,000");
    CHECK(grouped_digits(1115706) == "1,115,706");
    CHECK(grouped_digits(std::numeric_limits<std::int64_t>::min()) == "-9,223,372,036,854,775,808");
    CHECK(ratio_text(0.4824) == "0.482");
    CHECK(ratio_text(12.4) == "12.40");
    CHECK(ratio_text(1e-9) == "<0.001");
    CHECK(ratio_text(123456.7) == "123,457");
    CHECK(ratio_text(std::numeric_limits<double>::infinity()) == "inf");
    CHECK(bits_text(DType::BFloat16, 0x3df) == "0x03df");
    CHECK(bits_text(DType::Int32, 17) == "0x00000011");
    CHECK(bits_text(DType::Float32, 0x3dfc0001) == "0x3dfc0001");
    CHECK(seconds_text(245) == "4 min 05 s");
    CHECK(bytes_text(1288490188) == "1.2 GiB");
    Prediction bits;
    bits.available = true;
    bits.elements = 2048;
    bits.as_predicted = 2040;
    bits.undetermined = 5;
    bits.differing = 3;
    CHECK(prediction_text(bits) == "2,040 of 2,048 (3 differ, 5 undetermined)");
    CHECK(prediction_text({}) == "not predicted");
  }

  TEST_CASE("every verdict has a sign and words") {
    for (int i = 0; i <= static_cast<int>(kWorstVerdict); ++i) {
      const auto verdict = static_cast<Verdict>(i);
      CHECK_FALSE(words(verdict).empty());
      CHECK((mark(verdict) == Mark::Bad) == failed(verdict));
      CHECK((mark(verdict) == Mark::Absent) == !compared(verdict));
    }
  }

  TEST_CASE("columns align, whatever the colour") {
    const Columns plain{{Align::Left, Align::Right}, {{"a", "1"}, {"✔ long", "23"}, {"b"}}};
    CHECK(plain.text(1) == " a        1\n ✔ long  23\n b\n");
    const Columns coloured{{Align::Left, Align::Right}, {{"\x1b[32ma\x1b[0m", "1"}, {"✔ long", "23"}}};
    CHECK(coloured.width() == 10);
    CHECK(wrapped("one two three", "> ", 9) == "> one two\n  three\n");
    CHECK(wrapped("unbreakable", "", 3) == "unbreakable\n");
  }

  TEST_CASE("a case has its header, its headline and one aligned row per field") {
    const CaseResult result = sample::passing_case();
    Report report = sample::report();
    report.cases.assign(1, result);
    const std::string text = render_text(report, {.width = 160});
    CHECK(contains(text, "✔ passed  qwen3_30b_a3b, golden/recorded/qwen3_30b_a3b.grouped_mm.h5"));
    CHECK(contains(text, "producer huggingface grouped_mm · device NVIDIA H200 · contract hf"));
    CHECK(contains(text, "T 16 tokens · K 8 of E 128 experts · H 2048 · I 768"));
    CHECK(contains(text, result.headline));
    std::vector<std::string> rows;
    for (const FieldResult& field : result.fields) {
      const std::string found = line_with(text, fmt::format(" {} ", name(field.field)));
      CHECK_MESSAGE(contains(found, grouped_digits(elements(field))), name(field.field));
      rows.push_back(found);
    }
    // The stage column starts at the same place in every row.
    const auto column = [](const std::string& line, std::string_view what) {
      return display_width(std::string_view(line).substr(0, line.find(what)));
    };
    CHECK(column(rows[0], "Router ") == column(rows[1], "TopK "));
    CHECK(column(rows[0], "Router ") == column(rows.back(), "InputGrad"));
    CHECK(contains(rows[0], "2,048 of 2,048     "));
    const std::string all = grouped_digits(totals(result).isolated_bits.elements);
    CHECK(contains(
        text, fmt::format("bits as predicted: {} of {} isolated; {} of {} chained", all, all, all, all)));
    CHECK(contains(text, fmt::format("replay: {}", result.replay)));
  }

  TEST_CASE(
      "the eight fields of GroupedGEMMResult stand together, below the router's and above the gradients") {
    Report report = sample::report();
    report.cases.assign(1, sample::passing_case());
    std::vector<std::string> order;
    for (const std::string& line : lines_of(render_text(report, {.width = 160})))
      for (const std::string_view what : {
               "  router",
               "  GroupedGEMMResult",
               "  gradients",
               "  ✔  selected_experts ",
               "  ✔  topk_weights ",
               "  ✔  hidden_states ",
               "  ✔  d_second_gemm ",
           })
        if (line == what || (what.ends_with(' ') && line.starts_with(what)))
          order.emplace_back(what.substr(what.find_last_of(' ', what.size() - 2) + 1));
    CHECK(order == std::vector<std::string>{"router", "selected_experts ", "GroupedGEMMResult",
                                            "topk_weights ", "hidden_states ", "gradients",
                                            "d_second_gemm "});
  }

  TEST_CASE("a failing case shows the element to argue about, with its bits, bound and interval") {
    const std::string text = render_text(sample::report(), {.width = 120});
    const std::string row = line_with(text, "✘  second_gemm ");
    CHECK(contains(row, "12.40 ✘"));
    CHECK(contains(row, "31.25 ✘"));
    CHECK(contains(row, "90,112"));
    CHECK(contains(row, "FAILED"));
    CHECK(contains(text, "isolated FAILED: 5,012 of 262,144 outside the interval, worst ratio 12.40"));
    CHECK(
        contains(text, fmt::format("at {}\n", place_text(*sample::failing_case().fields[7].isolated.worst))));
    CHECK(contains(text, "accepted   0.123046875 .. 0.1240234375"));
    CHECK(contains(text, "0x3dfd"));
    CHECK(contains(text, "cause: the last 16 elements of K are missing for expert 33"));
    CHECK(contains(text, "note: expected shape [128, 2048], found [128, 1024]"));
    CHECK(contains(
        text,
        "2 tokens took other experts than the reference: 0 exact ties, 1 admissible, 0 suspicious, 1 wrong"));
    CHECK(contains(line_with(text, "token 11"), "✘ WRONG"));
    CHECK(contains(line_with(text, "token 7"), "✔ admissible"));
    CHECK(contains(line_with(text, "-  d_gate_up_proj"), " unsupported"));
    CHECK(contains(line_with(text, "✘  d_topk_weights "), "2 NaN/inf"));
  }

  TEST_CASE("both bounds are said of the element argued about: which is in force, and how each is made") {
    Report report = sample::report();
    report.cases.erase(report.cases.begin());
    Judgement& down = report.cases[0].fields[7].isolated;
    report.cases[0].fields[7].chained.worst.reset();
    const std::string text = render_text(report, {.width = 400});
    CHECK(contains(line_with(text, "a priori "),
                   "  a priori   0.00041: C(n) sum |a||b| for additions in any order, C(n) = n u / (1 - n u) "
                   "= 0.000122, n = 2048, u = 2^-24"));
    CHECK(contains(
        line_with(text, "running "),
        "  running    3.1e-05, in force: hopper, in its own order: each of 128 steps of 16 products loses"));
    CHECK(contains(text,
                   "typically  the a-priori bound is 117.2 times the one in force: median of 62 elements, 3 "
                   "more are exact\n"));
    down.worst->running = 0.0;
    down.worst->delta = down.worst->a_priori;
    down.bounds.running = "none: no order of summation is declared";
    const std::string undeclared = render_text(report, {.width = 400});
    CHECK(contains(undeclared, "  a priori   0.00041, in force: C(n)"));
    CHECK(contains(undeclared, "  running    none: no order of summation is declared\n"));
    down.worst->delta = 0.0;
    CHECK(contains(render_text(report, {.width = 400}),
                   "typically  this element is exact in any order of summation, so that delta is 0; the "
                   "a-priori bound is"));
    down.bounds = {};
    CHECK_FALSE(contains(line_with(render_text(report, {.width = 400}), "sum of |a||b|"), "a priori"));
  }

  TEST_CASE("the cause comes first, and chances are said of fields inside their bounds only") {
    Report report = sample::report();
    report.cases.erase(report.cases.begin());
    const std::string text = render_text(report);
    const auto section = text.find("✘ second_gemm");
    CHECK(text.find("cause: the rows of expert 33", section) < text.find("isolated FAILED", section));
    FieldResult& down = report.cases[0].fields[7];
    down.isolated.statistics.units = "elements";
    down.isolated.statistics.suspicion = "most bits differ";
    CHECK_FALSE(contains(render_text(report), "most bits differ"));
    CHECK(contains(render_text(report, {.verbose = true}), "most bits differ"));
    down.isolated.verdict = Verdict::Suspect;
    CHECK(contains(render_text(report), "isolated statistics: most bits differ"));
  }

  TEST_CASE("a value where only NaN is accepted is not measured by a bound") {
    Report report = sample::report();
    report.cases.erase(report.cases.begin());
    Element& e = *report.cases[0].fields[7].isolated.worst;
    e.ref = e.low = e.high = e.delta = std::numeric_limits<double>::quiet_NaN();
    report.cases[0].fields[7].chained.worst.reset();
    const std::string text = render_text(report);
    CHECK(contains(text, "accepted   NaN alone, which the operands give\n"));
    CHECK_FALSE(contains(text, "delta nan"));
  }

  TEST_CASE("bits and ulps are shown of bf16 elements only") {
    Report report = sample::report();
    report.cases.erase(report.cases.begin());
    FieldResult& counts = report.cases[0].fields[3];
    REQUIRE(counts.field == Field::token_counts_by_expert);
    counts.verdict = counts.isolated.verdict = Verdict::Failed;
    counts.isolated.rejected = 1;
    counts.isolated.worst = Element{.at = {{"expert", 5}}, .out = 17, .ref = 16, .low = 16, .high = 16};
    FieldResult& down = report.cases[0].fields[7];
    down.isolated.worst->out = 0.1;  // no bf16 value: a float64 result
    const std::string text = render_text(report);
    CHECK(contains(text, "at expert 5\n      found      17\n      reference  16\n"));
    CHECK(contains(text, "found      0.1\n"));
    CHECK(contains(text, "3.1e-05 = delta 3.1e-05; off by"));
  }

  TEST_CASE("many passing cases take one line each, and verbose opens them") {
    const Report report = sample::many_cases(40);
    const std::string text = render_text(report);
    CHECK(contains(line_with(text, "tiny_17 "), "  21  "));
    CHECK(std::ranges::count(lines_of(text), true, [](const std::string& line) {
            return contains(line, "  router_logits ");
          }) == 1);
    const std::string verbose = render_text(report, {.verbose = true});
    CHECK(std::ranges::count(lines_of(verbose), true, [](const std::string& line) {
            return contains(line, " router_logits  ");
          }) == 41);
    CHECK(contains(text, "✘ WRONG SHAPE  41 cases: 1 WRONG SHAPE, 40 passed"));
    CHECK(contains(text, "peak memory 1.2 GiB"));
  }

  TEST_CASE("tables fit the width they are given, down to 100 columns") {
    for (const int width : {100, 110, 120, 160}) {
      Report report = sample::report();
      const std::string text = render_text(report, {.width = width});
      for (const std::string& line : lines_of(text))
        if (!contains(line, "replay:") && !contains(line, "--html"))
          CHECK_MESSAGE(display_width(line) <= static_cast<std::size_t>(width), line);
    }
  }

  TEST_CASE("colour appears only when asked for and changes no word") {
    const std::string plain = render_text(sample::report());
    CHECK(plain.find('\x1b') == std::string::npos);
    std::string coloured = render_text(sample::report(), {.colour = true});
    CHECK(contains(coloured, "\x1b[1;31m"));
    while (coloured.find('\x1b') != std::string::npos) {
      const auto at = coloured.find('\x1b');
      coloured.erase(at, coloured.find('m', at) + 1 - at);
    }
    CHECK(coloured == plain);
  }

  TEST_CASE("a case that could not be judged says why, and nothing else") {
    Report report;
    CaseResult& one = report.cases.emplace_back();
    one.problem = one.candidate = "cut.h5";
    one.verdict = Verdict::MissingGolden;
    one.headline = "cannot open cut.h5 as HDF5: truncated file";
    CHECK(contains(render_text(report),
                   "~ NOT JUDGED  cut.h5\n  cannot open cut.h5 as HDF5: truncated file\n\n"));
    CHECK_FALSE(contains(render_text(report), "T 0 tokens"));
    CHECK_FALSE(contains(render_text(report), "elements   worst"));
  }

  TEST_CASE("nothing compared is said in words, and control characters never reach the terminal") {
    CHECK(contains(render_text(Report{}), "- NOTHING COMPARED  0 cases"));
    TextOptions everything;
    everything.verbose = true;
    const std::string text = render_text(sample::hostile_report(), everything);
    for (const char* raw : {"\x1b", "\xc2\x9b", "\xe2\x80\xae", "\xff"}) CHECK_FALSE(contains(text, raw));
    CHECK(contains(text, "\\x1b[31m"));
  }
}
