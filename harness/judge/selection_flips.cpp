#include "harness/judge/selection_flips.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include <fmt/format.h>

#include "harness/judge/deviation.h"
#include "harness/judge/statistics.h"

namespace assay {
namespace {

constexpr double kProbable = 6.0;  // a flip within so many sigma (NUMERICS 8) is a probable tie
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Interval stored(const Interval& x, Store store) {
  if (store == Store::Unrounded) return x;
  return {to_float(round_to_bf16(x.ref)), to_float(round_to_bf16(x.low)), to_float(round_to_bf16(x.high)),
          x.noise};
}

/// Storing moves a value by one ulp where the error crosses the rounding boundary, else not at all.
double noise_after(const Interval& x, Store store) {
  const bool known = x.noise > 0.0 || x.low == x.high;
  if (!known) return kInfinity;
  if (store == Store::Unrounded) return x.noise;
  const Bf16 rounded = round_to_bf16(x.ref);
  return std::sqrt(deviation(rounded, x).flip_chance) * bf16_ulp(to_float(rounded)) +
         (x.noise > bf16_ulp(x.ref) ? x.noise : 0.0);
}

/// What a token's flip may be blamed on.
struct Chances {
  double any = 0.0;
  double suspicious = 0.0;
};

Chances chances_of(std::span<const Interval> bound, std::span<const Interval> probable, std::size_t top_k) {
  std::vector<std::size_t> order(bound.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return bound[a].ref > bound[b].ref; });
  Chances chances;
  for (std::size_t i = 0; i < top_k; ++i)
    for (std::size_t j = top_k; j < order.size(); ++j) {
      const Interval& in = bound[order[i]];
      const Interval& out = bound[order[j]];
      const double gap = in.ref - out.ref;
      if (gap == 0.0 || !(in.low <= out.high)) continue;  // a tie, or proven not to happen
      const double noise = in.noise + out.noise;
      const double chance = noise < gap ? noise * noise / (gap * gap) : 1.0;
      chances.any += chance;
      if (!(probable[order[i]].low <= probable[order[j]].high)) chances.suspicious += chance;
    }
  return {std::min(1.0, chances.any), std::min(1.0, chances.suspicious)};
}

}  // namespace

LogitModel model_logits(std::span<const Interval> reference, Store store) {
  LogitModel model;
  for (const auto& x : reference) {
    Interval bound = stored(x, store);
    Interval probable = bound;
    bound.noise = noise_after(x, store);
    if (std::isfinite(bound.noise)) {
      const double reach = kProbable * x.noise;
      probable =
          stored({x.ref, std::max(x.low, x.ref - reach), std::min(x.high, x.ref + reach), x.noise}, store);
    }
    model.bound.push_back(bound);
    model.probable.push_back(probable);
  }
  return model;
}

Statistics flip_statistics(const MoeConfig& config, const LogitModel& logits,
                           std::span<const RoutingFlip> flips, double log_share) {
  Statistics result;
  const auto experts = static_cast<std::size_t>(config.num_experts);
  const auto top_k = static_cast<std::size_t>(config.top_k);
  const std::size_t tokens = logits.bound.size() / experts;
  Chances expected;
  std::set<std::vector<double>> seen;
  std::vector<bool> repeats(tokens, false);
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto bound = std::span(logits.bound).subspan(t * experts, experts);
    const Chances chances =
        chances_of(bound, std::span(logits.probable).subspan(t * experts, experts), top_k);
    expected.any += chances.any;
    expected.suspicious += chances.suspicious;
    if (!(chances.any > 0.0)) continue;
    std::vector<double> values;
    for (const auto& l : bound) values.push_back(l.ref);
    repeats[t] = !seen.insert(std::move(values)).second;
  }
  std::int64_t counted = 0;
  std::int64_t suspicious = 0;
  for (const RoutingFlip& flip : flips) {
    if (flip.tier == RoutingTier::ExactTie || repeats[static_cast<std::size_t>(flip.token)]) continue;
    ++counted;
    suspicious += flip.tier == RoutingTier::Suspicious;
  }
  const double share = log_share - std::log(2.0);
  const auto n = static_cast<std::int64_t>(tokens);
  if (n == 0) return result;
  result.units = "tokens";
  result.unit_count = n;
  result.tests = {
      count_test("routing flips", "the field", n, static_cast<double>(counted), expected.any, share),
      count_test("suspicious flips", "the field", n, static_cast<double>(suspicious), expected.suspicious,
                 share)};
  for (const auto& test : result.tests)
    if (test.beyond && result.suspicion.empty())
      result.suspicion = fmt::format(
          "{:.3g} % of tokens took other experts for no exact tie; at most {:.3g} % are expected of any "
          "legal order of summation",
          100.0 * test.observed, 100.0 * test.limit);
  return result;
}

Prediction compare_predicted_selection(const CompareContext& context, std::span<const std::int32_t> selected,
                                       std::span<const std::int32_t> predicted,
                                       const std::vector<bool>& undetermined_tokens) {
  Prediction bits;
  bits.available = true;
  bits.elements = static_cast<std::int64_t>(selected.size());
  for (std::size_t i = 0; i < selected.size(); ++i) {
    const bool unsure = undetermined_tokens[i / static_cast<std::size_t>(context.sizes.config.top_k)];
    const bool differs = !unsure && predicted[i] != selected[i];
    bits.undetermined += unsure;
    bits.differing += differs;
    if (!differs || bits.first) continue;
    Element e;
    e.at = locate(context, static_cast<std::int64_t>(i));
    e.out = selected[i];
    e.ref = e.low = e.high = predicted[i];
    bits.first = e;
  }
  bits.as_predicted = bits.elements - bits.undetermined - bits.differing;
  return bits;
}

}  // namespace assay
