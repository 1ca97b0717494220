// A weight's gradient judged in blocks, beside a reference that serves what it was given.
#include "harness/judge/rounded_checks.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "harness/contract/engine.h"
#include "harness/contract/error.h"
#include "harness/contract/noise.h"

using namespace assay;

namespace {

constexpr Field kField = Field::d_down_proj;  // [3, 300, 130]: a matrix is more than one task of rows, a row
                                              // more than one cell
const Sizes kSizes{{300, 130, 3, 1, true}, 4};
constexpr std::int64_t kMatrix = 300;
constexpr std::int64_t kWidth = 130;
constexpr std::int64_t kElements = 3 * kMatrix * kWidth;

std::int64_t index_of(std::int64_t expert, std::int64_t row, std::int64_t col) {
  return (expert * kMatrix + row) * kWidth + col;
}

/// Serves rows of what it holds, and remembers the most that it was asked for.
class HeldReference final : public Reference {
 public:
  std::vector<Interval> intervals;
  std::vector<PredictedBits> bits;
  std::int64_t most_rows = 0;
  std::vector<std::string> asked;  // "bounded 0", "predicted 300", ...
  bool finds_out_order = false;
  std::int64_t fails_at = -1;  // the first row of a block
  bool same_in_isolated = true;

  bool predicts_first(Field, Mode) const override { return finds_out_order; }
  LargeVector<Interval> bounded(Field, Mode, RowRange rows) override {
    note("bounded", rows);
    if (rows.begin == fails_at) throw InputError(fmt::format("no rows from {} on", rows.begin));
    return {intervals.begin() + rows.begin * kWidth, intervals.begin() + rows.end * kWidth};
  }
  LargeVector<PredictedBits> predicted(Field, Mode, RowRange rows) override {
    note("predicted", rows);
    if (bits.empty()) return {};
    return {bits.begin() + rows.begin * kWidth, bits.begin() + rows.end * kWidth};
  }
  BoundAccount bound_account(Field, Mode, std::span<const std::int64_t> elements) override {
    BoundAccount account{"any order", "declared order", {}};
    for (const auto i : elements)
      account.elements.push_back({static_cast<double>(i),
                                  3.0 * radius(intervals[static_cast<std::size_t>(i)]),
                                  radius(intervals[static_cast<std::size_t>(i)])});
    return account;
  }
  std::vector<std::int32_t> expected_integers(Field) override { return {}; }
  std::vector<std::int32_t> predicted_selection(Mode, std::vector<bool>&) override { return {}; }
  Store store(Field) const override { return Store::Bf16; }
  bool same_in_both_modes(Field) const override { return false; }
  bool same_predictions(Field) override { return same_in_isolated; }
  std::string isolated_from(Field) const override { return ""; }
  const Routing& routing() const override { return routing_; }
  std::vector<Cause> causes(Field) override { return {}; }
  std::string accumulator(Field) const override { return "hopper"; }

 private:
  void note(const char* what, RowRange rows) {
    const std::scoped_lock lock(mutex_);
    most_rows = std::max(most_rows, rows.count());
    asked.push_back(fmt::format("{} {}", what, rows.begin));
  }

  std::mutex mutex_;
  Routing routing_;
};

/// Random gradients of experts 0 and 2, near the reference and flipped here and there; expert 1 has no rows.
struct Drawn {
  HeldReference reference;
  std::vector<Bf16> out;

  explicit Drawn(unsigned seed, double width = 40.0) {
    std::mt19937_64 engine(seed);
    std::normal_distribution<double> normal;
    for (std::int64_t i = 0; i < kElements; ++i) {
      const bool none = i / (kMatrix * kWidth) == 1;
      const double ref = none ? 0.0 : normal(engine);
      const double noise = none ? 0.0 : 2e-4 * (0.3 + std::fabs(ref));
      reference.intervals.emplace_back(ref, ref - width * noise, ref + width * noise, noise);
      out.push_back(round_to_bf16(ref + noise * (none ? 0.0 : normal(engine))));
      reference.bits.push_back({out.back().bits, engine() % 1000 == 0});
    }
  }

  RoundedChecks judged(const std::vector<RowRange>& blocks, Dependence dependence = Dependence::Elements,
                       const Engine* engine = nullptr, const Prediction* isolated = nullptr) {
    const StatisticsContext context{{kField, kSizes, nullptr}, dependence, {}, 0, std::log(1e-8)};
    return check_rounded(context, out, reference, Mode::Isolated, true, blocks, engine, isolated);
  }
  std::int64_t asked(std::string_view what) const {
    return std::ranges::count_if(reference.asked, [&](const auto& one) { return one.starts_with(what); });
  }
};

const std::vector<std::vector<RowRange>> kCuts = {
    {{0, 900}}, {{0, 300}, {300, 600}, {600, 900}}, {{0, 600}, {600, 900}}, {{0, 300}, {300, 900}}};

std::string text(const std::vector<std::pair<std::string, std::int64_t>>& at) {
  std::string all;
  for (const auto& [axis, index] : at) all += fmt::format("{}={} ", axis, index);
  return all;
}

std::string text(const std::optional<Element>& e) {
  if (!e) return "none";
  return fmt::format(
      "{}out {:a} ref {:a} low {:a} high {:a} delta {:a} a_priori {:a} running {:a} magnitude "
      "{:a} ratio {:a} bits {} {} ulps {}",
      text(e->at), e->out, e->ref, e->low, e->high, e->delta, e->a_priori, e->running, e->magnitude, e->ratio,
      e->out_bits, e->ref_bits, e->ulps);
}

/// Every figure to its last bit.
std::string text(const RoundedChecks& checks) {
  const Judgement& j = checks.judgement;
  const Statistics& s = j.statistics;
  const Prediction& b = checks.bits;
  std::string all = fmt::format("verdict {} elements {} rejected {} non-finite {} mismatched {} ratio {:a}\n",
                                static_cast<int>(j.verdict), j.elements, j.rejected, j.non_finite,
                                j.mismatched, j.max_ratio);
  all += "worst " + text(j.worst) + "\n";
  for (const auto& [expert, ratio] : j.worst_by_expert)
    all += fmt::format("expert {}: {:a}\n", expert, ratio);
  all += fmt::format("bounds {} {} sampled {} exact {} typical {:a}\n", j.bounds.a_priori, j.bounds.running,
                     j.bounds.sampled, j.bounds.exact, j.bounds.typical);
  all += fmt::format("{} {}: z2 {:a} {:a} contract ulps {:a} at {}\n", s.unit_count, s.units, s.z2,
                     s.z2_of_rounding, s.max_contract_ulps, text(s.max_contract_ulps_at));
  for (const auto& [ulps, count] : s.ulp_histogram) all += fmt::format("{} ulps: {}\n", ulps, count);
  for (const auto& test : s.tests)
    all += fmt::format("{} over {} of {}: {:a} {:a} {:a} {:a} {:a} {}\n", test.measure, test.over,
                       test.members, test.observed, test.expected, test.limit, test.log10_chance,
                       test.log10_share, test.beyond);
  all += s.suspicion + "\n";
  all += fmt::format("bits of {}: {} {} {} {} first {}\n", b.accumulator, b.elements, b.as_predicted,
                     b.undetermined, b.differing, text(b.first));
  for (const auto& check : checks.vacuity)
    all += fmt::format("{}: {}, {}\n", check.copy, name(check.outcome), check.reason);
  return all;
}

/// Takes nothing over.
Engine declining_engine() {
  Engine engine;
  engine.name = "declines";
  return engine;
}

using At = std::vector<std::pair<std::string, std::int64_t>>;

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
