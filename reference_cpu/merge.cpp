#include "harness/contract/worth_threads.h"
#include "reference_cpu/stages.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace assay {
namespace {

/// fp32 sum over the slots, any order: |error| <= gamma_n sum |v|, n of slot_sum_length; none where the terms
/// are exact multiples of q and sum |v| < 2^24 q: every partial sum fits 24 bits (NUMERICS 6). Noise: the
/// terms' own, what shrinks all of them alike, and K - 1 roundings of partial sums, each of which is s^2 +
/// q^2 / 4 or less in the mean over all orders (noise.h; f <= 1, f (1 - f) <= 1/4), or, where a tensor core
/// may form the sum, its truncation if that is more.
Interval sum_slots(std::span<const Interval> terms, const PrecisionContract& contract, const Fault&) {
  Interval sum;
  double magnitude = 0.0, variance = 0.0, mean = 0.0, common = 0.0, squares = 0.0,
         q = std::numeric_limits<double>::infinity();
  for (const auto& term : terms) {
    q = std::min(q, term.low == term.high && term.low == term.ref ? granularity(term.ref) : 0.0);
    sum = {sum.ref + term.ref, sum.low + term.low, sum.high + term.high};
    magnitude += std::max(std::fabs(term.low), std::fabs(term.high));
    variance += static_cast<double>(term.noise) * term.noise;
    mean += term.mean;
    common += std::copysign(term.mean, term.ref);
    squares += term.ref * term.ref;
  }
  if (q >= 0x1p-149 && magnitude < 0x1p24 * q) return sum;
  const auto slots = static_cast<std::int64_t>(terms.size());
  const double delta = gamma(slot_sum_length(contract, slots), contract.unit_roundoff) * magnitude;
  double own = static_cast<double>(slots - 1) *
               rounding_variance(std::sqrt(sum.ref * sum.ref + 0.25 * squares), contract.unit_roundoff);
  if (contract.weighted == Store::Unrounded)
    own = std::max(own, accumulation_variance(slots, sum.ref, squares, contract.product_unit_roundoff()));
  return with_noise({sum.ref, sum.low - delta, sum.high + delta}, std::sqrt(variance + common * common + own),
                    mean + std::sqrt(own));
}

/// fp32 as torch's sum over a strided axis adds it: four interleaved sums, slots ascending in each, then
/// added in order. Up to four slots that is slots ascending. Seen of an H200 at full size, where one element
/// in 8,388,608 tells the two orders apart.
PredictedValue sum_slots(std::span<const PredictedValue> terms, const PrecisionContract&,
                         const Fault& fault) {
  PredictedValue lanes[4];
  if (fault.hits(FaultKind::SlotsAscending, Field::hidden_states)) {
    for (const auto& term : terms) lanes[0] = add(lanes[0], term);
    return lanes[0];
  }
  for (std::size_t j = 0; j < terms.size(); ++j) lanes[j % 4] = add(lanes[j % 4], terms[j]);
  return add(add(add(lanes[0], lanes[1]), lanes[2]), lanes[3]);
}

/// K bf16 additions starting from 0; the last one is rounded when the field is stored.
template <class V>
V add_in_bf16(std::span<const V> terms, std::span<const std::int32_t> order) {
  V sum{};
  for (const auto j : order) sum = add(stored(sum, Store::Bf16), terms[static_cast<std::size_t>(j)]);
  return sum;
}

}  // namespace

/// K - 1 additions rounded to nearest (Higham 3.1). Where products stay fp32, the merge may be one product of
/// a token's weights and rows on a tensor core, whose terms are as exact: a step of 16 cuts all addends but
/// the largest after 25 fractional bits of that, 2^-25 S each, and the result, 2^-23 S = 2u S. With K <= 16
/// that is (K - 1) u / 2 + 2u <= (K + 1) u of S; 9.5u for the first step and at most 10u for each further 16
/// slots, likewise. One that aligns 8 products after 24 bits loses (K - 1) u + 2u in its first step of 8 and
/// up to 10u in each further one: below twice that, which `product_slack` allows to whom may run on one.
std::int64_t slot_sum_length(const PrecisionContract& contract, std::int64_t top_k) {
  if (contract.weighted == Store::Bf16) return top_k - 1;
  return static_cast<std::int64_t>(contract.product_slack) * (top_k + 1);
}

template <class A>
Values<A> unpermute(const Layer& layer, const Values<A>& second_gemm) {
  using V = typename A::Value;
  const std::int64_t width = layer.config().hidden_size;
  const std::vector<std::int32_t>& slot_of_row = layer.routing.gather;
  const auto slots = static_cast<std::int64_t>(slot_of_row.size());
  // A candidate's own order may name a slot twice and another never: the last row wins, and what nobody
  // writes is zero.
  std::vector<std::int64_t> row_of_slot(slot_of_row.size(), -1);
  for (std::size_t r = 0; r < slot_of_row.size(); ++r)
    row_of_slot[static_cast<std::size_t>(slot_of_row[r])] = static_cast<std::int64_t>(r);
  Values<A> out(second_gemm.size());
#pragma omp parallel for schedule(static) if (worth_threads(out.size()))
  for (std::int64_t s = 0; s < slots; ++s) {
    const std::int64_t row = row_of_slot[static_cast<std::size_t>(s)];
    if (row >= 0)
      std::copy_n(second_gemm.data() + row * width, width, out.data() + s * width);
    else
      std::fill_n(out.data() + s * width, width, V{});
  }
  return out;
}

template <class A>
Values<A> merge(const Layer& layer, const Values<A>& unpermuted, const Values<A>& weights) {
  using V = typename A::Value;
  const PrecisionContract& contract = *layer.contract;
  const std::int64_t width = layer.config().hidden_size, top_k = layer.config().top_k;
  const Fault& fault = layer.fault;
  const auto planted = [&](FaultKind kind) { return fault.hits(kind, Field::hidden_states); };
  const bool bf16_by_slot = planted(FaultKind::MergeBf16), ignored = planted(FaultKind::NoWeights),
             twice = planted(FaultKind::WeightTwice);
  const std::int64_t weighted_tokens =
      planted(FaultKind::WeightsModulo) ? std::min(fault.amount, layer.tokens()) : layer.tokens();
  const std::int64_t dropped = planted(FaultKind::DropSlot) ? fault.amount : -1,
                     repeated = planted(FaultKind::RepeatSlot) ? fault.amount : -1;
  const Store weighted = planted(FaultKind::WeightedUnrounded) ? Store::Unrounded : contract.weighted;
  const bool in_bf16 = bf16_by_slot || contract.combine == Combine::Bf16ByExpert;
  Values<A> out(static_cast<std::size_t>(layer.tokens() * width));
#pragma omp parallel for schedule(static) if (worth_threads(out.size() * 8))
  for (std::int64_t t = 0; t < layer.tokens(); ++t) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(top_k));
    std::iota(order.begin(), order.end(), 0);
    if (!bf16_by_slot)
      std::ranges::stable_sort(order, {}, [&](std::int32_t j) {
        return layer.routing.selected[static_cast<std::size_t>(t * top_k + j)];
      });
    const auto first_weight = weights.begin() + t % weighted_tokens * top_k;
    std::vector<V> weight(first_weight, first_weight + top_k);
    if (planted(FaultKind::SwapWeights) && top_k > 1) std::swap(weight[0], weight[1]);
    std::vector<V> terms(static_cast<std::size_t>(top_k));
    for (std::int64_t h = 0; h < width; ++h) {
      for (std::int64_t j = 0; j < top_k; ++j) {
        auto& term = terms[static_cast<std::size_t>(j)];
        const auto w = ignored ? A::exact(1.0) : weight[static_cast<std::size_t>(j)];
        term = stored(multiply(unpermuted[static_cast<std::size_t>((t * top_k + j) * width + h)], w,
                               contract.unit_roundoff),
                      weighted);
        if (twice) term = stored(multiply(term, w), weighted);
        if (j == dropped) term = {};
        if (j == repeated) term = add(term, term);
      }
      out[static_cast<std::size_t>(t * width + h)] =
          in_bf16 ? add_in_bf16<V>(terms, order) : sum_slots(std::span<const V>(terms), contract, fault);
    }
  }
  return out;
}

template Values<Bounded> unpermute<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> unpermute<Predicted>(const Layer&, const Values<Predicted>&);
template Values<Bounded> merge<Bounded>(const Layer&, const Values<Bounded>&, const Values<Bounded>&);
template Values<Predicted> merge<Predicted>(const Layer&, const Values<Predicted>&, const Values<Predicted>&);

}  // namespace assay
