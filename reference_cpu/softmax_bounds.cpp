#include "reference_cpu/softmax_bounds.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace assay {

std::vector<Interval> exponentials(std::span<const Interval> logits, const PrecisionContract& contract) {
  double top = -std::numeric_limits<double>::infinity();
  double largest = 0.0;
  for (const auto& l : logits) {
    top = std::max(top, l.ref);
    if (!std::isinf(l.ref)) largest = std::max(largest, std::fabs(l.ref));
  }
  std::vector<Interval> result;
  result.reserve(logits.size());
  double total = 0.0;
  for (const auto& l : logits) total += std::exp(l.ref - top);
  // A float64 run still takes its softmax in fp32: the logits are rounded to fp32 first.
  const double narrowed =
      contract.unit_roundoff < kFp32UnitRoundoff ? 2.0 * largest * kFp32UnitRoundoff : 0.0;
  for (const auto& l : logits) {
    // A masked expert's logit is -Inf and its exponential 0, with no argument to round.
    const bool masked = std::isinf(l.ref);
    const double away = masked ? 0.0 : std::fabs(l.ref - top);
    const double low = masked ? l.ref : l.low;
    const double high = masked ? l.ref : l.high;
    const double relative =
        ((contract.expf_ulps + 0.5) * 0x1p-23 + away * kFp32UnitRoundoff + narrowed) * (1 + 0x1p-10);
    const double floor = 0x1p-126 * (1.0 + total);
    Interval e = widen({std::exp(l.ref - top), std::exp(low - top), std::exp(high - top)}, relative, floor);
    e.low = std::max(e.low, 0.0);
    const double own = std::sqrt(uniform_variance(e.ref * relative + floor));
    result.push_back(masked ? with_noise(e, own, own)
                            : with_noise(e, std::hypot(e.ref * l.noise, own), e.ref * l.mean + own));
  }
  return result;
}

}  // namespace assay
