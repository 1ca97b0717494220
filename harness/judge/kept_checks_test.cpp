// A weight's gradient judged by intervals that an engine keeps.
#include <cmath>
#include <functional>
#include <limits>

#include <doctest/doctest.h>

#include "harness/contract/error.h"
#include "harness/judge/drawn_gradients.h"

using namespace assay;
using namespace assay::drawn;

namespace {

/// Its `kept` is asked by the reference, which in these tests does not.
Engine keeping_engine() {
  Engine engine;
  engine.name = "keeps";
  engine.kept = [](const auto&, const auto&) { return nullptr; };
  return engine;
}

}  // namespace

TEST_SUITE("kept_checks") {
  TEST_CASE("no figure depends on whether an engine keeps the intervals, of all matrices or of some") {
    const Engine keeps = keeping_engine();
    for (const unsigned seed : {1u, 2u})
      for (const Dependence dependence : {Dependence::Elements, Dependence::Nothing})
        for (const double width : {40.0, 1e9}) {  // any finite value is accepted with the second
          CAPTURE(seed);
          Drawn d(seed, width);
          const auto agrees = [&](const std::string& at_hand) {
            constexpr std::int64_t kNotKept[] = {600, -1, 300, -1};  // with each cut
            for (std::size_t i = 0; i < kCuts.size(); ++i) {
              d.reference.not_kept_at = kNotKept[i];
              d.reference.asked.clear();
              CHECK(text(d.judged(kCuts[i], dependence, &keeps)) == at_hand);
              CHECK(d.asked("kept") == 3);
              CHECK(d.asked("bounded") == (kNotKept[i] >= 0));
            }
          };
          agrees(text(d.judged(kCuts[0], dependence)));
          // A NaN, an Inf, a value that is rejected and a tile that is suspect.
          d.out[static_cast<std::size_t>(index_of(0, 7, 3))] = round_to_bf16(0.5);
          d.out[static_cast<std::size_t>(index_of(1, 2, 1))] = {0x7fc0};
          d.out[static_cast<std::size_t>(index_of(2, 299, 129))] = {0xff80};
          for (std::int64_t i = index_of(2, 0, 0); i < index_of(2, 40, 0); ++i)
            ++d.out[static_cast<std::size_t>(i)].bits;
          agrees(text(d.judged(kCuts[0], dependence)));
        }
  }

  TEST_CASE("all of a kept matrix is brought where wrong copies are shown to it, or an element is rejected") {
    const Engine keeps = keeping_engine();
    Drawn d(13);
    d.judged(kCuts[1], Dependence::Elements, &keeps);
    CHECK(d.reference.whole_brought == 1);  // the copies, to the first one
    d.reference.whole_brought = 0;
    d.out[static_cast<std::size_t>(index_of(2, 211, 129))] = round_to_bf16(100.0);
    d.judged(kCuts[1], Dependence::Elements, &keeps);
    CHECK(d.reference.whole_brought == 2);
  }

  TEST_CASE("a planted wrong element of a kept matrix is named by expert, row and column") {
    const Engine keeps = keeping_engine();
    Drawn d(4);
    const auto flipped = static_cast<std::size_t>(index_of(2, 211, 129));
    d.out[flipped].bits ^= 1u << 6;
    const Judgement judgement = d.judged(kCuts[1], Dependence::Elements, &keeps).judgement;
    CHECK(judgement.verdict == Verdict::Failed);
    CHECK(judgement.rejected == 1);
    REQUIRE(judgement.worst);
    CHECK(judgement.worst->at == At{{"expert", 2}, {"row", 211}, {"col", 129}});
    CHECK(judgement.worst_rejected.size() == 1);
  }

  TEST_CASE("an engine that compares kept intervals wrongly is refused") {
    const Engine keeps = keeping_engine();
    const std::function<void(FieldCells&)> lies[] = {
        [](FieldCells& c) { c.cells[0].test.rejected ^= 1; },
        [](FieldCells& c) { c.cells[0].sums.flipped[0] ^= 2; },
        [](FieldCells& c) { c.cells.back().sums.z2 = std::nextafter(c.cells.back().sums.z2, 1e9); },
        [](FieldCells& c) { c.cells[301].test.max_ratio = std::numeric_limits<double>::quiet_NaN(); }};
    for (const auto& lie : lies) {
      Drawn d(14);
      d.reference.lie = lie;
      CHECK_THROWS_AS(d.judged(kCuts[1], Dependence::Elements, &keeps), InputError);
    }
  }
}
