#include "reference_cpu/term_sums.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace assay {

Interval sum_of_terms(std::span<const Interval> terms, double gamma_n, SummedBy by,
                      const PrecisionContract& contract) {
  Interval sum;
  double magnitude = 0.0;
  double variance = 0.0;
  double mean = 0.0;
  double common = 0.0;
  double squares = 0.0;
  double q = std::numeric_limits<double>::infinity();
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
  const auto n = static_cast<std::int64_t>(terms.size());
  const double delta = gamma_n * magnitude;
  double own = static_cast<double>(n - 1) *
               rounding_variance(std::sqrt(sum.ref * sum.ref + 0.25 * squares), contract.unit_roundoff);
  if (by == SummedBy::TensorCore)
    own = std::max(own, accumulation_variance(n, sum.ref, squares, contract.product_unit_roundoff()));
  // Terms that leave fp32's range leave nothing known on a side where Inf met -Inf.
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double low = sum.low - delta;
  double high = sum.high + delta;
  if (std::isfinite(sum.ref) && std::isnan(low)) low = -kInfinity;
  if (std::isfinite(sum.ref) && std::isnan(high)) high = kInfinity;
  return with_noise({sum.ref, low, high}, std::sqrt(variance + common * common + own), mean + std::sqrt(own));
}

PredictedValue sum_interleaved(std::span<const PredictedValue> terms) {
  PredictedValue lanes[4];
  for (std::size_t j = 0; j < terms.size(); ++j) lanes[j % 4] = add(lanes[j % 4], terms[j]);
  return add(add(add(lanes[0], lanes[1]), lanes[2]), lanes[3]);
}

}  // namespace assay
