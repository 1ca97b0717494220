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
struct Silu {
  Interval value;
  double own = 0.0;
};
Silu silu(const Interval& a, const PrecisionContract& contract) {
  constexpr double kMinimumAt = -1.2784645427610738, kMinimum = -0.27846454276107379;
  double low = silu_exact(a.low), high = silu_exact(a.high);
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
  const double value = silu_exact(a.ref), sigma_ref = 1.0 / (1.0 + std::exp(-a.ref));
  const double slope = std::fabs(sigma_ref * (1.0 + a.ref * (1.0 - sigma_ref))),
               floor = single && a.low < -87.0 ? 2e-36 : 0.0;
  const auto carried = [slope](double e) { return slope * e + 0.25 * e * e; };
  return {with_noise(widen({value, low, high}, relative, floor), carried(a.noise), carried(a.mean)),
          std::fabs(relative * value) + floor};
}

/// The function's own error is the same wherever the argument is: when it is rounded, the place of this very
/// value decides.
Interval silu(const Interval& a, const Layer& layer) {
  const auto [x, own] = silu(a, *layer.contract);
  const double noise = x.noise, own_noise = std::sqrt(uniform_variance(own));
  if (layer.contract->silu == Store::Unrounded)
    return with_noise(x, std::sqrt(noise * noise + own_noise * own_noise), x.mean + own_noise);
  const Interval rounded = stored(x, layer.contract->silu);
  const RoundingCell cell = rounding_cell(x.ref, rounded.ref);
  if (cell.nearest() > own) return rounded;
  const double recurring = recurring_noise_after_bf16(x.ref, own_noise, rounded.ref), other = rounded.noise;
  return with_noise(rounded, std::sqrt(other * other + recurring * recurring),
                    rounded.mean + recurring * recurring / cell.gap);
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

}  // namespace

template <class A>
Values<A> act_and_mul(const Layer& layer, const Values<A>& first_gemm) {
  const std::int64_t rows = static_cast<std::int64_t>(layer.routing.gather.size());
  const std::int64_t width = layer.config().moe_intermediate_size;
  const auto planted = [&](FaultKind kind) { return layer.fault.hits(kind, Field::intermediate); };
  const bool swapped = planted(FaultKind::SwapGateUp), next_row = planted(FaultKind::UpOfNextRow),
             ignored = planted(FaultKind::UpIgnored);
  const std::int64_t step = planted(FaultKind::InterleavedGateUp) ? 2 : 1;
  const PrecisionContract& contract = *layer.contract;
  Values<A> out(static_cast<std::size_t>(rows * width));
#pragma omp parallel for schedule(static) if (worth_threads(32 * rows * width))
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto* row = first_gemm.data() + r * 2 * width;
    const auto* other = first_gemm.data() + (next_row ? (r + 1) % rows : r) * 2 * width;
    const auto* gate = swapped ? row + width : row;
    const auto* up = swapped ? row : step == 2 ? row + 1 : other + width;
    for (std::int64_t i = 0; i < width; ++i) {
      const auto activated = silu(gate[i * step], layer);
      out[static_cast<std::size_t>(r * width + i)] =
          ignored ? activated : multiply(activated, up[i * step], contract.unit_roundoff);
    }
  }
  return out;
}

template Values<Bounded> act_and_mul<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> act_and_mul<Predicted>(const Layer&, const Values<Predicted>&);

}  // namespace assay
