// Drawings of where and how a field is wrong, and the bytes they travel in.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <cstdint>
#include <string>

#include "harness/contract/error.h"
#include "reports/html/base64.h"
#include "reports/html/deflated.h"
#include "reports/html/palette_png.h"
#include "reports/html/svg.h"
#include "reports/sample_report.h"

using namespace assay;

namespace {

bool holds(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::size_t times(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

const ErrorMap& sample_map(const CaseResult& c) { return c.fields[7].isolated.pattern->map; }

}  // namespace

TEST_SUITE("heat_map") {
  TEST_CASE("bytes are what RFC 4648 writes for them") {
    CHECK(base64("").empty());
    CHECK(base64("f") == "Zg==");
    CHECK(base64("fo") == "Zm8=");
    CHECK(base64("foo") == "Zm9v");
    CHECK(base64("foobar") == "Zm9vYmFy");
    CHECK(base64("\xff\xfe") == "//4=");
  }

  TEST_CASE("a text that was deflated inflates to itself, and a damaged one is refused") {
    std::string text;
    for (std::int64_t i = 0; i < 300'000; ++i) text += static_cast<char>('a' + i * i % 23);
    const std::string small = deflated(text);
    CHECK(small.size() < text.size() / 50);
    CHECK(inflated(small) == text);
    CHECK(inflated(deflated("")).empty());
    CHECK_THROWS_AS(inflated(small.substr(0, small.size() / 2)), InputError);
    CHECK_THROWS_AS(inflated("no deflate"), InputError);
  }

  TEST_CASE("a picture is a palette PNG of its size") {
    const std::vector<std::string> rows = {"010", "001"};
    const PaletteColour colours[] = {{0, 0, 0, 0}, {255, 0, 0}};
    const std::string png =
        palette_png(rows, colours, [](char c) { return static_cast<std::uint8_t>(c - '0'); });
    CHECK(png.substr(0, 8) == "\x89PNG\r\n\x1a\n");
    CHECK(png.substr(12, 12) == std::string("IHDR\0\0\0\3\0\0\0\2", 12));
    CHECK(png.substr(24, 2) == "\x08\x03");  // 8 bits, palette
    CHECK(holds(png, "tRNS"));
    CHECK_THROWS_AS(palette_png({}, colours, [](char) { return std::uint8_t{0}; }), InputError);
  }

  TEST_CASE("a map has a label where an expert's rows begin, and one element in a cell of its size") {
    const CaseResult c = sample::failing_case();
    const std::string drawing =
        svg::heat_map(sample_map(c), Field::second_gemm, 512, "title", svg::Bins::Embedded);
    CHECK(holds(drawing, "<image href=\"data:image/png;base64,"));
    CHECK(holds(drawing, ">105</text>"));  // the last of 16 experts, each seventh
    CHECK(holds(drawing, ">col →</text>"));
    CHECK(holds(drawing, "data-cells=\"58 18 2 4\""));  // 256 columns and 128 rows of cells
    CHECK(times(drawing, "class=\"ring\"") == 0);
  }

  TEST_CASE("few cells are ringed, so that none is overlooked") {
    ErrorMap map;
    map.rows = map.columns = 256;
    map.levels.assign(256, std::string(256, kNothingOutside));
    for (std::size_t i = 0; i < 7; ++i) map.levels[i * 31][i * 17] = 'c';
    const std::string drawing = svg::heat_map(map, Field::hidden_states, 512, "title", svg::Bins::Embedded);
    CHECK(times(drawing, "class=\"ring\"") == 7);
    CHECK(svg::bins_outside(map) == 7);
    CHECK(holds(svg::level_key(map, true), "× bound"));
    CHECK(holds(svg::level_key(map, true), ">4</text>"));
    map.levels[0][0] = 'v';  // numbers of six digits and more stand farther apart
    CHECK(holds(svg::level_key(map, true), ">1048576</text>"));
    CHECK_FALSE(holds(svg::level_key(map, true), ">4</text>"));
  }

  TEST_CASE("a map that is not what it says is not drawn") {
    const CaseResult c = sample::failing_case();
    const auto drawn = [&](auto change) {
      ErrorMap map = sample_map(c);
      change(map);
      return !svg::heat_map(map, Field::second_gemm, 512, "title", svg::Bins::Embedded).empty();
    };
    CHECK(drawn([](ErrorMap&) {}));
    CHECK_FALSE(drawn([](ErrorMap& m) { m.bin_rows = 0; }));
    CHECK_FALSE(drawn([](ErrorMap& m) { m.bin_columns = -1; }));
    CHECK_FALSE(drawn([](ErrorMap& m) { m.rows = std::int64_t{1} << 60; }));
    CHECK_FALSE(drawn([](ErrorMap& m) { m.levels[3][3] = '<'; }));
    CHECK_FALSE(drawn([](ErrorMap& m) { m.levels.pop_back(); }));
    CHECK_FALSE(drawn([](ErrorMap& m) { m.levels[5].pop_back(); }));
    CHECK_FALSE(drawn([](ErrorMap& m) { m.bands[2].second = 1 << 20; }));
    CHECK_FALSE(drawn([](ErrorMap& m) { std::swap(m.bands[2].second, m.bands[3].second); }));
  }

  TEST_CASE("the histogram has a side for values too near zero and one for those too far") {
    Statistics s;
    s.ulp_histogram = {{0, 1000}, {1, 40}, {3, 5}};
    s.ulps_inward = {{1, 30}, {3, 0}};
    const std::string drawing = svg::ulp_histogram(s);
    for (const char* name : {">−3<", ">−1<", ">0<", ">+1<", ">+3<", ">30<", ">10<", ">5<"})
      CHECK(holds(drawing, name));
    s.ulps_inward.clear();  // of a report that does not know
    CHECK_FALSE(holds(svg::ulp_histogram(s), ">+1<"));
    CHECK(holds(svg::ulp_histogram(s), ">40<"));
  }

  TEST_CASE("by expert: the worst, the share of its elements, its rows") {
    Judgement j;
    j.elements = 100 * 10;
    j.worst_by_expert = {{0, 0.5}, {3, 40.0}};
    j.rejected_by_expert = {{3, 90}};
    const std::string drawing = svg::expert_chart(j, {70, 0, 0, 30});
    CHECK(holds(drawing, "expert 0: worst 0.500, 0 elements rejected (0 %), 70 rows"));
    CHECK(holds(drawing, "expert 3: worst 40.00, 90 elements rejected (30 %), 30 rows"));
    CHECK(svg::expert_chart(j, {70}).empty());  // a report that contradicts itself
  }

  TEST_CASE("blocks of K stand by what is missing of them") {
    const std::string drawing = svg::k_blocks_chart({{0, 48, 0.01, 0.02}, {48, 64, 1.0, 0.01}});
    CHECK(holds(drawing, "K 48 to 63: 1 ± 0.01"));
    CHECK(times(drawing, "class=\"bad\"") == 1);
    CHECK(svg::k_blocks_chart({}).empty());
  }
}
