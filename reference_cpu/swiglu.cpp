#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "harness/contract/worth_threads.h"
#include "reference_cpu/expf_sm90.h"
#include "reference_cpu/planted/planted.h"
#include "reference_cpu/stages.h"

namespace assay {
namespace {

double silu_exact(double a) { return a / (1.0 + std::exp(-a)); }

/// silu(a) = a / (1 + expf(-a)) in fp32. With e_exp = (E + 1/2) 2^-23 for an expf of E ulp, the sigmoid's
/// relative error is (1 - sigma) e_exp + u (addition) + u (division); NUMERICS 5. Below -87 expf overflows:
/// |silu| there is at most 1.03e-36. Noise: the argument's, |s(a + e) - s(a)| <= |s'(a)| |e| + e^2 / 4, as
/// |s''| <= 1/2; the function's own error is returned as its bound. Where e^-a (1 + e_exp) < 2^-25 the sum 1
/// + e^-a and even the exact sigmoid round to 1: silu(a) = a, without an error.
struct FunctionValue {
  Interval value;
  double own = 0.0;  // of the function, wherever its argument lies
};
FunctionValue silu(const Interval& a, const PrecisionContract& contract) {
  constexpr double kMinimumAt = -1.2784645427610738;
  constexpr double kMinimum = -0.27846454276107379;
  double low = silu_exact(a.low);
  double high = silu_exact(a.high);
  if (low > high) std::swap(low, high);
  if (a.low < kMinimumAt && a.high > kMinimumAt) {
    high = std::max(silu_exact(a.low), silu_exact(a.high));
    low = kMinimum;
  }
  const bool single = contract.unit_roundoff == kFp32UnitRoundoff;
  const double u = contract.unit_roundoff;
  const double e_exp = single ? (contract.expf_ulps + 0.5) * 0x1p-23 : 4 * u;
  if (single && std::exp(-a.low) * (1.0 + e_exp) < 0x1p-25) return {a};
  const double sigma = 1.0 / (1.0 + std::exp(-a.low));
  const double relative = ((1.0 - sigma) * e_exp + 2.0 * u) * (1.0 + 0x1p-10) + 4 * 0x1p-53;
  // Where the argument's interval reaches across, the reference is what fp32 makes of its own argument.
  const bool lost = single && std::exp(-a.ref) < 0x1p-25;
  const double value = lost ? a.ref : silu_exact(a.ref);
  const double sigma_ref = 1.0 / (1.0 + std::exp(-a.ref));
  const double slope = std::fabs(sigma_ref * (1.0 + a.ref * (1.0 - sigma_ref)));
  const double floor = single && a.low < -87.0 ? 2e-36 : 0.0;
  const auto carried = [slope](double e) { return slope * e + 0.25 * e * e; };
  return {with_noise(widen({value, low, high}, relative, floor), carried(a.noise), carried(a.mean)),
          std::fabs(relative * value) + floor};
}

/// The function's own error is the same wherever the argument is: when it is rounded, the place of this very
/// value decides.
Interval silu(const Interval& a, const Layer& layer) {
  const auto [x, own] = silu(a, *layer.contract);
  const double noise = x.noise;
  const double own_noise = std::sqrt(uniform_variance(own));
  if (layer.contract->silu == Store::Unrounded)
    return with_noise(x, std::sqrt(noise * noise + own_noise * own_noise), x.mean + own_noise);
  const Interval rounded = stored(x, layer.contract->silu);
  const RoundingCell cell = rounding_cell(x.ref, rounded.ref);
  if (cell.nearest() > own) return rounded;
  const double recurring = recurring_noise_after_bf16(x.ref, own_noise, rounded.ref);
  const double other = rounded.noise;
  return with_noise(rounded, std::sqrt(other * other + recurring * recurring),
                    rounded.mean + recurring * recurring / cell.gap);
}

/// silu'(a) = s f with s = sigma(a), f = 1 + a (1 - s). With |ds| <= s e, e = (1 - s) e_exp + 2u (silu), f
/// errs by |a| s e + 4u |a| (1 - s) + u |f|, and the slope by s (that + |f| (e + 2u)): absolute, as f crosses
/// 0 near -1.278. 4u, for s + silu (1 - s) is as legal a way. Below -87, where s may be 0, |slope| is at
/// most 1.4e-36. It rises between its extremes at +-2.399 and falls outside. Where fp32's s is 1 (silu), f
/// and slope are exactly 1, the reference too, while the real slope is up to 5e-7 more: both are accepted.
/// Noise: the argument's, |silu''| <= 1/2 and its derivative's at most 0.31; the function's own error is
/// returned as its bound.
FunctionValue slope_of_silu(const Interval& a, const PrecisionContract& contract) {
  constexpr double kMaximumAt = 2.399357280515467;
  constexpr double kMaximum = 1.099839320128867;
  const auto sigma = [](double x) { return 1.0 / (1.0 + std::exp(-x)); };
  const auto factor = [&](double x) { return 1.0 + x * (1.0 - sigma(x)); };
  const auto slope = [&](double x) { return sigma(x) * factor(x); };
  double low = std::min(slope(a.low), slope(a.high));
  double high = std::max(slope(a.low), slope(a.high));
  if (a.low < kMaximumAt && kMaximumAt < a.high) high = kMaximum;
  if (a.low < -kMaximumAt && -kMaximumAt < a.high) low = 1.0 - kMaximum;
  const bool single = contract.unit_roundoff == kFp32UnitRoundoff;
  const double u = contract.unit_roundoff;
  const bool lost = single && std::exp(-a.ref) < 0x1p-25;
  const double ref = lost ? 1.0 : slope(a.ref);
  const double e_exp = single ? (contract.expf_ulps + 0.5) * 0x1p-23 : 4 * u;
  if (single && std::exp(-a.low) * (1.0 + e_exp) < 0x1p-25)
    return {with_noise({ref, 1.0, std::max(1.0, high)}, high - 1.0)};
  const double s = sigma(a.high);
  const double rest = 1.0 - sigma(a.low);
  const double e = rest * e_exp + 2.0 * u;
  const double largest = std::max(std::fabs(a.low), std::fabs(a.high));
  double f = std::max(std::fabs(factor(a.low)), std::fabs(factor(a.high)));
  if (a.low < a.high && a.high > 0.0) f = std::max(f, 1.2784645427610738);
  const double own = s * (largest * (s * e + 4.0 * u * rest) + f * (e + 3.0 * u)) * (1.0 + 0x1p-10) +
                     4 * 0x1p-53 * s * (1.0 + largest) + (single && a.low < -87.0 ? 2e-36 : 0.0);
  const double s_ref = sigma(a.ref);
  const double curvature = s_ref * (1.0 - s_ref) * (2.0 + a.ref * (1.0 - 2.0 * s_ref));
  const auto carried = [&](double noise) { return std::fabs(curvature) * noise + 0.155 * noise * noise; };
  return {with_noise({ref, low - own, high + own}, carried(a.noise), carried(a.mean)), own};
}

/// d silu times the slope. A product below 2^-126 has fewer bits or is flushed.
Interval through_silu(const Interval& d_silu, const Interval& gate, const Layer& layer) {
  const PrecisionContract& contract = *layer.contract;
  auto [slope, own] = slope_of_silu(gate, contract);
  const double noise = slope.noise;
  const double own_noise = std::sqrt(uniform_variance(own));
  slope = with_noise(slope, std::hypot(noise, own_noise), slope.mean + own_noise);
  const Interval d_gate = multiply(d_silu, slope, contract.unit_roundoff);
  const double largest = std::max(std::fabs(d_gate.low), std::fabs(d_gate.high));
  const bool tiny = largest > 0.0 && largest < 0x1p-100 && contract.unit_roundoff == kFp32UnitRoundoff;
  return tiny ? widen(d_gate, 0.0, 0x1p-126 * (2.0 + std::fabs(gate.low))) : d_gate;
}

PredictedValue silu(const PredictedValue& a, const Layer& layer) {
  // Checked on all finite bf16 inputs, so what expf calls undetermined (tiny results beside 1) is determined
  // here.
  const float e = expf_sm90(-a.value).value;
  PredictedValue result{a.value / (1.0f + e), a.undetermined || !std::isfinite(a.value)};
  const Fault& fault = layer.fault;
  if (fault.field != Field::intermediate) return stored(result, layer.contract->silu);
  if (changes_silu(fault.kind)) result.value = planted_silu(fault, a.value, result.value);
  return stored(result, fault.kind == FaultKind::SiluUnrounded ? Store::Unrounded : layer.contract->silu);
}

/// GPT-OSS's up half. Faults are planted in predicted arithmetic only.
PredictedValue limited_plus_one(PredictedValue up, double limit) {
  const auto most = static_cast<float>(limit);
  return {std::clamp(up.value, -most, most) + 1.0f, up.undetermined};
}
Interval limited_plus_one(const Interval& up, double) { return up; }

/// As torch's silu_backward multiplies, left to right.
PredictedValue through_silu(const PredictedValue& d_silu, const PredictedValue& gate, const Layer&) {
  const float a = gate.value;
  const float s = 1.0f / (1.0f + expf_sm90(-a).value);
  const float factor = 1.0f + a * (1.0f - s);
  return {d_silu.value * s * factor, d_silu.undetermined || gate.undetermined || !std::isfinite(a)};
}

}  // namespace

template <class A>
Values<A> act_and_mul(const Layer& layer, const Values<A>& first_gemm) {
  const std::int64_t rows = static_cast<std::int64_t>(layer.routing.gather.size());
  const std::int64_t width = layer.config().moe_intermediate_size;
  const auto planted = [&](FaultKind kind) { return layer.fault.hits(kind, Field::intermediate); };
  const bool swapped = planted(FaultKind::SwapGateUp);
  const bool next_row = planted(FaultKind::UpOfNextRow);
  const bool ignored = planted(FaultKind::UpIgnored);
  // Gate and up in alternating blocks of so many columns, which divide them; 0: in halves.
  const std::int64_t block = planted(FaultKind::InterleavedGateUp)
                                 ? std::gcd(std::max<std::int64_t>(1, layer.fault.amount), width)
                                 : 0;
  const double limit = planted(FaultKind::QuickGelu) ? static_cast<double>(layer.fault.amount)
                                                     : 0.0;  // of GPT-OSS's up halves
  const PrecisionContract& contract = *layer.contract;
  Values<A> out(static_cast<std::size_t>(rows * width));
#pragma omp parallel for schedule(static) if (worth_threads(32 * rows * width))
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto* row = first_gemm.data() + r * 2 * width;
    const auto* other = first_gemm.data() + (next_row ? (r + 1) % rows : r) * 2 * width;
    const auto* gate = swapped ? row + width : row;
    const auto* up = swapped ? row : block > 0 ? row + block : other + width;
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t at = block > 0 ? i / block * 2 * block + i % block : i;
      const auto activated = silu(gate[at], layer);
      const auto factor = limit > 0.0 ? limited_plus_one(up[at], limit) : up[at];
      out[static_cast<std::size_t>(r * width + i)] =
          ignored ? activated : multiply(activated, factor, contract.unit_roundoff);
    }
  }
  return out;
}

namespace {

/// What is not stored overflows where fp32 does: Inf meets a weight of 0, which a large number would not
/// mind.
Interval overflown(Interval x, const PrecisionContract& contract) {
  if (contract.unit_roundoff == kFp32UnitRoundoff && std::fabs(x.ref) > std::numeric_limits<float>::max())
    x.ref = std::copysign(std::numeric_limits<double>::infinity(), x.ref);
  return x;
}
PredictedValue overflown(const PredictedValue& x, const PrecisionContract&) { return x; }

}  // namespace

template <class A>
Values<A> recomputed_activation(const Layer& layer, const Values<A>& first_gemm) {
  Layer right = layer;  // the forward pass's faults are its own
  right.fault = {};
  auto values = act_and_mul<A>(right, first_gemm);
  for (auto& x : values) x = overflown(x, *layer.contract);
  return values;
}

template <class A>
Values<A> act_and_mul_grad(const Layer& layer, const Values<A>& d_intermediate, const Values<A>& first_gemm,
                           const Values<A>* weights) {
  const std::int64_t rows = static_cast<std::int64_t>(layer.routing.gather.size());
  const std::int64_t width = layer.config().moe_intermediate_size;
  const PrecisionContract& contract = *layer.contract;
  Values<A> out(static_cast<std::size_t>(rows * 2 * width));
#pragma omp parallel for schedule(static) if (worth_threads(32 * rows * width))
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto* gate = first_gemm.data() + r * 2 * width;
    const auto* up = gate + width;
    const auto* d_hidden = d_intermediate.data() + r * width;
    auto* d_gate = out.data() + r * 2 * width;
    auto* d_up = d_gate + width;
    const auto slot = static_cast<std::size_t>(layer.routing.gather[static_cast<std::size_t>(r)]);
    for (std::int64_t i = 0; i < width; ++i) {
      const auto d_a =
          weights == nullptr ? d_hidden[i] : multiply(d_hidden[i], (*weights)[slot], contract.unit_roundoff);
      const auto d_silu = stored(multiply(d_a, up[i], contract.unit_roundoff), contract.d_silu);
      d_gate[i] = through_silu(d_silu, gate[i], layer);
      d_up[i] = multiply(d_a, silu(gate[i], layer), contract.unit_roundoff);
    }
  }
  return out;
}

template Values<Bounded> act_and_mul<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> act_and_mul<Predicted>(const Layer&, const Values<Predicted>&);
template Values<Bounded> act_and_mul_grad<Bounded>(const Layer&, const Values<Bounded>&,
                                                   const Values<Bounded>&, const Values<Bounded>*);
template Values<Predicted> act_and_mul_grad<Predicted>(const Layer&, const Values<Predicted>&,
                                                       const Values<Predicted>&, const Values<Predicted>*);
template Values<Bounded> recomputed_activation<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> recomputed_activation<Predicted>(const Layer&, const Values<Predicted>&);

}  // namespace assay
