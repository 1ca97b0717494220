#include "harness/contract/worth_threads.h"
#include "reference_cpu/softmax_bounds.h"
#include "reference_cpu/stages.h"
#include "reference_cpu/warp_sum.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace assay {
namespace {

/// a * [w.low, w.high] for w >= 0.
Interval scaled(const Interval& a, const Interval& w) {
  return {a.ref * w.ref, std::min(a.low * w.low, a.low * w.high), std::max(a.high * w.low, a.high * w.high)};
}

Interval plus(const Interval& a, const Interval& b) {
  return {a.ref + b.ref, a.low + b.low, a.high + b.high};
}

/// What is left of a sum of non-negative terms without one of them; float64 errs by 2^-50 of the sum at most.
Interval without(const Interval& sum, const Interval& term) {
  const double slack = 0x1p-50 * sum.high;
  return {std::max(sum.ref - term.ref, 0.0), std::max(sum.low - term.low - slack, 0.0),
          std::max(sum.high - term.high, 0.0) + slack};
}

double magnitude(const Interval& x) { return std::max(std::fabs(x.low), std::fabs(x.high)); }

/// Sums over the experts k whose probabilities make the weights, of errors relative to e_k: what noise adds.
struct LogitNoise {
  // sum w^2 tau^2 (1, D, D^2)
  double squares = 0.0;
  double crossed = 0.0;
  double fourth = 0.0;
  // sum w mean (1, |D|)
  double mean = 0.0;
  double mean_crossed = 0.0;

  void take(double w, double tau, double mean_tau, double d) {
    const double square = w * w * tau * tau;
    squares += square;
    crossed += square * d;
    fourth += square * d * d;
    mean += w * mean_tau;
    mean_crossed += w * mean_tau * std::fabs(d);
  }
};

double relative_noise(double noise, const Interval& e) { return e.ref > 0.0 ? noise / e.ref : 0.0; }

/// An infinite gradient of a weight: renormalised, Inf - Inf reaches every logit; else the formula itself,
/// where the infinite sum leaves each logit infinite or NaN.
void infinite_gradients(std::span<const Interval> e, std::span<const Interval> d, bool renormalised,
                        Interval* out) {
  double all = 0.0;
  double sum = 0.0;
  for (const Interval& one : e) all += one.ref;
  for (std::size_t i = 0; i < e.size(); ++i)
    if (d[i].ref != 0.0) sum += d[i].ref * (e[i].ref / all);
  for (std::size_t i = 0; i < e.size(); ++i) {
    const double p = e[i].ref / all;
    const double value = renormalised ? std::numeric_limits<double>::quiet_NaN()
                                      : (d[i].ref == 0.0 ? 0.0 : d[i].ref * p) - sum * p;
    out[i] = {value, value, value};
  }
}

/// With w the weights (chosen probabilities over their sum D, or the softmax over all experts) and d the
/// weights' gradients, 0 for experts not chosen, dL_i = w_i (d_i - sum w_j d_j) = w_i sum over j of w_j (d_i
/// - d_j): written so, nothing cancels but the differences. Renormalised, the gradients of all other logits
/// are 0. That holds for any positive e_i / sum e, so the exponentials' errors and the inputs' are those of w
/// alone: intervals. What an implementation rounds further on is absolute, NUMERICS 5, Gradients.
void token_logit_gradients(const Layer& layer, const Values<Bounded>& d_weights,
                           const Values<Bounded>& logits, std::size_t token,
                           std::span<const std::int32_t> selected, Interval* out,
                           double* roundings = nullptr) {
  const auto experts = static_cast<std::size_t>(layer.config().num_experts);
  const bool renormalised = layer.config().norm_topk_prob;
  const auto top_k = static_cast<std::int64_t>(selected.size());
  constexpr double u = kFp32UnitRoundoff;
  auto e = exponentials(std::span(logits).subspan(token * experts, experts), *layer.contract);
  std::vector<Interval> d(experts);
  std::vector<bool> chosen(experts);
  for (std::size_t j = 0; j < selected.size(); ++j) {
    const auto expert = static_cast<std::size_t>(selected[j]);
    chosen[expert] = true;
    d[expert] = d_weights[token * selected.size() + j];
  }
  // A NaN reaches every logit's gradient through the sums.
  const auto lost = [](const Interval& x) { return std::isnan(x.ref); };
  if (std::ranges::any_of(e, lost) || std::ranges::any_of(d, lost)) {
    constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
    std::fill_n(out, experts, Interval{kNaN, kNaN, kNaN});
    return;
  }
  if (std::ranges::any_of(d, [](const Interval& x) { return std::isinf(x.ref); })) {
    infinite_gradients(e, d, renormalised, out);
    return;
  }
  Interval all;
  Interval of_chosen;
  for (std::size_t i = 0; i < experts; ++i) {
    const double noise = e[i].noise;
    const double mean = e[i].mean;
    e[i] = with_noise(widen(e[i], u), noise, mean);  // the softmax's division
    all = plus(all, e[i]);
    if (chosen[i]) of_chosen = plus(of_chosen, e[i]);
  }
  const Interval& total = renormalised ? of_chosen : all;
  const auto weight = [&](std::size_t i) { return share(e[i], without(total, e[i])); };
  const Interval rest = renormalised ? Interval() : share(without(all, of_chosen), of_chosen);

  double m = 0.0;
  double largest = 0.0;
  double product = 0.0;
  double d_variance = 0.0;
  double d_mean = 0.0;
  for (std::size_t i = 0; i < experts; ++i) {
    if (!chosen[i]) continue;
    const Interval w = weight(i);
    m += w.ref * d[i].ref;
    product += w.high * magnitude(d[i]);
    largest = std::max(largest, magnitude(d[i]));
    d_variance += w.ref * w.ref * d[i].noise * d[i].noise;
    d_mean += w.ref * d[i].mean;
  }
  LogitNoise noise;
  for (std::size_t i = 0; i < experts; ++i)
    if (chosen[i] || !renormalised)
      noise.take(e[i].ref / total.ref, relative_noise(e[i].noise, e[i]), relative_noise(e[i].mean, e[i]),
                 d[i].ref - m);

  // Of g_i D, and of the terms g_i v_i, whose sum over the chosen is 0.
  const auto of_term = [&](double size) {
    return gamma(top_k + 1) * size + gamma(3 * top_k + 1) * product + u * (size + product);
  };
  double residue = 0.0;
  for (std::size_t i = 0; i < experts; ++i)
    if (chosen[i] && renormalised) {
      const double size = magnitude(d[i]);
      residue += weight(i).high * (of_term(size) + gamma(top_k - 1) * (size + product));
    }
  const double floor = 0x1p-126 * static_cast<double>(top_k + 3) * (1.0 + largest);
  for (std::size_t i = 0; i < experts; ++i) {
    const double probability = share(e[i], without(all, e[i])).high;
    const double size = magnitude(d[i]);
    double delta = probability * residue;
    Interval value;
    double variance = 0.0;
    double mean = 0.0;
    if (chosen[i] || !renormalised) {
      const Interval w = weight(i);
      for (std::size_t j = 0; j < experts; ++j)
        if (chosen[j] && j != i)
          value = plus(value,
                       scaled({d[i].ref - d[j].ref, d[i].low - d[j].high, d[i].high - d[j].low}, weight(j)));
      if (chosen[i] && !renormalised) value = plus(value, scaled(d[i], rest));
      value = scaled(value, w);
      delta += w.high * (renormalised ? of_term(size) + 2.0 * u * (size + product)
                                      : gamma(layer.config().num_experts) * (size + 2.0 * product) +
                                            3.0 * u * size + (gamma(top_k) + 2.0 * u) * product);
      const double from_mean = d[i].ref - m;
      const double tau = relative_noise(e[i].noise, e[i]);
      const double own = from_mean * tau;
      const double d_noise = d[i].noise;
      variance = w.ref * w.ref *
                 (noise.squares * from_mean * from_mean + 2.0 * noise.crossed * from_mean + noise.fourth +
                  own * own + d_variance + d_noise * d_noise);
      mean = w.ref * (std::fabs(from_mean) * (noise.mean + relative_noise(e[i].mean, e[i])) +
                      noise.mean_crossed + d_mean + d[i].mean);
    }
    delta = delta * (1.0 + 0x1p-10) + floor;
    if (roundings != nullptr) roundings[i] = delta;
    const double own = std::sqrt(uniform_variance(delta));
    out[i] = with_noise({value.ref, value.low - delta, value.high + delta},
                        std::sqrt(std::max(variance, 0.0) + own * own), mean + own);
    // Infinite ends times weights of 0: nothing is known on that side.
    if (std::isnan(out[i].low)) out[i].low = -std::numeric_limits<double>::infinity();
    if (std::isnan(out[i].high)) out[i].high = std::numeric_limits<double>::infinity();
  }
}

/// torch's autograd of the division by the sum, then of the softmax, whose last product and subtraction round
/// once.
void token_logit_gradients(const Layer& layer, const Values<Predicted>& d_weights,
                           const Values<Predicted>& logits, std::size_t token,
                           std::span<const std::int32_t> selected, PredictedValue* out) {
  const auto experts = static_cast<std::size_t>(layer.config().num_experts);
  const auto p = probabilities(std::span(logits).subspan(token * experts, experts));
  const auto d = std::span(d_weights).subspan(token * selected.size(), selected.size());
  bool undetermined = false;
  std::vector<float> v;
  std::vector<float> g;
  for (std::size_t j = 0; j < selected.size(); ++j) {
    const PredictedValue& chosen = p[static_cast<std::size_t>(selected[j])];
    undetermined = undetermined || chosen.undetermined || d[j].undetermined;
    v.push_back(chosen.value);
    g.push_back(d[j].value);
  }
  if (layer.config().norm_topk_prob) {
    const float sum = warp_sum(v);
    std::vector<float> of_sum;
    for (std::size_t j = 0; j < v.size(); ++j) of_sum.push_back(-g[j] * (v[j] / sum / sum));
    const float common = warp_sum(of_sum);
    for (float& one : g) one = one / sum + common;
  }
  std::vector<float> terms(experts);
  for (std::size_t j = 0; j < g.size(); ++j)
    terms[static_cast<std::size_t>(selected[j])] = g[j] * p[static_cast<std::size_t>(selected[j])].value;
  const float sum = warp_sum(terms);
  for (std::size_t i = 0; i < experts; ++i)
    out[i] = {std::fma(-sum, p[i].value, terms[i]), undetermined || p[i].undetermined};
}

}  // namespace

template <class A>
Values<A> router_grad(const Layer& layer, const Values<A>& d_weights, const Values<A>& logits) {
  const auto top_k = static_cast<std::size_t>(layer.config().top_k);
  const auto experts = static_cast<std::size_t>(layer.config().num_experts);
  Values<A> out(logits.size());
#pragma omp parallel for schedule(static) if (worth_threads(32 * logits.size()))
  for (std::int64_t t = 0; t < layer.tokens(); ++t) {
    const auto token = static_cast<std::size_t>(t);
    token_logit_gradients(layer, d_weights, logits, token,
                          std::span(layer.routing.selected).subspan(token * top_k, top_k),
                          out.data() + token * experts);
  }
  return out;
}

std::vector<double> roundings_of_logit_gradients(const Layer& layer, const Values<Bounded>& d_weights,
                                                 const Values<Bounded>& logits, std::int64_t token) {
  const auto experts = static_cast<std::size_t>(layer.config().num_experts);
  const auto top_k = static_cast<std::size_t>(layer.config().top_k);
  const auto at = static_cast<std::size_t>(token);
  std::vector<Interval> values(experts);
  std::vector<double> roundings(experts);
  token_logit_gradients(layer, d_weights, logits, at,
                        std::span(layer.routing.selected).subspan(at * top_k, top_k), values.data(),
                        roundings.data());
  return roundings;
}

template Values<Bounded> router_grad<Bounded>(const Layer&, const Values<Bounded>&, const Values<Bounded>&);
template Values<Predicted> router_grad<Predicted>(const Layer&, const Values<Predicted>&,
                                                  const Values<Predicted>&);

}  // namespace assay
