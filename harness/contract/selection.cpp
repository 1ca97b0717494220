#include "harness/contract/selection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace assay {
namespace {

// exp(-87.3) is 2^-126: below, fp32 probabilities lose bits and then vanish.
constexpr double kUnderflow = 87.0;

struct Ends {
  // of a logit, as the fp32 softmax may order it
  double low;
  double high;
};

std::vector<Ends> orderable(std::span<const Interval> logits, const PrecisionContract& contract) {
  double top = -std::numeric_limits<double>::infinity();
  for (const auto& l : logits) top = std::max(top, l.ref);
  const double floor = top - kUnderflow + std::log(static_cast<double>(logits.size()));
  std::vector<Ends> ends;
  for (const auto& l : logits) {
    // A probability's relative error is an absolute error of its logit: argument, expf, division.
    const double tau = std::fabs(l.ref - top) * kFp32UnitRoundoff + (contract.expf_ulps + 0.5) * 0x1p-23 +
                       2 * kFp32UnitRoundoff;
    // What may underflow may also tie with everything below it.
    const double low = l.low - tau;
    ends.push_back(
        {low < floor ? -std::numeric_limits<double>::infinity() : low, std::max(l.high + tau, floor)});
  }
  return ends;
}

/// Positive when the token breaks the rule: by how much the logits are out of order.
double violation(std::span<const Ends> ends, std::span<const std::int32_t> chosen,
                 const std::vector<bool>& inside) {
  double weakest = std::numeric_limits<double>::infinity();
  double strongest = -std::numeric_limits<double>::infinity();
  for (std::size_t e = 0; e < ends.size(); ++e) {
    if (inside[e])
      weakest = std::min(weakest, ends[e].high);
    else
      strongest = std::max(strongest, ends[e].low);
  }
  double worst = strongest - weakest;
  for (std::size_t j = 0; j + 1 < chosen.size(); ++j)
    worst = std::max(worst, ends[static_cast<std::size_t>(chosen[j + 1])].low -
                                ends[static_cast<std::size_t>(chosen[j])].high);
  return worst;
}

/// The lowest-index rule: among exactly equal logits the chosen ones come first and in ascending order.
/// Logits that the bound lets differ may not have been equal to the candidate.
bool breaks_index_rule(std::span<const Interval> logits, std::span<const std::int32_t> chosen,
                       const std::vector<bool>& inside) {
  const auto equal = [&](std::size_t a, std::size_t b) {
    return logits[a].low == logits[a].high && logits[b].low == logits[b].high &&
           logits[a].ref == logits[b].ref;
  };
  for (std::size_t j = 0; j < chosen.size(); ++j) {
    const auto c = static_cast<std::size_t>(chosen[j]);
    for (std::size_t e = 0; e < c; ++e)
      if (!inside[e] && equal(e, c)) return true;
    if (j + 1 < chosen.size() && chosen[j] > chosen[j + 1] &&
        equal(c, static_cast<std::size_t>(chosen[j + 1])))
      return true;
  }
  return false;
}

/// Whether the id in a slot is not the one that belongs there: named before, or of a logit that is told apart
/// from the one whose place this is. `order`: the experts by falling logit.
bool wrong_there(std::span<const Ends> ends, std::span<const std::int32_t> chosen,
                 std::span<const std::int32_t> order, std::size_t slot) {
  const std::int32_t is = chosen[slot];
  const std::int32_t due = order[slot];
  if (std::ranges::find(chosen.first(slot), is) != chosen.begin() + static_cast<std::ptrdiff_t>(slot))
    return true;
  const Ends& a = ends[static_cast<std::size_t>(is)];
  const Ends& b = ends[static_cast<std::size_t>(due)];
  return is != due && !(a.low <= b.high && b.low <= a.high);
}

/// Of a token that breaks the rule: at least one.
std::int64_t wrong_ids(std::span<const Ends> ends, std::span<const std::int32_t> chosen,
                       std::span<const std::int32_t> order) {
  std::int64_t wrong = 0;
  for (std::size_t slot = 0; slot < chosen.size(); ++slot) wrong += wrong_there(ends, chosen, order, slot);
  return std::max<std::int64_t>(1, wrong);
}

/// One token's logits in the three strengths of explanation.
struct TokenLogits {
  std::span<const Interval> bound;
  std::span<const Interval> probable;
  std::vector<Interval> alone;

  TokenLogits(const LogitModel& logits, std::size_t token, std::size_t experts)
      : bound(std::span(logits.bound).subspan(token * experts, experts)),
        probable(std::span(logits.probable).subspan(token * experts, experts)) {}
};

std::vector<Interval> without_errors(std::span<const Interval> logits) {
  std::vector<Interval> alone;
  for (const auto& l : logits) alone.push_back({l.ref, l.ref, l.ref, 0.0});
  return alone;
}

RoutingTier tier_of(const TokenLogits& l, const PrecisionContract& contract,
                    std::span<const std::int32_t> chosen, const std::vector<bool>& inside, bool bad) {
  const auto explained = [&](std::span<const Interval> logits) {
    return violation(orderable(logits, contract), chosen, inside) <= 0.0;
  };
  if (bad) return RoutingTier::Failed;
  if (explained(without_errors(l.bound))) return RoutingTier::ExactTie;
  return explained(l.probable) ? RoutingTier::Admissible : RoutingTier::Suspicious;
}

}  // namespace

SelectionCheck check_selection(const MoeConfig& config, const PrecisionContract& contract,
                               const LogitModel& logits, std::span<const std::int32_t> selected) {
  SelectionCheck check;
  const auto experts = static_cast<std::size_t>(config.num_experts);
  const auto top_k = static_cast<std::size_t>(config.top_k);
  const std::size_t tokens = selected.size() / top_k;
  check.judgement.elements = static_cast<std::int64_t>(selected.size());
  check.judgement.tokens = static_cast<std::int64_t>(tokens);
  check.judgement.verdict = Verdict::Passed;
  for (std::size_t t = 0; t < tokens; ++t) {
    const TokenLogits token(logits, t, experts);
    const auto l = token.bound;
    const auto chosen = selected.subspan(t * top_k, top_k);
    std::vector<bool> inside(experts, false);
    bool repeated = false;
    for (const auto expert : chosen) {
      repeated = repeated || inside[static_cast<std::size_t>(expert)];
      inside[static_cast<std::size_t>(expert)] = true;
    }
    const bool any_nan = std::ranges::any_of(l, [](const Interval& x) { return std::isnan(x.ref); });
    if (any_nan && !repeated) continue;  // NaN probabilities have no order: any K distinct experts are legal
    const auto ends = orderable(l, contract);
    const double beyond = violation(ends, chosen, inside);
    const bool bad = repeated || !(beyond <= 0.0) ||
                     (contract.ties == TieRule::LowestIndex && breaks_index_rule(l, chosen, inside));

    std::vector<std::int32_t> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](auto a, auto b) {
      return l[static_cast<std::size_t>(a)].ref > l[static_cast<std::size_t>(b)].ref;
    });
    RoutingFlip flip;
    flip.token = static_cast<std::int64_t>(t);
    std::vector<bool> expected(experts, false);
    for (std::size_t j = 0; j < top_k; ++j) expected[static_cast<std::size_t>(order[j])] = true;
    double strongest = -std::numeric_limits<double>::infinity();
    double weakest = std::numeric_limits<double>::infinity();
    double slack = 0.0;
    double noise_in = 0.0;
    double noise_out = 0.0;
    for (std::size_t e = 0; e < experts; ++e) {
      if (inside[e] == expected[e]) continue;
      (inside[e] ? flip.candidate_only : flip.reference_only).push_back(static_cast<std::int64_t>(e));
      if (inside[e])
        weakest = std::min(weakest, l[e].ref);
      else
        strongest = std::max(strongest, l[e].ref);
      (inside[e] ? noise_in : noise_out) = std::max(inside[e] ? noise_in : noise_out, double{l[e].noise});
      slack = std::max(slack, std::max(ends[e].high - l[e].ref, l[e].ref - ends[e].low));
    }
    if (!flip.candidate_only.empty() && !flip.reference_only.empty()) {
      flip.gap = strongest - weakest;
      flip.bound = 2.0 * slack;
      flip.admissible = !bad;
      flip.noise = noise_in + noise_out;
      flip.tier = tier_of(token, contract, chosen, inside, bad);
      check.flips.push_back(flip);
    }
    if (!bad) continue;
    ++check.judgement.rejected_tokens;
    check.judgement.rejected += wrong_ids(ends, chosen, order);
    check.judgement.verdict = Verdict::Failed;
    check.judgement.max_ratio = std::numeric_limits<double>::infinity();
    if (check.judgement.worst) continue;
    std::size_t slot = 0;
    while (slot + 1 < top_k && !wrong_there(ends, chosen, order, slot)) ++slot;
    Element e;
    e.at = {{"token", static_cast<std::int64_t>(t)}, {"slot", static_cast<std::int64_t>(slot)}};
    e.out = chosen[slot];
    e.ref = order[slot];
    e.low = e.high = e.ref;
    e.delta = beyond;
    e.ratio = std::numeric_limits<double>::infinity();
    check.judgement.worst = e;
  }
  return check;
}

LogitModel values_alone(const LogitModel& logits) {
  LogitModel model;
  model.bound = model.probable = without_errors(logits.bound);
  return model;
}

LogitModel exact_logits(const StoredSpan& own) {
  LogitModel model;
  for (std::size_t i = 0; i < own.size(); ++i)
    model.bound.push_back({own.value(i), own.value(i), own.value(i), 0.0});
  model.probable = model.bound;
  return model;
}

}  // namespace assay
