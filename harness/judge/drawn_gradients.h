// A weight's gradient of three experts beside a reference that serves what it was given: for tests of those
// who judge it in blocks.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/engine.h"
#include "harness/contract/error.h"
#include "harness/contract/kept_at_hand.h"
#include "harness/contract/noise.h"
#include "harness/judge/cells_on_host.h"
#include "harness/judge/rounded_checks.h"

namespace assay::drawn {

using At = std::vector<std::pair<std::string, std::int64_t>>;

inline constexpr Field kField = Field::d_down_proj;  // [3, 300, 130]: a matrix is more than one task of rows,
                                                     // a row more than one cell
inline const Sizes kSizes{{300, 130, 3, 1, true}, 4};
inline constexpr std::int64_t kMatrix = 300;
inline constexpr std::int64_t kWidth = 130;
inline constexpr std::int64_t kElements = 3 * kMatrix * kWidth;

inline std::int64_t index_of(std::int64_t expert, std::int64_t row, std::int64_t col) {
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
  std::int64_t not_kept_at = -1;                // the first row of a matrix
  std::atomic<std::int64_t> whole_brought = 0;  // how often all of a kept matrix was asked for
  std::function<void(FieldCells&)> lie;

  bool predicts_first(Field, Mode) const override { return finds_out_order; }
  LargeVector<Interval> bounded(Field, Mode, RowRange rows) override {
    note("bounded", rows);
    if (rows.begin == fails_at) throw InputError(fmt::format("no rows from {} on", rows.begin));
    return {intervals.begin() + rows.begin * kWidth, intervals.begin() + rows.end * kWidth};
  }
  std::shared_ptr<const KeptIntervals> kept(Field, Mode, RowRange rows) override {
    note("kept", rows);
    if (rows.begin == not_kept_at) return nullptr;
    const auto cells = [this](const FieldRows& field, FieldCells& out) {
      if (!field.out.bf16()) return false;
      out = cells_on_host(field);
      if (lie) lie(out);
      return true;
    };
    KeptIntervals kept = *kept_at_hand(
        {intervals.begin() + rows.begin * kWidth, intervals.begin() + rows.end * kWidth}, cells);
    kept.bring = [this, bring = kept.bring, all = kept.elements](auto starts, std::int64_t count, auto out) {
      whole_brought += count == all;
      bring(starts, count, out);
    };
    return std::make_shared<const KeptIntervals>(std::move(kept));
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

inline const std::vector<std::vector<RowRange>> kCuts = {
    {{0, 900}}, {{0, 300}, {300, 600}, {600, 900}}, {{0, 600}, {600, 900}}, {{0, 300}, {300, 900}}};

inline std::string text(const std::vector<std::pair<std::string, std::int64_t>>& at) {
  std::string all;
  for (const auto& [axis, index] : at) all += fmt::format("{}={} ", axis, index);
  return all;
}

inline std::string text(const std::optional<Element>& e) {
  if (!e) return "none";
  return fmt::format(
      "{}out {:a} ref {:a} low {:a} high {:a} delta {:a} a_priori {:a} running {:a} magnitude "
      "{:a} ratio {:a} bits {} {} ulps {}",
      text(e->at), e->out, e->ref, e->low, e->high, e->delta, e->a_priori, e->running, e->magnitude, e->ratio,
      e->out_bits, e->ref_bits, e->ulps);
}

/// Every figure to its last bit.
inline std::string text(const RoundedChecks& checks) {
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

}  // namespace assay::drawn
