// Pictures of planted errors, told apart by their characters.
#include "harness/judge/error_pattern.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace assay;

namespace {

/// second_gemm [S, H] of experts with `counts` rows each: 1 everywhere, give or take 0.001.
struct Painted {
  Sizes sizes;
  Routing routing;
  std::vector<Interval> reference;
  std::vector<Bf16> out;
  std::int64_t width;

  Painted(const std::vector<std::int32_t>& counts, std::int64_t columns) : width(columns) {
    std::int64_t rows = 0;
    routing.counts = counts;
    routing.offsets = {0};
    for (const std::int32_t count : counts) routing.offsets.push_back(rows += count);
    for (std::int64_t r = 0; r < rows; ++r) routing.gather.push_back(static_cast<std::int32_t>(r));
    sizes = {{columns, 2, static_cast<std::int64_t>(counts.size()), 1, true}, rows};
    reference.assign(static_cast<std::size_t>(rows * columns), {1.0, 0.999, 1.001, 0.0001});
    out.assign(reference.size(), round_to_bf16(1.0));
  }

  CompareContext context(std::int64_t first_row = 0) const {
    return {Field::second_gemm, sizes, &routing, first_row};
  }
  void wrong(std::int64_t row, std::int64_t column, double value = 2.0) {
    out[static_cast<std::size_t>(row * width + column)] = round_to_bf16(value);
  }
  /// Judged in stretches of `rows`.
  RoundedComparison judged(std::int64_t rows = 1 << 20) const {
    RoundedComparison comparison;
    for (std::int64_t r = 0; r < routing.offsets.back(); r += rows) {
      const std::int64_t count = std::min(rows, routing.offsets.back() - r);
      comparison.add(context(r), std::span(out).subspan(r * width, count * width),
                     std::span(reference).subspan(r * width, count * width));
    }
    return comparison;
  }
};

std::int64_t wrong_bins(const ErrorMap& map) {
  std::int64_t count = 0;
  for (const std::string& row : map.levels)
    count += std::ssize(row) - std::ranges::count(row, kNothingOutside);
  return count;
}

}  // namespace

TEST_SUITE("error_pattern") {
  TEST_CASE("a level is how often the ratio doubles from 1 on") {
    CHECK(error_level(1.0) == 'a');
    CHECK(error_level(0.7) == 'a');  // rejected by its interval though just inside the bound
    CHECK(error_level(1.99) == 'a');
    CHECK(error_level(2.0) == 'b');
    CHECK(error_level(1e3) == 'j');
    CHECK(error_level(1e300) == 'z');
    CHECK(error_level(std::numeric_limits<double>::infinity()) == kNoRatio);
  }

  TEST_CASE("a field that fits is drawn element by element, and needs no places and no detail") {
    Painted d({3, 0, 5}, 4);
    d.wrong(1, 2);
    d.wrong(7, 0, std::numeric_limits<double>::quiet_NaN());
    const auto comparison = d.judged();
    const ErrorPattern pattern = comparison.pattern()->pattern(true);
    // Neighbours of 2 are 2^-6 away above it: |2 - 1| / (0.001 + 2^-7).
    CHECK(pattern.map.levels ==
          std::vector<std::string>{"....", "..g.", "....", "....", "....", "....", "....", "#..."});
    CHECK(pattern.map.bands == std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 0}, {2, 3}});
    CHECK(pattern.map.places.empty());
    CHECK_FALSE(pattern.detail);
    CHECK(comparison.judgement().rejected_by_expert ==
          std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 1}, {2, 1}});
  }

  TEST_CASE("nothing is gathered where nothing is rejected") {
    CHECK(Painted({3, 5}, 4).judged().pattern() == nullptr);
  }

  TEST_CASE("bins show their largest error and where it is, and none has rows of two experts") {
    Painted d({301, 2, 300}, 1000);
    d.wrong(300, 999, 8.0);
    d.wrong(302, 6, 1.125);
    d.wrong(302, 7, 4.0);
    d.wrong(301, 4, 1.25);
    const ErrorMap map = d.judged().pattern()->pattern(true).map;
    CHECK(map.bin_rows == 4);  // 76 + 1 + 75 rows of bins
    CHECK(map.bin_columns == 4);
    const auto rows = bin_rows(map);
    REQUIRE(rows.size() == 152);
    REQUIRE(map.levels.size() == 152);
    CHECK((rows[75].first_row == 300 && rows[75].rows == 1 && rows[75].expert == 0));
    CHECK((rows[76].first_row == 301 && rows[76].rows == 2 && rows[76].expert == 1));
    CHECK((rows[77].first_row == 303 && rows[77].rows == 4 && rows[77].expert == 2));
    CHECK(wrong_bins(map) == 2);
    CHECK(map.levels[75][249] != kNothingOutside);
    CHECK(map.levels[76][1] != kNothingOutside);
    CHECK(place_digits(map) == 1);
    CHECK(map.places[75] == std::string(1, kPlaceDigits[3]));
    CHECK(map.places[76] == std::string(1, kPlaceDigits[1 * 4 + 3]));
  }

  TEST_CASE("the coarse map has the same worst elements in larger bins") {
    Painted d({512, 512}, 512);
    for (std::int64_t r = 0; r < 1024; r += 8)
      for (std::int64_t c = 0; c < 512; c += 16) d.wrong(r, c);
    d.wrong(1023, 511, 100.0);
    const auto comparison = d.judged();
    const ErrorMap map = comparison.pattern()->pattern(false).map;
    CHECK(map.bin_rows == 32);
    CHECK(map.bin_columns == 16);
    CHECK(wrong_bins(map) == 32 * 32);
    CHECK(map.levels.back().back() == error_level(ratio_of(round_to_bf16(100.0), d.reference[0])));
    CHECK(place_digits(map) == 2);
    CHECK(map.places.back().substr(map.places.back().size() - 2) == "7_");  // 31 * 16 + 15 = 511
  }

  TEST_CASE("a fine map made coarser is the coarse one, with the worst of each bin where it was") {
    for (const std::vector<std::int32_t>& counts :
         {std::vector<std::int32_t>{301, 2, 300}, {77, 0, 300, 5}, std::vector<std::int32_t>(60, 7)}) {
      Painted d(counts, 260);
      const std::int64_t rows = d.sizes.tokens;
      for (std::int64_t i = 0; i < rows * 260; i += 3011)  // one to a coarse bin, but for a few
        d.wrong(i / 260, i % 260, 1.5 + static_cast<double>(i % 900));
      d.wrong(rows - 1, 259, std::numeric_limits<double>::infinity());
      const auto comparison = d.judged();
      const ErrorMap coarse = comparison.pattern()->pattern(false).map;
      const ErrorMap made = coarser(comparison.pattern()->pattern(true).map, kCoarseBins);
      CHECK(made.levels == coarse.levels);
      CHECK(made.bands == coarse.bands);
      CHECK(made.bin_rows == coarse.bin_rows);
      CHECK(made.bin_columns == coarse.bin_columns);
      CHECK(made.places.back() == coarse.places.back());
      CHECK(coarser(coarse, kCoarseBins).places == coarse.places);
    }
  }

  TEST_CASE(
      "a map whose bins are not those of its levels is not made coarser, and places that are none do no "
      "harm") {
    Painted d({301, 2, 300}, 1000);
    d.wrong(302, 999);
    const ErrorMap fine = d.judged().pattern()->pattern(true).map;
    const auto changed = [&](auto change) {
      ErrorMap map = fine;
      change(map);
      return coarser(map, kCoarseBins);
    };
    CHECK(changed([](ErrorMap& m) { m.bands[0].second = 1; }).bin_rows == fine.bin_rows);
    CHECK(changed([](ErrorMap& m) { m.bin_rows = m.bin_columns = std::int64_t{1} << 40; }).levels ==
          fine.levels);
    CHECK(changed([](ErrorMap& m) { m.levels.pop_back(); }).levels.size() == fine.levels.size() - 1);
    for (const std::string place : {"", "_", "<", "____"}) {
      const ErrorMap made = changed([&](ErrorMap& m) { m.places[76] = place; });
      CHECK(wrong_bins(made) == 1);
      CHECK(made.levels == coarser(fine, kCoarseBins).levels);
    }
  }

  TEST_CASE("around the worst element every element is shown: a lane pattern is seen as one") {
    Painted d({512, 512}, 512);
    for (std::int64_t r = 0; r < 1024; r += 8)
      for (std::int64_t c = 0; c < 512; c += 16) d.wrong(r, c);
    d.wrong(640, 512 - 16, 3.0);
    const auto pattern = d.judged().pattern()->pattern(true);
    REQUIRE(pattern.detail);
    CHECK(pattern.detail->first_row == 640 - kDetailRows / 2);
    CHECK(pattern.detail->first_column == 512 - kDetailColumns);
    CHECK(wrong_bins(*pattern.detail) == (kDetailRows / 8) * (kDetailColumns / 16));
  }

  TEST_CASE("the picture does not depend on where a field is cut") {
    Painted d({77, 0, 300, 5}, 260);
    for (std::int64_t i = 0; i < 382 * 260; i += 37)
      d.wrong(i / 260, i % 260, 1.0 + 0.01 * static_cast<double>(i % 900));
    const auto whole = d.judged();
    const auto cut = d.judged(100);
    CHECK(whole.pattern()->pattern(true).map.levels == cut.pattern()->pattern(true).map.levels);
    CHECK(whole.pattern()->pattern(true).map.places == cut.pattern()->pattern(true).map.places);
    const auto a = whole.judgement().worst_rejected;
    const auto b = cut.judgement().worst_rejected;
    REQUIRE(a.size() == kWorstRejected);
    REQUIRE(b.size() == kWorstRejected);
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i].at == b[i].at);
    CHECK(std::ranges::is_sorted(a, std::ranges::greater{}, &Element::ratio));
    CHECK(a.front().at == whole.judgement().worst->at);
  }

  TEST_CASE("of many rejected elements some hundred are sampled, over all of the field") {
    Painted d({700}, 700);
    for (std::int64_t i = 0; i < 700 * 700; ++i)
      d.wrong(i / 700, i % 700, 2.0 + static_cast<double>(i / 700));
    const auto pattern = d.judged(70).pattern()->pattern(true);
    CHECK(pattern.rejected.size() > 200);
    CHECK(pattern.rejected.size() <= 514);
    CHECK(pattern.rejected.front().second < 20.0);
    CHECK(pattern.rejected.back().second > 650.0);
    CHECK(pattern.sampled.size() > 200);
    CHECK(pattern.sampled.size() <= 514);
  }

  TEST_CASE("an exact field shows which elements are wrong") {
    const Painted d({3, 5}, 4);
    const std::vector<std::int32_t> expected = {0, 1, 2, 3, 4, 5, 6, 7};
    std::vector<std::int32_t> out = expected;
    std::swap(out[2], out[6]);
    const Judgement judgement = compare_exact({Field::gather_indices, d.sizes, &d.routing}, out, expected);
    CHECK(judgement.rejected == 2);
    REQUIRE(judgement.pattern);
    CHECK(judgement.pattern->map.levels == std::vector<std::string>{".", ".", "#", ".", ".", ".", "#", "."});
    REQUIRE(judgement.worst_rejected.size() == 2);
    CHECK(judgement.worst_rejected[1].at == std::vector<std::pair<std::string, std::int64_t>>{{"row", 6}});
  }
}
