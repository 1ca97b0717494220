#include "harness/contract/worth_threads.h"
#include "reference_cpu/expf_sm90.h"
#include "reference_cpu/planted/planted.h"
#include "reference_cpu/softmax_bounds.h"
#include "reference_cpu/stages.h"
#include "reference_cpu/topk_torch.h"
#include "reference_cpu/warp_sum.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace assay {
namespace {

constexpr std::int64_t kMeasuredExperts = 1024;  // torch uses another softmax kernel above
constexpr std::int64_t kMeasuredTopK = 32;

void token_weights(const Layer& layer, const Values<Bounded>& all, std::size_t token,
                   std::span<const std::int32_t> selected, Interval* out) {
  const auto experts = static_cast<std::size_t>(layer.config().num_experts);
  const auto logits = std::span(all).subspan(token * experts, experts);
  const auto e = exponentials(logits, *layer.contract);
  const bool renormalised = layer.config().norm_topk_prob;
  const auto sum_without = [&](std::size_t slot) {
    Interval sum;
    const auto take = [&](std::size_t i) {
      sum = {sum.ref + e[i].ref, sum.low + e[i].low, sum.high + e[i].high,
             std::hypot(double{sum.noise}, double{e[i].noise}), static_cast<double>(sum.mean) + e[i].mean};
    };
    // An expert that is selected twice, as no legal routing does, counts twice.
    if (renormalised) {
      for (std::size_t j = 0; j < selected.size(); ++j)
        if (j != slot) take(static_cast<std::size_t>(selected[j]));
    } else {
      for (std::size_t i = 0; i < e.size(); ++i)
        if (i != static_cast<std::size_t>(selected[slot])) take(i);
    }
    return sum;
  };
  const auto terms = renormalised ? static_cast<std::int64_t>(selected.size()) : layer.config().num_experts;
  const double relative = gamma(terms) + 3.0 * kFp32UnitRoundoff;
  for (std::size_t j = 0; j < selected.size(); ++j) {
    const auto expert = static_cast<std::size_t>(selected[j]);
    const Interval others = sum_without(j);
    const Interval w = widen(share(e[expert], others), relative, 0x1p-126);
    // Relative noise of w_i = e_i / sum e: (1 - w_i) tau_i and every other w_j tau_j (NUMERICS 8), each
    // noise_j / sum e.
    const double total = e[expert].ref + others.ref;
    const double own = others.ref * e[expert].noise / total;
    const double others_part = e[expert].ref * others.noise / total;
    const double last = std::sqrt(uniform_variance(relative * w.ref + 0x1p-126));
    const double noise = std::sqrt((own * own + others_part * others_part) / (total * total) + last * last);
    const double mean = (others.ref * e[expert].mean + e[expert].ref * others.mean) / (total * total) + last;
    out[j] = with_noise(w, noise, mean);
  }
}

void token_weights(const Layer& layer, const Values<Predicted>& all, std::size_t token,
                   std::span<const std::int32_t> selected, PredictedValue* out) {
  const auto experts = static_cast<std::size_t>(layer.config().num_experts);
  const Fault& fault = layer.fault;
  const auto planted = [&](FaultKind kind) { return fault.hits(kind, Field::topk_weights); };
  auto p = probabilities(std::span(all).subspan(token * experts, experts));
  const auto scores =
      planted_scores(fault, all, layer.config().num_experts, static_cast<std::int64_t>(token), selected);
  for (std::size_t e = 0; e < scores.size(); ++e) p[e].value = scores[e];
  std::vector<float> chosen;
  for (const auto expert : selected) chosen.push_back(p[static_cast<std::size_t>(expert)].value);
  const bool renormalise = (layer.config().norm_topk_prob && !planted(FaultKind::NoRenormalisation)) ||
                           planted(FaultKind::AlwaysRenormalised);
  const float sum = renormalise ? warp_sum(chosen) : 1.0f;
  for (std::size_t j = 0; j < selected.size(); ++j)
    out[j] = {chosen[j] / sum, p[static_cast<std::size_t>(selected[j])].undetermined};
  if (planted(FaultKind::SwapWeights) && selected.size() > 1) std::swap(out[0], out[1]);
  if (planted(FaultKind::RenormaliseTwice)) {
    std::vector<float> rounded;
    for (std::size_t j = 0; j < selected.size(); ++j)
      rounded.push_back(to_float(round_to_bf16(out[j].value)));
    for (std::size_t j = 0; j < selected.size(); ++j) out[j].value = rounded[j] / warp_sum(rounded);
  }
}

}  // namespace

std::vector<PredictedValue> probabilities(std::span<const PredictedValue> logits) {
  float top = -std::numeric_limits<float>::infinity();
  bool undetermined = static_cast<std::int64_t>(logits.size()) > kMeasuredExperts;
  for (const auto& l : logits) {
    top = std::max(top, l.value);
    undetermined = undetermined || l.undetermined || !std::isfinite(l.value);
  }
  std::vector<PredictedValue> e;
  std::vector<float> values;
  for (const auto& l : logits) {
    e.push_back(expf_sm90(l.value - top));
    values.push_back(e.back().value);
  }
  const float sum = warp_sum(values);
  // A result below 2^-126 does not reach the sum (at least 1), but its own probability is not determined.
  for (auto& one : e) one = {one.value / sum, one.undetermined || undetermined};
  return e;
}

template <class A>
Values<A> topk_weights(const Layer& layer, const Values<A>& logits) {
  const auto top_k = static_cast<std::size_t>(layer.config().top_k);
  Values<A> out(static_cast<std::size_t>(layer.tokens()) * top_k);
#pragma omp parallel for schedule(static) if (worth_threads(32 * logits.size()))
  for (std::int64_t t = 0; t < layer.tokens(); ++t) {
    const auto token = static_cast<std::size_t>(t);
    token_weights(layer, logits, token, std::span(layer.routing.selected).subspan(token * top_k, top_k),
                  out.data() + token * top_k);
  }
  return out;
}

std::vector<std::int32_t> select_experts(const Layer& layer, const Values<Predicted>& logits,
                                         std::vector<bool>& undetermined) {
  const auto experts = static_cast<std::size_t>(layer.config().num_experts);
  const std::int64_t top_k = layer.config().top_k;
  std::vector<std::int32_t> selected;
  undetermined.assign(static_cast<std::size_t>(layer.tokens()), false);
  for (std::size_t t = 0; t < static_cast<std::size_t>(layer.tokens()); ++t) {
    const auto p = probabilities(std::span(logits).subspan(t * experts, experts));
    std::vector<float> values;
    bool any_nan = false;
    for (const auto& one : p) {
      any_nan = any_nan || std::isnan(one.value);
      values.push_back(std::isnan(one.value) ? -1.0f : one.value);
    }
    plant_probabilities(layer.fault, values);
    std::vector<std::int32_t> chosen;
    if (layer.contract->ties == TieRule::LowestIndex || top_k > kMeasuredTopK) {
      chosen = topk_lowest_index(std::vector<double>(values.begin(), values.end()), top_k);
    } else {
      chosen = topk_torch(values, top_k);
    }
    plant_selection(layer.fault, values, static_cast<std::int64_t>(t), layer.tokens(), chosen);
    bool unsure = any_nan || top_k > kMeasuredTopK;
    for (const auto index : chosen) unsure = unsure || p[static_cast<std::size_t>(index)].undetermined;
    undetermined[t] = unsure;
    selected.insert(selected.end(), chosen.begin(), chosen.end());
  }
  return selected;
}

std::vector<std::int32_t> select_experts(const Layer& layer, const Values<Bounded>& logits) {
  const auto experts = static_cast<std::size_t>(layer.config().num_experts);
  std::vector<std::int32_t> selected;
  for (std::size_t t = 0; t < static_cast<std::size_t>(layer.tokens()); ++t) {
    std::vector<double> values;
    for (std::size_t e = 0; e < experts; ++e) values.push_back(logits[t * experts + e].ref);
    const auto chosen = topk_lowest_index(values, layer.config().top_k);
    selected.insert(selected.end(), chosen.begin(), chosen.end());
  }
  return selected;
}

template Values<Bounded> topk_weights<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> topk_weights<Predicted>(const Layer&, const Values<Predicted>&);

}  // namespace assay
