#include "reference_cpu/causes/causes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "harness/contract/chance_of_signs.h"
#include "reference_cpu/causes/hypotheses.h"

namespace assay {
namespace {

constexpr double kChance =
    1e-6;  // accepted probability that errors of random sign and place have a cause named
constexpr double kMostTried =
    10'000;  // hypotheses tried on a field, every place of a block or row counted: shares kChance

// What is left of an element that a hypothesis explains: two roundings' worth of it, beside legal noise.
constexpr double kRoundings = 0x1p-7;

struct Score {
  double explained = 0.0;
  bool every_bit = false;
  bool credible = false;
};

/// The chance that a hypothesis of no merit gives every bit, as a logarithm: of n elements it has to find
/// just the `differing` ones, and of each the value among 2 d, where d is the error in bf16 neighbours:
/// without merit it might as well lie anywhere as far away on either side.
double log_chance_of_bits(std::int64_t n, std::int64_t differing, double log_values) {
  const auto all = static_cast<double>(n);
  const auto some = static_cast<double>(differing);
  return -(std::lgamma(all + 1) - std::lgamma(some + 1) - std::lgamma(all - some + 1) + log_values);
}

/// Elements that a hypothesis brings closer to the candidate's value, and moves away from it.
struct Moves {
  std::int64_t closer = 0;
  std::int64_t farther = 0;
};

/// Residual of one element. A non-finite value where another was expected counts as an error of the field's
/// own size.
double residual(Stored a, Stored b, double size) {
  if (a == b || (is_nan(a) && is_nan(b))) return 0.0;
  if (!is_finite(a) || !is_finite(b)) return size;
  return std::fabs(static_cast<double>(to_float(a)) - to_float(b));
}

/// Whether the hypothesis leaves no more of an element's error than legal implementations differ by.
bool leaves_noise(Stored out, Stored hypothesis, double noise) {
  if (!is_finite(out) || !is_finite(hypothesis))
    return out == hypothesis || (is_nan(out) && is_nan(hypothesis));
  const double size = std::max(std::fabs(to_float(out)), std::fabs(to_float(hypothesis)));
  return std::fabs(static_cast<double>(to_float(out)) - to_float(hypothesis)) <= kRoundings * size + noise;
}

Score score(const Evidence& evidence, const Window& window, const Synthesised& synthesised) {
  double size = 0.0;
  for (const auto r : window.rows)
    for (const auto c : window.columns) {
      const Stored x = evidence.reference[static_cast<std::size_t>(r * evidence.width + c)];
      if (is_finite(x)) size = std::max(size, std::fabs(static_cast<double>(to_float(x))));
    }
  if (size == 0.0) size = 1.0;  // nothing but zeros, NaN and Inf was expected
  double error = 0.0;
  double left = 0.0;
  double output = 0.0;
  double log_values = 0.0;
  Moves all;
  Moves significant;
  std::int64_t wrong = 0;
  std::int64_t explained = 0;
  std::int64_t differing = 0;
  std::int64_t remaining = 0;
  std::int64_t determined = 0;
  std::size_t i = 0;
  for (const auto r : window.rows)
    for (const auto c : window.columns) {
      const auto at = static_cast<std::size_t>(r * evidence.width + c);
      const Stored out = evidence.out[at];
      const Stored hypothesis = synthesised.elements[i++];
      const Stored reference = evidence.reference[at];
      const double e = residual(out, reference, size);
      const double d = residual(out, hypothesis, size);
      error += e * e;
      left += d * d;
      if (is_finite(out)) output += static_cast<double>(to_float(out)) * to_float(out);
      for (Moves* moves : {&all, &significant}) {
        if (moves == &significant && !evidence.significant[at]) continue;
        moves->closer += d < e;
        moves->farther += d > e;
      }
      const bool rejected = evidence.significant[at];
      const bool noise_left = rejected && leaves_noise(out, hypothesis, evidence.noise[at]);
      wrong += rejected;
      explained += noise_left;
      if (evidence.plain[at].undetermined) {  // no bits to be had; but what is wrong has to be explained
        remaining += rejected && !noise_left;
        continue;
      }
      ++determined;
      differing += out != reference;
      if (out != reference)
        log_values += std::log(2.0 * static_cast<double>(std::max<std::int64_t>(
                                         1, std::abs(ordinal(out) - ordinal(reference)))));
      remaining += out != hypothesis;
    }
  Score result;
  if (error == 0.0) return result;
  result.explained = 1.0 - left / error;
  result.every_bit = remaining == 0 && differing > 0;
  // The larger part of the error has to be explained, and of the output: what has nothing to do with the
  // reference is as close to zeros as to anything.
  const bool larger_part = left <= 0.5 * std::min(error, output) || (output == 0.0 && left == 0.0);
  // Of the elements that the hypothesis moves, without merit it brings at most every other one closer to the
  // candidate's value; and so of those that are rejected, beside which legal residues outnumber them at
  // times. Either may speak for it: the better one of two.
  double chance = std::log(2.0) + std::min(log_chance_of_signs(all.closer, all.farther),
                                           log_chance_of_signs(significant.closer, significant.farther));
  if (result.every_bit) chance = std::min(chance, log_chance_of_bits(determined, differing, log_values));
  // What only resembles the error (one factor for many, one activation for another) brings few elements to
  // the value itself.
  const bool most_elements = result.every_bit || 2 * explained >= wrong;
  result.credible = larger_part && most_elements && chance <= std::log(kChance / kMostTried);
  return result;
}

struct Tried {
  Proposal proposal;
  Score score;
  std::size_t rank;  // place in the table: simplicity
};

std::size_t rank_of(std::string_view id) {
  const auto* row = find_hypothesis(id);
  return row == nullptr ? std::size(kHypotheses) : static_cast<std::size_t>(row - kHypotheses);
}

/// What is seen directly (a row of zeros) needs no odds: it describes, it does not infer.
bool observation(std::string_view id) {
  return id == "zeros" || id == "not_written" || id == "bit_flip" || id == "nan_swallowed" ||
         id == "nan_spread";
}

/// The simplest of those that leave hardly more unexplained than the best, then likewise among the rest.
std::vector<Tried> ranked(std::vector<Tried> tried) {
  std::vector<Tried> order;
  while (!tried.empty()) {
    double least = std::numeric_limits<double>::infinity();
    for (const auto& one : tried) least = std::min(least, 1.0 - one.score.explained);
    auto best = tried.end();
    for (auto one = tried.begin(); one != tried.end(); ++one) {
      if (1.0 - one->score.explained > 1.1 * least) continue;
      if (best == tried.end() || one->rank < best->rank ||
          (one->rank == best->rank && one->score.explained > best->score.explained))
        best = one;
    }
    order.push_back(std::move(*best));
    tried.erase(best);
  }
  return order;
}

bool accepted(Stored out, Stored reference, const Interval& bound) {
  const Stored low = stored_as(out.dtype, bound.low);
  const Stored high = stored_as(out.dtype, bound.high);
  return is_nan(out) ? is_nan(reference) : ordinal(low) <= ordinal(out) && ordinal(out) <= ordinal(high);
}

bool gives_every_bit(const Tried& one) { return one.score.every_bit; }

/// Keeps what is credible, of each hypothesis what explains most.
void try_out(const Evidence& evidence, const ErrorPlace& place, Proposal proposal,
             std::vector<Tried>& credible) {
  Score fit = score(evidence, place.sample, proposal.synthesise(place.sample));
  fit.credible = fit.credible || (observation(proposal.hypothesis) && fit.explained > 0.5);
  if (!fit.credible) return;
  const auto same = std::ranges::find_if(
      credible, [&](const Tried& one) { return one.proposal.hypothesis == proposal.hypothesis; });
  Tried tried{std::move(proposal), fit, 0};
  if (same == credible.end())
    credible.push_back(std::move(tried));
  else if (fit.explained > same->score.explained)
    *same = std::move(tried);
}

/// The first of those that give every bit of the sample which gives every bit of the place, too, is moved to
/// the front: by chance, others give those of a sample. Without one, nobody gives every bit.
void prefer_every_bit_of_place(const Evidence& evidence, const ErrorPlace& place, std::vector<Tried>& order) {
  if (place.sample.size() == place.window.size()) return;
  auto whole = order.end();
  for (auto one = order.begin(); one != order.end(); ++one) {
    if (!one->score.every_bit) continue;
    one->score.every_bit = whole == order.end() &&
                           score(evidence, place.window, one->proposal.synthesise(place.window)).every_bit;
    if (one->score.every_bit) whole = one;
  }
  if (whole != order.end()) std::rotate(order.begin(), whole, std::next(whole));
}

std::vector<Cause> named(const Evidence& evidence, const ErrorPlace& place, std::vector<Tried> credible) {
  for (auto& one : credible) one.rank = rank_of(one.proposal.hypothesis);
  auto order = ranked(std::move(credible));
  if (order.size() > kListedCauses) order.resize(kListedCauses);
  prefer_every_bit_of_place(evidence, place, order);
  std::vector<Cause> causes;
  for (const auto& one : order) {
    causes.push_back({std::string(one.proposal.hypothesis), one.proposal.sentence, one.score.explained,
                      one.score.every_bit, one.proposal.unwritten, one.proposal.k_blocks});
    if (!one.proposal.names_place && !place.in_words.empty()) causes.back().sentence += " " + place.in_words;
  }
  return causes;
}

/// Of the place that the significant elements make.
std::vector<Cause> causes_of_place(const Evidence& evidence) {
  static constexpr struct {
    FieldMask fields;
    Mechanism propose;
  } kMechanisms[] = {
      {hypothesis_fields::kAll, propose_observations},
      {hypothesis_fields::kAll, propose_moved_rows},
      {hypothesis_fields::kAll, propose_moved_tiles},
      {hypothesis_fields::kAll, propose_not_finite},
      {hypothesis_fields::kAll, propose_columns},
      {fields_of(Field::router_logits), propose_logits},
      {hypothesis_fields::kComputed, propose_storing},
      {hypothesis_fields::kWeightProducts, propose_orders},
      {hypothesis_fields::kWeightProducts, propose_k_blocks},
      {hypothesis_fields::kWeightProducts, propose_operands},
      {hypothesis_fields::kSwiglu, propose_swiglu},
      {hypothesis_fields::kWeights, propose_weights},
      {hypothesis_fields::kMerge, propose_merge},
      {hypothesis_fields::kGradients, propose_gradients},
      {hypothesis_fields::kSlotGradients, propose_other_routing},
      {hypothesis_fields::kSlotGradients, propose_other_gradient},
      {hypothesis_fields::kWeightGradients, propose_weight_gradients},
      {hypothesis_fields::kAll, propose_scattered},
  };
  const ErrorPlace place = find_place(evidence);
  std::vector<Tried> credible;
  for (const auto& [fields, propose] : kMechanisms) {
    if ((fields & fields_of(evidence.field)) == 0) continue;
    // Scattered zeros and flipped bits are named where nothing else gives every bit: they have no reason to
    // be there.
    if (propose == propose_scattered && std::ranges::any_of(credible, gives_every_bit)) continue;
    for (auto& proposal : propose(evidence, place)) try_out(evidence, place, std::move(proposal), credible);
  }
  return named(evidence, place, std::move(credible));
}

}  // namespace

namespace {

bool as_expected(const Evidence& evidence) {
  for (std::size_t i = 0; i < evidence.out.size(); ++i)
    if (evidence.out[i] != evidence.reference[i]) return false;
  return true;
}

}  // namespace

Evidence gather_evidence(Field field, const Layer& layer, StoredSpan out, Values<Predicted> plain,
                         std::span<const Interval> bounded) {
  Evidence evidence;
  evidence.field = field;
  evidence.layer = &layer;
  evidence.out = out;
  evidence.plain = std::move(plain);
  evidence.rows = rows_of(field, layer.problem->sizes());
  evidence.width = width_of(field, layer.problem->sizes());
  auto stored = evidence.plain;
  store_field<Predicted>(field, layer, stored);
  auto kept = std::make_shared<std::vector<float>>(out.size());
  evidence.reference = StoredSpan(*kept, out.dtype());
  evidence.kept = kept;
  evidence.significant.resize(out.size());
  // What is rejected defines where the error is: beside it, elements may differ and be accepted.
  std::vector<bool> rejected(out.size());
  bool any = false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    (*kept)[i] = round_to(out.dtype(), stored[i].value);
    rejected[i] = out[i] != evidence.reference[i] && !accepted(out[i], evidence.reference[i], bounded[i]);
    any = any || rejected[i];
  }
  evidence.noise.resize(out.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    evidence.significant[i] = any ? rejected[i] : out[i] != evidence.reference[i];
    const double width = bounded[i].high - bounded[i].low;
    evidence.noise[i] = std::isnan(width) ? 0.0f : static_cast<float>(width);
  }
  return evidence;
}

std::vector<Cause> find_causes(Evidence& evidence) {
  if (as_expected(evidence)) return {};
  auto causes = causes_of_place(evidence);
  // Another order of summation moves few elements out of their intervals and many within them: what gives
  // the bits of all says more than what gives those of the few.
  std::vector<bool> differing(evidence.out.size());
  for (std::size_t i = 0; i < differing.size(); ++i) differing[i] = evidence.out[i] != evidence.reference[i];
  if (differing == evidence.significant) return causes;
  std::swap(evidence.significant, differing);
  auto of_all = causes_of_place(evidence);
  std::swap(evidence.significant, differing);
  return !of_all.empty() && of_all.front().every_bit ? of_all : causes;
}

std::vector<Cause> find_causes(const Evidence& evidence, const UnwrittenTrials& trials,
                               std::span<const Field> unwritten) {
  if (as_expected(evidence)) return {};
  const ErrorPlace place = find_place(evidence);
  std::vector<Tried> credible;
  for (const Field field : unwritten)
    for (auto& proposal : propose_unwritten(evidence, place, trials, field)) {
      try_out(evidence, place, std::move(proposal), credible);
      if (std::ranges::any_of(credible, gives_every_bit)) return named(evidence, place, std::move(credible));
    }
  return named(evidence, place, std::move(credible));
}

}  // namespace assay
