// Elements that a token's slots are added up to: the merge, and the gradient of the experts' input.
#include "reference_cpu/explain/explain.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "reference_cpu/term_sums.h"

namespace assay {
namespace {

/// The slots of `derivation` added up in the contract's order, one step each.
void add_slots(Combine combine, std::string_view addend, Derivation& derivation) {
  const auto& slots = derivation.slots;
  const bool in_bf16 = combine != Combine::Fp32Sum;
  std::vector<std::size_t> order(slots.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (in_bf16) std::ranges::stable_sort(order, {}, [&](std::size_t j) { return slots[j].expert; });
  if (combine == Combine::Bf16ByExpertDescending) std::ranges::reverse(order);
  // Above four slots torch keeps four interleaved sums: only the last one is known.
  const bool ordered = in_bf16 || slots.size() <= 4;
  Interval sum;
  PredictedValue predicted;
  std::vector<PredictedValue> terms;
  for (const auto& term : slots)
    if (term.predicted) terms.push_back({*term.predicted, false});
  for (const std::size_t j : order) {
    const SlotTerm& term = slots[j];
    const bool last = j == order.back();
    sum = in_bf16 ? add(stored(sum, Store::Bf16), term.product) : Bounded::exact(sum.ref + term.product.ref);
    if (term.predicted)
      predicted =
          add(in_bf16 ? stored(predicted, Store::Bf16) : predicted, PredictedValue{*term.predicted, false});
    if (!ordered && last && !terms.empty()) predicted = sum_interleaved(terms);
    derivation.steps.push_back(
        {fmt::format("+ slot {}, expert {}", term.slot, term.expert),
         in_bf16 ? fmt::format("bf16 sum so far, plus the {} in fp32", addend) : "float64 sum so far", sum,
         (ordered || last) && term.predicted ? std::optional(predicted.value) : std::nullopt});
  }
  if (combine == Combine::Bf16AnyOrder) {
    Values<Bounded> products;
    for (const auto& term : slots) products.push_back(term.product);
    const Interval hull =
        add_in_bf16_any_order(products, std::vector<std::int32_t>(order.begin(), order.end()));
    derivation.bound.push_back(
        {"bf16 additions in any order: how far apart the orders end", hull.high - hull.low});
  } else if (in_bf16)
    derivation.bound.push_back(
        {"bf16 additions of declared order: each is a declared rounding, none adds a bound", 0.0});
}

double magnitude_of(const std::vector<SlotTerm>& slots) {
  double sum = 0.0;
  for (const auto& term : slots) sum += std::fabs(term.product.ref);
  return sum;
}

double carried_by(const std::vector<SlotTerm>& slots) {
  double sum = 0.0;
  for (const auto& term : slots) sum += radius(term.product);
  return sum;
}

SlotTerm slot_term(const ElementLayer& at, const std::vector<std::int64_t>& row_of_slot, std::int64_t j) {
  const std::int64_t slot = at.token * at.layer->config().top_k + j;
  SlotTerm term;
  term.slot = j;
  term.expert = at.layer->routing.selected[index(slot)];
  term.row = row_of_slot[index(slot)];
  return term;
}

}  // namespace

void derive_merge(const ElementLayer& at, Derivation& derivation) {
  const PrecisionContract& contract = *at.layer->contract;
  const std::int64_t width = at.layer->config().hidden_size;
  const std::int64_t top_k = at.layer->config().top_k;
  const auto row_of_slot = rows_of_slots(*at.layer);
  derivation.slots_are = "weight times row";
  for (std::int64_t j = 0; j < top_k; ++j) {
    SlotTerm term = slot_term(at, row_of_slot, j);
    const std::int64_t slot = at.token * top_k + j;
    const std::int64_t i = slot * width + at.col;
    const Interval weight = at.read(Field::topk_weights, slot);
    term.weight = weight;
    term.value = at.read(Field::hidden_states_unpermute, i);
    term.product = stored(multiply(term.value, weight, contract.unit_roundoff), contract.weighted);
    if (at.predict)
      term.predicted = stored(multiply(at.foresee(Field::hidden_states_unpermute, i),
                                       at.foresee(Field::topk_weights, slot)),
                              contract.weighted)
                           .value;
    derivation.slots.push_back(term);
  }
  add_slots(contract.combine, "product", derivation);
  if (contract.combine == Combine::Fp32Sum) {
    const std::int64_t n = slot_sum_length(contract, top_k);
    const double magnitude = magnitude_of(derivation.slots);
    derivation.bound.push_back(
        {fmt::format("fp32 sum of {} products, any order: gamma_{} sum |w y|, sum {:.6g}", top_k, n,
                     magnitude),
         gamma(n, contract.unit_roundoff) * magnitude});
  }
  const double carried = carried_by(derivation.slots);
  if (carried > 0.0) derivation.bound.push_back({"carried: sum of the products' widths", carried});
}

void derive_combined_slots(const ElementLayer& at, Derivation& derivation) {
  const PrecisionContract& contract = *at.layer->contract;
  const std::int64_t width = at.layer->config().hidden_size;
  const std::int64_t top_k = at.layer->config().top_k;
  const auto row_of_slot = rows_of_slots(*at.layer);
  derivation.slots_are = "rows of d_permuted_hidden_states";
  for (std::int64_t j = 0; j < top_k; ++j) {
    SlotTerm term = slot_term(at, row_of_slot, j);
    const std::int64_t i = term.row * width + at.col;
    if (term.row >= 0) {
      term.value = at.read(Field::d_permuted_hidden_states, i);
      term.predicted = at.foreseen(Field::d_permuted_hidden_states, i);
    } else if (at.predict) {
      term.predicted = 0.0f;  // a slot that no row names
    }
    term.product = term.value;
    derivation.slots.push_back(term);
  }
  add_slots(contract.d_input_combine, "row", derivation);
  if (contract.d_input_combine == Combine::Fp32Sum) {
    const double magnitude = magnitude_of(derivation.slots);
    derivation.bound.push_back({fmt::format("fp32 sum of {} rows, any order: gamma_{} sum |dx|, sum {:.6g}",
                                            top_k, top_k - 1, magnitude),
                                gamma(top_k - 1, contract.unit_roundoff) * magnitude});
  } else {
    derivation.bound.push_back(
        {"the last addition in fp32: u |sum|", contract.unit_roundoff * std::fabs(derivation.value.ref)});
  }
  const double carried = carried_by(derivation.slots);
  if (carried > 0.0) derivation.bound.push_back({"carried: sum of the rows' widths", carried});
}

}  // namespace assay
