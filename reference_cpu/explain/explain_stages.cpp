// The stages that are no products, step by step: SwiGLU, softmax and weights, ranking of experts.
#include "reference_cpu/explain/explain.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "reference_cpu/expf_sm90.h"
#include "reference_cpu/topk_torch.h"

namespace assay {
namespace {

/// act_and_mul of one gate and one up value under a contract: the stage itself, on a layer of one row and one
/// column.
template <class A>
typename A::Value swiglu_of(const PrecisionContract& contract, const typename A::Value& gate,
                            const typename A::Value& up) {
  const OneElementLayer one(contract);
  return act_and_mul<A>(one.layer, Values<A>{gate, up})[0];
}

}  // namespace

void derive_intermediate(const ElementLayer& at, Derivation& derivation) {
  const PrecisionContract& contract = *at.layer->contract;
  const std::int64_t width = at.layer->config().moe_intermediate_size;
  const std::int64_t gate_at = at.row * 2 * width + at.col;
  const std::int64_t up_at = gate_at + width;
  const Interval gate = at.read(Field::first_gemm, gate_at);
  const Interval up = at.read(Field::first_gemm, up_at);
  const auto predicted_gate = at.predict ? at.foresee(Field::first_gemm, gate_at) : PredictedValue{};
  const auto predicted_up = at.predict ? at.foresee(Field::first_gemm, up_at) : PredictedValue{};
  PrecisionContract unrounded = contract;
  unrounded.silu = Store::Unrounded;
  const auto one = Bounded::exact(1.0);
  const Interval silu = swiglu_of<Bounded>(unrounded, gate, one);
  const auto e = std::exp(-gate.ref);
  auto& steps = derivation.steps;
  steps.push_back({fmt::format("a: first_gemm, col {}", at.col), "gate half", gate,
                   at.foreseen(Field::first_gemm, gate_at)});
  steps.push_back({fmt::format("b: first_gemm, col {}", width + at.col), "up half", up,
                   at.foreseen(Field::first_gemm, up_at)});
  steps.push_back({"exp(-a)", "expf in fp32", Bounded::exact(e),
                   at.predict ? std::optional(expf_sm90(-predicted_gate.value).value) : std::nullopt});
  std::optional<float> predicted_silu;
  std::optional<float> predicted_rounded;
  if (at.predict) {
    predicted_silu = swiglu_of<Predicted>(unrounded, predicted_gate, Predicted::exact(1.0)).value;
    predicted_rounded = swiglu_of<Predicted>(contract, predicted_gate, Predicted::exact(1.0)).value;
  }
  steps.push_back({"s = silu(a)", "a / (1 + exp(-a))", silu, predicted_silu});
  if (contract.silu == Store::Bf16)
    steps.push_back({"s, stored as bf16", "a declared rounding", swiglu_of<Bounded>(contract, gate, one),
                     predicted_rounded});
  std::optional<float> product;
  if (at.predict) product = swiglu_of<Predicted>(contract, predicted_gate, predicted_up).value;
  steps.push_back({"s b", "product in fp32, before the last rounding", derivation.value, product});

  const double u = contract.unit_roundoff;
  const double e_exp = u == kFp32UnitRoundoff ? (contract.expf_ulps + 0.5) * 0x1p-23 : 4 * u;
  const double sigma = 1.0 / (1.0 + e);
  const double scale = std::fabs(silu.ref * up.ref);
  derivation.bound.push_back(
      {fmt::format("expf: (1 - sigma) e_exp |s b|, e_exp = {:.3g} for an expf of {} ulp, sigma = {:.6g}",
                   e_exp, contract.expf_ulps, sigma),
       (1.0 - sigma) * e_exp * scale});
  derivation.bound.push_back({"1 + exp(-a), and the division: 2 u |s b|", 2.0 * u * scale});
  if (radius(gate) > 0.0)
    derivation.bound.push_back(
        {"carried from a: |b| (width of silu over a's interval)",
         std::fabs(up.ref) *
             (radius(silu) - radius(swiglu_of<Bounded>(unrounded, Bounded::exact(gate.ref), one)))});
  if (radius(up) > 0.0)
    derivation.bound.push_back({"carried from b: |s| (width of b)", std::fabs(silu.ref) * radius(up)});
}

void derive_weight(const ElementLayer& at, Derivation& derivation) {
  const Layer& layer = *at.layer;
  const auto& logits = *at.bounded_of(Field::router_logits);
  const auto* predicted_logits = at.predicted_of(Field::router_logits);
  const PrecisionContract& contract = *layer.contract;
  const auto experts = std::span(layer.routing.selected);
  const bool renormalised = layer.config().norm_topk_prob;
  const Interval own = logits[index(at.expert)];
  double top = -std::numeric_limits<double>::infinity();
  double over = 0.0;
  for (const auto& l : logits) top = std::max(top, l.ref);
  if (renormalised)
    for (const auto e : experts) over += std::exp(logits[index(e)].ref - top);
  else
    for (const auto& l : logits) over += std::exp(l.ref - top);
  const double e = std::exp(own.ref - top);
  std::optional<float> predicted_logit;
  std::optional<float> predicted_share;
  if (at.predict) {
    predicted_logit = (*predicted_logits)[index(at.expert)].value;
    predicted_share = probabilities(*predicted_logits)[index(at.expert)].value;
  }
  double all = 0.0;
  for (const auto& l : logits) all += std::exp(l.ref - top);
  auto& steps = derivation.steps;
  steps.push_back({fmt::format("l: router_logits of expert {}", at.expert), "", own, predicted_logit});
  steps.push_back({"m: the token's largest logit", "", Bounded::exact(top), {}});
  steps.push_back({"exp(l - m)", "expf in fp32", Bounded::exact(e), {}});
  steps.push_back({"p: probability over all experts", "exp(l - m) / sum over E", Bounded::exact(e / all),
                   predicted_share});
  steps.push_back({renormalised ? fmt::format("sum of exp over the {} chosen", experts.size())
                                : fmt::format("sum of exp over all {} experts", logits.size()),
                   "",
                   Bounded::exact(over),
                   {}});
  std::optional<float> predicted;
  if (at.predict) predicted = topk_weights<Predicted>(layer, *predicted_logits)[index(at.slot)].value;
  steps.push_back({"weight, before the last rounding", renormalised ? "p / sum of the chosen p" : "p",
                   derivation.value, predicted});

  const double w = std::fabs(derivation.value.ref);
  const double e_exp = (contract.expf_ulps + 0.5) * 0x1p-23;
  const auto terms = renormalised ? static_cast<std::int64_t>(experts.size()) : layer.config().num_experts;
  double farthest = 0.0;
  for (const auto chosen : experts) farthest = std::max(farthest, std::fabs(logits[index(chosen)].ref - top));
  derivation.bound.push_back(
      {fmt::format("expf, in numerator and sum: 2 e_exp w, e_exp = {:.3g} for an expf of {} ulp", e_exp,
                   contract.expf_ulps),
       2.0 * e_exp * w});
  derivation.bound.push_back(
      {fmt::format("rounded arguments: 2 |l - m| u w, at most {:.6g} among the chosen", farthest),
       2.0 * farthest * kFp32UnitRoundoff * w});
  derivation.bound.push_back({fmt::format("sum of {} terms, divisions: (gamma_{} + 3 u) w", terms, terms),
                              (gamma(terms) + 3.0 * kFp32UnitRoundoff) * w});
  double carried = radius(own);
  for (const auto chosen : experts) carried = std::max(carried, radius(logits[index(chosen)]));
  if (carried > 0.0)
    derivation.bound.push_back(
        {fmt::format("carried from the logits, known to {:.3g}: (1 - w) and the others' shares times that",
                     carried),
         2.0 * (1.0 - w) * carried * w});
}

void derive_ranking(const ElementLayer& at, std::span<const std::int32_t> listed, Derivation& derivation) {
  const Layer& layer = *at.layer;
  const auto& logits = *at.bounded_of(Field::router_logits);
  const auto* predicted_logits = at.predicted_of(Field::router_logits);
  const std::int64_t top_k = layer.config().top_k;
  std::vector<double> values;
  for (const auto& l : logits) values.push_back(l.ref);
  const auto order = topk_lowest_index(values, static_cast<std::int64_t>(values.size()));
  const double top = values[index(order.front())];
  double total = 0.0;
  for (const double v : values) total += std::exp(v - top);
  std::vector<PredictedValue> predicted;
  std::vector<std::int32_t> predicted_choice;
  if (at.predict) {
    predicted = probabilities(*predicted_logits);
    std::vector<bool> undetermined;
    predicted_choice = select_experts(layer, *predicted_logits, undetermined);
  }
  const auto find_in = [](std::span<const std::int32_t> list, std::int32_t expert) {
    const auto found = std::ranges::find(list, expert);
    return found == list.end() ? std::int64_t{-1} : found - list.begin();
  };
  const bool border = index(top_k) < order.size();
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    const auto expert = index(order[rank]);
    RankedExpert one{order[rank],
                     values[expert],
                     std::exp(values[expert] - top) / total,
                     {},
                     0.0,
                     find_in(listed, order[rank]),
                     find_in(predicted_choice, order[rank])};
    if (at.predict) one.predicted = predicted[expert].value;
    if (border) one.gap = one.logit - values[index(order[index(rank < index(top_k) ? top_k : top_k - 1)])];
    derivation.ranking.push_back(one);
  }
}

void derive_integer(Reference& whole, const Place& place, std::int64_t top_k, const Candidate& candidate,
                    bool usable, Derivation& derivation) {
  const Field field = derivation.field;
  const auto at = static_cast<std::size_t>(place.index);
  const auto expected = whole.expected_integers(field)[at];
  derivation.value = Bounded::exact(expected);
  derivation.low = expected;
  derivation.high = expected;
  const auto what = field == Field::gather_indices
                        ? fmt::format("row {} is slot {} of token {}: flat slot token {} + slot", place.row,
                                      place.slot, place.token, top_k)
                        : fmt::format("rows of expert {}", place.expert);
  derivation.steps.push_back({what, "counted from selected_experts", derivation.value, {}});
  if (!usable) {
    derivation.sentence = "the candidate has no such field, or one of wrong shape, dtype or range";
    return;
  }
  const auto found = candidate.fields.at(field).as<std::int32_t>()[at];
  derivation.out = found;
  derivation.verdict = found == expected ? Verdict::Passed : Verdict::Failed;
  derivation.sentence = found == expected ? "accepted: exactly as counted"
                                          : fmt::format("rejected: {} where {} is exact", found, expected);
}

}  // namespace assay
