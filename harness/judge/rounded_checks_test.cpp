// A weight's gradient judged in blocks, beside a reference that serves what it was given.
#include "harness/judge/rounded_checks.h"

#include <algorithm>
#include <limits>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/judge/drawn_gradients.h"

using namespace assay;
using namespace assay::drawn;

namespace {

/// Takes nothing over.
Engine declining_engine() {
  Engine engine;
  engine.name = "declines";
  return engine;
}

}  // namespace

TEST_SUITE("rounded_checks") {
  TEST_CASE("no figure depends on how a field of experts' matrices is cut") {
    for (const unsigned seed : {1u, 2u, 3u})
      for (const Dependence dependence : {Dependence::Elements, Dependence::Nothing}) {
        CAPTURE(seed);
        Drawn d(seed);
        d.out[static_cast<std::size_t>(index_of(0, 7, 3))] = round_to_bf16(0.5);
        d.out[static_cast<std::size_t>(index_of(2, 299, 129))] = round_to_bf16(-0.25);
        for (std::int64_t i = index_of(2, 0, 0); i < index_of(2, 40, 0); ++i)  // a tile that is suspect
          ++d.out[static_cast<std::size_t>(i)].bits;
        const std::string whole = text(d.judged(kCuts[0], dependence));
        CHECK(whole.size() > 1000);
        for (const auto& cut : kCuts) CHECK(text(d.judged(cut, dependence)) == whole);
      }
  }

  TEST_CASE("a flipped bit in the last block is found, named by expert, row and column") {
    Drawn d(4);
    const auto flipped = static_cast<std::size_t>(index_of(2, 211, 129));
    d.reference.bits[flipped].undetermined = false;
    d.out[flipped].bits ^= 1u << 6;
    for (const auto& cut : kCuts) {
      const RoundedChecks checks = d.judged(cut);
      CHECK(checks.bits.differing == 1);
      CHECK(checks.bits.binding);
      REQUIRE(checks.bits.first);
      CHECK(checks.bits.first->at == At{{"expert", 2}, {"row", 211}, {"col", 129}});
      CHECK(checks.bits.first->ref_bits == d.reference.bits[flipped].bits);
      CHECK(checks.judgement.verdict == Verdict::Failed);
      CHECK(checks.judgement.rejected == 1);
      REQUIRE(checks.judgement.worst);
      CHECK(checks.judgement.worst->at == At{{"expert", 2}, {"row", 211}, {"col", 129}});
      CHECK(checks.judgement.worst->magnitude == static_cast<double>(flipped));
      REQUIRE(checks.judgement.worst_by_expert.size() == 3);
      CHECK(checks.judgement.worst_by_expert[0].second < 1.0);
      CHECK(checks.judgement.worst_by_expert[1] == std::pair<std::int64_t, double>{1, 0.0});
      CHECK(checks.judgement.worst_by_expert[2].second == checks.judgement.max_ratio);
      CHECK(checks.judgement.max_ratio > 1.0);
    }
  }

  TEST_CASE("what is off in two blocks is named in its own place") {
    Drawn d(8);
    for (const std::int64_t at : {index_of(0, 5, 1), index_of(2, 211, 129)}) {
      d.reference.bits[static_cast<std::size_t>(at)] = {d.out[static_cast<std::size_t>(at)].bits ^ 1u, false};
    }
    for (std::int64_t i = index_of(2, 0, 0); i < index_of(2, 200, 0); ++i)
      if (i % kWidth < 128) ++d.out[static_cast<std::size_t>(i)].bits;
    for (const auto& cut : kCuts) {
      const RoundedChecks checks = d.judged(cut);
      REQUIRE(checks.bits.first);
      CHECK(checks.bits.first->at == At{{"expert", 0}, {"row", 5}, {"col", 1}});
      std::string over;
      for (const auto& test : checks.judgement.statistics.tests)
        if (test.measure == "flipped bits") over += test.over + "; ";
      CHECK(over.substr(0, over.find("; col")) == "the field; expert 2; rows 600 to 727, cols 0 to 127");
    }
  }

  TEST_CASE("a NaN in one block makes the field non-finite, and other blocks are counted all the same") {
    Drawn d(5);
    d.out[static_cast<std::size_t>(index_of(1, 2, 1))] =
        round_to_bf16(std::numeric_limits<double>::quiet_NaN());
    for (const auto& cut : kCuts) {
      const Judgement judgement = d.judged(cut).judgement;
      CHECK(judgement.verdict == Verdict::NonFinite);
      CHECK(judgement.non_finite == 1);
      CHECK(judgement.elements == kElements);
      REQUIRE(judgement.worst);
      CHECK(judgement.worst->at == At{{"expert", 1}, {"row", 2}, {"col", 1}});
      CHECK(judgement.worst_by_expert[2].second > 0.0);
    }
  }

  TEST_CASE("a wrong copy is rejected by the expert that can tell, and passes where none can") {
    Drawn sharp(6);
    for (const auto& cut : kCuts)
      for (const auto& check : sharp.judged(cut).vacuity) CHECK(check.outcome == VacuityOutcome::Rejected);
    Drawn loose(6, 1e9);  // any finite value is accepted
    for (const auto& cut : kCuts)
      for (const auto& check : loose.judged(cut).vacuity) CHECK(check.reason == "predicted bits");
    loose.reference.bits.clear();
    for (const auto& cut : kCuts)
      for (const auto& check : loose.judged(cut).vacuity) CHECK(check.outcome == VacuityOutcome::WouldPass);
    for (std::int64_t i = index_of(2, 0, 0); i < kElements; ++i) {  // of two experts without an interval
      auto& x = loose.reference.intervals[static_cast<std::size_t>(i)];
      x = Interval(x.ref, x.ref, x.ref);
    }
    for (const auto& cut : kCuts)
      for (const auto& check : loose.judged(cut).vacuity) CHECK(check.reason == "interval");
  }

  TEST_CASE("beside an engine blocks are made ahead by other threads, and no figure differs") {
    const Engine declines = declining_engine();
    Drawn d(9);
    d.out[static_cast<std::size_t>(index_of(2, 211, 129))].bits ^= 1u << 6;
    const std::string alone = text(d.judged(kCuts[0]));
    for (const auto& cut : kCuts) {
      d.reference.asked.clear();
      CHECK(text(d.judged(cut, Dependence::Elements, &declines)) == alone);
      CHECK(d.asked("bounded") == std::ssize(cut));
      // The last block takes with it what the field reads.
      CHECK(std::ranges::find(d.reference.asked, fmt::format("bounded {}", cut.back().begin)) -
                d.reference.asked.begin() >=
            std::ssize(cut) - 1);
    }
  }

  TEST_CASE("a block that cannot be made ends the judgement with its own words, whoever was to make it") {
    const Engine declines = declining_engine();
    for (const std::int64_t block : {0, 300, 600})
      for (const Engine* engine : {static_cast<const Engine*>(nullptr), &declines}) {
        Drawn d(12);
        d.reference.fails_at = block;
        CHECK_THROWS_WITH_AS(d.judged(kCuts[1], Dependence::Elements, engine),
                             fmt::format("no rows from {} on", block).c_str(), InputError);
      }
  }

  TEST_CASE("where a prediction finds out how the field is summed, it comes before the bounds") {
    const Engine declines = declining_engine();
    Drawn d(10);
    d.reference.finds_out_order = true;
    for (const auto& cut : kCuts)
      for (const Engine* engine : {static_cast<const Engine*>(nullptr), &declines}) {
        d.reference.asked.clear();
        d.judged(cut, Dependence::Elements, engine);
        CHECK(d.reference.asked.front() == "predicted 0");
      }
  }

  TEST_CASE(
      "bits that the other mode compared are not predicted again, but for a copy that intervals accept") {
    for (const double width : {40.0, 1e9}) {  // any finite value is accepted with the second
      Drawn d(11, width);
      const auto differs = static_cast<std::size_t>(index_of(2, 211, 129));
      d.reference.bits[differs] = {d.out[differs].bits ^ 1u, false};
      for (const auto& cut : kCuts) {
        const RoundedChecks predicted = d.judged(cut);
        d.reference.asked.clear();
        const RoundedChecks known = d.judged(cut, Dependence::Elements, nullptr, &predicted.bits);
        CHECK(text(known) == text(predicted));
        CHECK(known.bits.differing == 1);
        CHECK((d.asked("predicted") > 0) == (width > 1e6));
        CHECK(d.asked("predicted") <= std::ssize(cut));
        d.reference.same_in_isolated = false;
        d.reference.asked.clear();
        d.judged(cut, Dependence::Elements, nullptr, &predicted.bits);
        CHECK(d.asked("predicted") == std::ssize(cut));
        d.reference.same_in_isolated = true;
      }
    }
  }

  TEST_CASE("no more is asked of the reference at a time than a block") {
    for (const auto& cut : kCuts) {
      Drawn d(7);
      d.judged(cut);
      CHECK(d.reference.most_rows == std::ranges::max(cut, {}, &RowRange::count).count());
    }
  }
}
