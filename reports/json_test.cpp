#include "reports/json.h"

#include <doctest/doctest.h>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "harness/contract/error.h"
#include "reports/sample_report.h"

using namespace assay;

namespace {

std::string refusal(std::string_view text) {
  try {
    report_from_json(text, "run.json");
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_SUITE("json") {
  TEST_CASE("a report with every member set survives the round trip") {
    const Report before = sample::report();
    const std::string text = to_json(before);
    const Report after = report_from_json(text);
    CHECK(to_json(after) == text);
    // Independent of the member list: values picked from each struct.
    REQUIRE(after.cases.size() == 2);
    const CaseResult& c = after.cases[1];
    CHECK(c.seed == 18446744073709551557u);
    CHECK(c.first_own_error == Field::second_gemm);
    CHECK(c.config == before.cases[1].config);
    CHECK(c.flips[1].candidate_only == std::vector<std::int64_t>{3, 64});
    CHECK(c.flips[0].admissible);
    CHECK(c.flips[0].bound == 0.00390625);
    const FieldResult& f = c.fields[7];
    CHECK(f.field == Field::second_gemm);
    CHECK(f.isolated.worst->magnitude == 3.4142135);
    CHECK(f.isolated.worst->at == before.cases[1].fields[7].isolated.worst->at);
    CHECK(f.isolated.worst_by_expert == before.cases[1].fields[7].isolated.worst_by_expert);
    CHECK(f.isolated_bits.differing == 90112);
    CHECK(f.isolated_bits.cause == "the last 16 elements of K are missing for expert 33");
    CHECK_FALSE(f.chained_bits.available);
    CHECK(after.environment == before.environment);
    CHECK(after.peak_memory_bytes == before.peak_memory_bytes);
    CHECK(after.verdict() == Verdict::WrongShape);
  }

  TEST_CASE("a report from before a member was added is read, and the member keeps its default") {
    const Report before = sample::report();
    auto document = nlohmann::json::parse(to_json(before));
    for (auto& one : document["cases"]) {
      for (auto& flip : one["flips"]) {
        flip.erase("tier");
        flip.erase("noise");
      }
      for (auto& field : one["fields"]) {
        field.erase("causes");
        field.erase("vacuity");
        for (const char* way : {"isolated", "chained"}) {
          field[way].erase("statistics");
          field[way].erase("bounds");
          field[way].erase("pattern");
          field[way].erase("worst_rejected");
          if (field[way]["worst"].is_object()) field[way]["worst"].erase("running");
        }
      }
    }
    const Report after = report_from_json(document.dump());
    CHECK(after.cases[1].fields[7].causes.empty());
    CHECK(after.cases[1].fields[7].isolated.statistics.units.empty());
    CHECK(after.cases[1].fields[7].isolated.rejected == 5012);
    CHECK_FALSE(after.cases[1].fields[7].isolated.pattern);
    CHECK(after.cases[1].fields[7].isolated.bounds.a_priori.empty());
    CHECK(after.cases[1].fields[7].isolated.worst->running == 0.0);
    CHECK(after.cases[1].fields[7].isolated.worst->a_priori == 4.1e-4);
    // What reports always had is demanded, and what is there must be right.
    document["cases"][0]["fields"][0]["isolated"].erase("rejected");
    CHECK(contains(refusal(document.dump()),
                   "expected a member \"rejected\" in cases[0].fields[0].isolated, found none"));
    CHECK(contains(refusal(replaced(to_json(before), "\"would pass\"", "\"might pass\"")),
                   "at cases[1].fields[8].vacuity[0].outcome, found \"might pass\""));
  }

  TEST_CASE("compact and indented layouts say the same") {
    Report before = sample::report();
    before.cases[1].flips[0].tier = RoutingTier::ExactTie;  // the first enumerator, and not the default
    before.cases[0].fields[0].isolated.statistics = {};
    const std::string compact = to_json(before, JsonLayout::Compact);
    const auto document = nlohmann::json::parse(compact);
    CHECK_FALSE(document["cases"][0]["fields"][0]["isolated"].contains("statistics"));
    CHECK(document["cases"][0]["fields"][2]["isolated"].contains("statistics"));
    CHECK(document["cases"][1]["flips"][0]["tier"] == name(RoutingTier::ExactTie));
    CHECK(compact.find('\n') == std::string::npos);
    CHECK(to_json(report_from_json(compact)) == to_json(before));
  }

  TEST_CASE("the sample sets every member to something else than its default") {
    // A round trip proves nothing about a member that is left at its default in the sample.
    const auto sample_json = nlohmann::json::parse(to_json(sample::report()));
    Report blank;
    blank.cases.emplace_back().fields.emplace_back();
    blank.cases[0].flips.emplace_back();
    blank.cases[0].fields[0].isolated.worst.emplace();
    blank.cases[0].fields[0].isolated_bits.first.emplace();
    blank.cases[0].fields[0].isolated.statistics.tests.emplace_back();
    blank.cases[0].fields[0].vacuity.emplace_back();
    blank.cases[0].fields[0].causes.emplace_back().k_blocks.emplace_back();
    blank.cases[0].fields[0].isolated.pattern.emplace().detail.emplace();
    const auto blank_json = nlohmann::json::parse(to_json(blank));
    const auto set_somewhere = [](const nlohmann::json& holders, const nlohmann::json& blank_object) {
      for (const auto& entry : blank_object.items()) {
        bool differs = false;
        for (const auto& holder : holders)
          differs = differs || (holder.is_object() && holder.at(entry.key()) != entry.value());
        CHECK_MESSAGE(differs, "member " << entry.key() << " has its default everywhere in the sample");
      }
    };
    nlohmann::json fields = nlohmann::json::array();
    nlohmann::json judgements = fields;
    nlohmann::json predictions = fields;
    nlohmann::json elements = fields;
    nlohmann::json flips = fields;
    nlohmann::json statistics = fields;
    nlohmann::json tests = fields;
    nlohmann::json vacuity = fields;
    nlohmann::json causes = fields;
    nlohmann::json bounds = fields;
    nlohmann::json patterns = fields;
    nlohmann::json maps = fields;
    nlohmann::json blocks = fields;
    for (const auto& one : sample_json["cases"]) {
      for (const auto& flip : one["flips"]) flips.push_back(flip);
      for (const auto& field : one["fields"]) {
        fields.push_back(field);
        for (const auto& check : field["vacuity"]) vacuity.push_back(check);
        for (const auto& cause : field["causes"]) {
          causes.push_back(cause);
          for (const auto& block : cause["k_blocks"]) blocks.push_back(block);
        }
        for (const char* way : {"isolated", "chained"}) {
          judgements.push_back(field[way]);
          bounds.push_back(field[way]["bounds"]);
          statistics.push_back(field[way]["statistics"]);
          for (const auto& test : field[way]["statistics"]["tests"]) tests.push_back(test);
          elements.push_back(field[way]["worst"]);
          predictions.push_back(field[std::string(way) + "_bits"]);
          const auto& pattern = field[way]["pattern"];
          if (pattern.is_null()) continue;
          patterns.push_back(pattern);
          maps.push_back(pattern["map"]);
          maps.push_back(pattern["detail"]);
        }
      }
    }
    const auto& blank_case = blank_json["cases"][0];
    set_somewhere(sample_json["cases"], blank_case);
    set_somewhere(fields, blank_case["fields"][0]);
    set_somewhere(judgements, blank_case["fields"][0]["isolated"]);
    set_somewhere(predictions, blank_case["fields"][0]["isolated_bits"]);
    set_somewhere(elements, blank_case["fields"][0]["isolated"]["worst"]);
    set_somewhere(flips, blank_case["flips"][0]);
    set_somewhere(statistics, blank_case["fields"][0]["isolated"]["statistics"]);
    set_somewhere(bounds, blank_case["fields"][0]["isolated"]["bounds"]);
    set_somewhere(tests, blank_case["fields"][0]["isolated"]["statistics"]["tests"][0]);
    set_somewhere(vacuity, blank_case["fields"][0]["vacuity"][0]);
    set_somewhere(causes, blank_case["fields"][0]["causes"][0]);
    set_somewhere(blocks, blank_case["fields"][0]["causes"][0]["k_blocks"][0]);
    const auto& blank_pattern = blank_case["fields"][0]["isolated"]["pattern"];
    set_somewhere(patterns, blank_pattern);
    set_somewhere(maps, blank_pattern["detail"]);
  }

  TEST_CASE("doubles keep every bit, also those JSON has no word for") {
    Report before = sample::report();
    const double values[] = {0.1,
                             -0.0,
                             5e-324,
                             1.7976931348623157e308,
                             1.0,
                             std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()};
    for (const double value : values) {
      before.seconds = value;
      const double after = report_from_json(to_json(before)).seconds;
      CHECK(std::bit_cast<std::uint64_t>(after) == std::bit_cast<std::uint64_t>(value));
    }
    before.seconds = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(report_from_json(to_json(before)).seconds));
  }

  TEST_CASE("integers beyond 2^53 are strings, and none wraps around") {
    Report before = sample::report();
    before.peak_memory_bytes = std::numeric_limits<std::int64_t>::min();
    const std::string text = to_json(before);
    CHECK(contains(text, "\"peak_memory_bytes\": \"-9223372036854775808\""));
    CHECK(contains(text, "\"seed\": \"18446744073709551557\""));
    CHECK(report_from_json(text).peak_memory_bytes == before.peak_memory_bytes);
    CHECK_MESSAGE(contains(refusal(replaced(text, "\"-9223372036854775808\"", "\"-9223372036854775809\"")),
                           "at peak_memory_bytes"),
                  refusal(replaced(text, "\"-9223372036854775808\"", "\"-9223372036854775809\"")));
    CHECK(contains(refusal(replaced(text, "\"18446744073709551557\"", "-1")),
                   "expected an integer of 64 bits, not negative at cases[0].seed, found -1"));
    CHECK(contains(refusal(replaced(text, "\"tokens\": 16", "\"tokens\": 16.5")),
                   "at cases[0].tokens, found 16.5"));
  }

  TEST_CASE("strings survive whatever they hold; bytes that are not UTF-8 become replacement characters") {
    Report before = sample::report();
    before.title = "quote \" backslash \\ newline \n nul \x01 ünï \xf0\x9f\x94\xac";
    CHECK(report_from_json(to_json(before)).title == before.title);
    before.title = "a\xff";
    CHECK(report_from_json(to_json(before)).title == "a\xef\xbf\xbd");
    CHECK(to_json(report_from_json(to_json(sample::hostile_report()))) == to_json(sample::hostile_report()));
  }

  TEST_CASE("a truncated text is refused at any length, with the byte where it ends") {
    const std::string text = to_json(sample::many_cases(0), JsonLayout::Compact);
    for (std::size_t length = 1; length < text.size(); length += 97) {
      const std::string message = refusal(std::string_view(text).substr(0, length));
      CHECK_MESSAGE(contains(message, "byte " + std::to_string(length)), message);
    }
    CHECK(refusal("") == "run.json: expected JSON, found an empty text");
  }

  TEST_CASE("foreign and broken documents are refused in one sentence") {
    const std::string text = to_json(sample::report());
    CHECK(
        refusal("\x89HDF\r\n\x1a\n") ==
        "run.json: expected a report as verify --json writes it, found an HDF5 file (assay verify judges it, "
        "and --json writes one)");
    CHECK(refusal("\x7f"
                  "ELF\x02\x01\x01") ==
          "run.json: expected a report as verify --json writes it, found a binary file");
    CHECK(contains(refusal("{\"a\": 1}"),
                   "expected a document with \"schema\": \"assay-report\", found no schema"));
    CHECK(contains(refusal("[1, 2]"), "found something else"));
    CHECK(contains(refusal(replaced(text, "assay-report", "other")), "found \"other\""));
    CHECK(refusal(replaced(text, "\"version\": 1", "\"version\": 2")) ==
          "run.json: expected version 1 of the schema, found 2");
    CHECK(contains(refusal(replaced(text, "\"router_logits\"", "\"router_logitz\"")),
                   "at cases[0].fields[0].field, found \"router_logitz\""));
    CHECK(contains(refusal(replaced(text, "\"Passed\",\n   \"headline\"", "\"Fine\",\n   \"headline\"")),
                   "expected the name of a verdict at cases[0].verdict"));
    CHECK(contains(refusal(replaced(text, "\"elements\"", "\"elementz\"")),
                   "expected a member \"elements\" in cases[0].fields[0].isolated, found none"));
    CHECK(contains(refusal(replaced(text, "\"created\": \"2026-11-21T08:00:00Z\"", "\"created\": 1e999")),
                   "larger one"));
  }
}
