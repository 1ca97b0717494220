#include "reference_cpu/term_sums.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace assay {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

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
  double low = sum.low - delta;
  double high = sum.high + delta;
  if (std::isfinite(sum.ref) && std::isnan(low)) low = -kInfinity;
  if (std::isfinite(sum.ref) && std::isnan(high)) high = kInfinity;
  return with_noise({sum.ref, low, high}, std::sqrt(variance + common * common + own), mean + std::sqrt(own));
}

namespace {

struct Hull {
  double low = 0.0;
  double high = 0.0;
};

/// The least and the largest sum, over all orders, of bf16 additions that start from 0; not yet rounded.
/// `lows`, `highs`: of the terms, fp32 numbers. Entry S is the extreme over the slots whose bits S has.
Hull every_order(std::span<const float> lows, std::span<const float> highs) {
  struct Ends {
    float low;
    float high;
  };
  std::array<Ends, std::size_t{1} << kEverySet> rounded;  // 32 KiB
  rounded[0] = {0.0f, 0.0f};
  Ends sum{0.0f, 0.0f};
  for (std::size_t set = 1; set < std::size_t{1} << lows.size(); ++set) {
    sum = {kInfinity, -kInfinity};
    for (std::size_t left = set; left != 0; left &= left - 1) {
      const Ends& others = rounded[set ^ (left & -left)];
      const auto last = static_cast<std::size_t>(std::countr_zero(left));
      sum = {std::min(sum.low, others.low + lows[last]), std::max(sum.high, others.high + highs[last])};
    }
    rounded[set] = {to_float(round_to_bf16(sum.low)), to_float(round_to_bf16(sum.high))};
  }
  return {sum.low, sum.high};
}

/// The same of more slots than sets can be walked for.
Hull beyond_every_order(std::span<const float> lows, std::span<const float> highs) {
  Hull sum;
  double magnitude = 0.0;
  for (std::size_t j = 0; j < lows.size(); ++j) {
    sum = {sum.low + lows[j], sum.high + highs[j]};
    magnitude += std::fmax(std::fabs(lows[j]), std::fabs(highs[j]));
  }
  const double once = (1.0 + kBf16UnitRoundoff) * (1.0 + kFp32UnitRoundoff);
  const double delta = (std::pow(once, std::ssize(lows) - 1) - 1.0) * magnitude;
  return {sum.low - delta, sum.high + delta};
}

Hull any_order(std::span<const float> lows, std::span<const float> highs) {
  return lows.size() <= kEverySet ? every_order(lows, highs) : beyond_every_order(lows, highs);
}

}  // namespace

Interval add_in_bf16_any_order(std::span<const Interval> terms, std::span<const std::int32_t> order) {
  const Interval one = add_in_bf16(terms, order);
  std::vector<float> lows(terms.size());
  std::vector<float> highs(terms.size());
  double squares = 0.0;
  for (std::size_t j = 0; j < terms.size(); ++j) {
    // Of numbers in fp32 none lies between an end and the nearest of them.
    lows[j] = static_cast<float>(terms[j].low);
    highs[j] = static_cast<float>(terms[j].high);
    squares += terms[j].ref * terms[j].ref;
  }
  const Hull hull = any_order(lows, highs);
  // Two orders, each with the roundings of its partial sums.
  const double own = 2.0 * static_cast<double>(terms.size()) *
                     rounding_variance(std::sqrt(one.ref * one.ref + 0.25 * squares), kBf16UnitRoundoff);
  const double noise = one.noise;
  if (std::isnan(one.ref)) return one;
  return with_noise({one.ref, std::min(hull.low, one.low), std::max(hull.high, one.high)},
                    std::sqrt(noise * noise + own), one.mean + std::sqrt(own));
}

PredictedValue add_in_bf16_any_order(std::span<const PredictedValue> terms,
                                     std::span<const std::int32_t> order) {
  PredictedValue one = add_in_bf16(terms, order);
  std::vector<float> values(terms.size());
  std::ranges::transform(terms, values.begin(), [](const PredictedValue& term) { return term.value; });
  const Hull hull = any_order(values, values);
  one.undetermined |= round_to_bf16(hull.low) != round_to_bf16(hull.high);
  return one;
}

PredictedValue sum_interleaved(std::span<const PredictedValue> terms) {
  PredictedValue lanes[4];
  for (std::size_t j = 0; j < terms.size(); ++j) lanes[j % 4] = add(lanes[j % 4], terms[j]);
  return add(add(add(lanes[0], lanes[1]), lanes[2]), lanes[3]);
}

}  // namespace assay
