// The gradient of a logit, step by step: through the weights' division by their sum, and the softmax.
#include "reference_cpu/explain/explain.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "reference_cpu/softmax_bounds.h"
#include "reference_cpu/warp_sum.h"

namespace assay {
namespace {

/// The gradient of one logit as it is computed: through the division by the chosen ones' sum, if they are
/// renormalised, and the softmax.
template <class Number>
struct LogitGradient {
  Number p{};          // of the expert
  Number sum{};        // D, of the chosen ones' probabilities
  Number common{};     // c, through D
  Number of_p{};       // g', of the expert's probability: 0 unless chosen
  Number term{};       // g' p
  Number all_terms{};  // S
  Number value{};
};

/// `add` sums a list. `p`: of all experts; `g`: the gradients of the chosen ones' weights.
template <class Number, class Add>
LogitGradient<Number> logit_gradient(std::span<const Number> p, std::span<const Number> g,
                                     std::span<const std::int32_t> chosen, bool renormalised,
                                     std::int64_t expert, const Add& add) {
  LogitGradient<Number> out;
  out.p = p[index(expert)];
  std::vector<Number> v;
  std::vector<Number> of_sum;
  std::vector<Number> terms(p.size());
  for (const auto e : chosen) v.push_back(p[index(e)]);
  if (renormalised) {
    out.sum = add(v);
    for (std::size_t j = 0; j < v.size(); ++j) of_sum.push_back(-g[j] * (v[j] / out.sum / out.sum));
    out.common = add(of_sum);
  }
  for (std::size_t j = 0; j < v.size(); ++j) {
    const Number of_p = renormalised ? g[j] / out.sum + out.common : g[j];
    if (chosen[j] == expert) out.of_p = of_p;
    terms[index(chosen[j])] = of_p * v[j];
  }
  out.term = terms[index(expert)];
  out.all_terms = add(terms);
  out.value = std::fma(-out.all_terms, out.p, out.term);
  return out;
}

/// Whether what the token's logits are made of is known only as intervals.
bool upstream_is_wide(const ElementLayer& at) {
  const std::int64_t experts = at.layer->config().num_experts;
  const std::int64_t top_k = at.layer->config().top_k;
  for (std::int64_t e = 0; e < experts; ++e)
    if (radius(at.read(Field::router_logits, at.token * experts + e)) > 0.0) return true;
  for (std::int64_t j = 0; j < top_k; ++j)
    if (radius(at.read(Field::d_topk_weights, at.token * top_k + j)) > 0.0) return true;
  return false;
}

std::vector<double> exact_probabilities(const ElementLayer& at) {
  const std::int64_t experts = at.layer->config().num_experts;
  std::vector<double> p;
  for (std::int64_t e = 0; e < experts; ++e)
    p.push_back(at.read(Field::router_logits, at.token * experts + e).ref);
  const double top = std::ranges::max(p);
  double total = 0.0;
  for (double& x : p) total += x = std::exp(x - top);
  for (double& x : p) x /= total;
  return p;
}

}  // namespace

void derive_logit_gradient(const ElementLayer& at, Derivation& derivation) {
  const Layer& layer = *at.layer;
  const std::int64_t top_k = layer.config().top_k;
  const std::int64_t experts = layer.config().num_experts;
  const bool renormalised = layer.config().norm_topk_prob;
  const auto chosen = std::span(layer.routing.selected).subspan(index(at.token * top_k), index(top_k));
  const bool is_chosen = std::ranges::find(chosen, at.expert) != chosen.end();
  const auto p = exact_probabilities(at);
  std::vector<double> g;
  for (std::int64_t j = 0; j < top_k; ++j)
    g.push_back(at.read(Field::d_topk_weights, at.token * top_k + j).ref);
  const auto add = [](const std::vector<double>& x) {
    double sum = 0.0;
    for (const double one : x) sum += one;
    return sum;
  };
  const auto exact = logit_gradient<double>(p, g, chosen, renormalised, at.expert, add);
  std::optional<LogitGradient<float>> predicted;
  if (at.predict) {
    std::vector<float> p32;
    std::vector<float> g32;
    const auto logits = std::span(*at.predicted_of(Field::router_logits));
    for (const auto& one : probabilities(logits.subspan(index(at.token * experts), index(experts))))
      p32.push_back(one.value);
    for (std::int64_t j = 0; j < top_k; ++j)
      g32.push_back(at.foresee(Field::d_topk_weights, at.token * top_k + j).value);
    predicted = logit_gradient<float>(p32, g32, chosen, renormalised, at.expert,
                                      [](const std::vector<float>& x) { return warp_sum(x); });
  }
  const auto row_of_slot = rows_of_slots(layer);
  derivation.slots_are = renormalised
                             ? "the chosen ones' weights w (p over their sum) times the gradients of w"
                             : "the chosen ones' weights p times their gradients";
  for (std::int64_t j = 0; j < top_k; ++j) {
    const std::int64_t slot = at.token * top_k + j;
    const double w = p[index(chosen[index(j)])] / (renormalised ? exact.sum : 1.0);
    const Interval of_w = at.read(Field::d_topk_weights, slot);
    derivation.slots.push_back({j,
                                chosen[index(j)],
                                row_of_slot[index(slot)],
                                Bounded::exact(w),
                                of_w,
                                Bounded::exact(w * of_w.ref),
                                {}});
  }
  const auto step = [&](std::string what, std::string formula, auto member) {
    derivation.steps.push_back({std::move(what), std::move(formula), Bounded::exact(exact.*(member.first)),
                                predicted ? std::optional((*predicted).*(member.second)) : std::nullopt});
  };
  using Exact = LogitGradient<double>;
  using Float = LogitGradient<float>;
  step(fmt::format("p: probability of expert {}", at.expert), "softmax over all experts",
       std::pair(&Exact::p, &Float::p));
  if (renormalised) {
    step("D: the chosen ones' sum", "sum of p", std::pair(&Exact::sum, &Float::sum));
    step("c: through the division by D", "- sum of g p / D / D over the chosen",
         std::pair(&Exact::common, &Float::common));
  }
  step(is_chosen ? "g': gradient of p" : "g': gradient of p, not chosen",
       !is_chosen     ? "0"
       : renormalised ? "g / D + c"
                      : "g",
       std::pair(&Exact::of_p, &Float::of_p));
  step("t", "g' p", std::pair(&Exact::term, &Float::term));
  step("S: sum of t over all experts", renormalised ? "0 but for rounding" : "",
       std::pair(&Exact::all_terms, &Float::all_terms));
  derivation.steps.push_back({"t - S p", "one fused operation, before the last rounding", derivation.value,
                              predicted ? std::optional(predicted->value) : std::nullopt});
  if (renormalised && !is_chosen)
    derivation.remarks.push_back(
        "renormalised weights do not depend on the logits of experts that were not chosen: the gradient is "
        "0, "
        "and what is stored the residue of roundings");
  const double rounding =
      roundings_of_logit_gradients(layer, *at.bounded_of(Field::d_topk_weights),
                                   *at.bounded_of(Field::router_logits), at.token)[index(at.expert)];
  derivation.bound.push_back(
      {fmt::format("expf to {} ulp and its rounded arguments in the weights{}", layer.contract->expf_ulps,
                   upstream_is_wide(at) ? ", and the widths of g and of the logits" : ""),
       std::max(0.0, radius(derivation.value) - rounding)});
  derivation.bound.push_back(
      {fmt::format(
           "sums of {} and of {} terms in any order, divisions and products: absolute, as they cancel", top_k,
           experts),
       rounding});
}

}  // namespace assay
