#include "harness/contract/product_bound.h"

#include <bit>
#include <cmath>
#include <limits>

#include "harness/contract/element_constants.h"

namespace assay {
namespace {

/// Sum over all steps of what one unit of |s| there may lose.
double weight_of_steps(const Summation& order, std::int64_t n) {
  const auto terms = static_cast<double>(n);
  const bool rounds = order.rule == StepRule::RoundEach || order.rule == StepRule::RoundTree;
  if (rounds) return terms * kFp32UnitRoundoff;
  const std::int64_t step = order.rule == StepRule::Truncate8 ? 8 : 16;
  double weight = 0.0;
  for (const auto& stretch : order.stretches)
    weight += 5.0 * 0x1p-23 * static_cast<double>((stretch.end - stretch.begin + step - 1) / step) +
              kFp32UnitRoundoff;
  return weight;
}

}  // namespace

ElementConstants::ElementConstants(const BoundShape& shape)
    : c(shape.c),
      inflation(1.0 + 2.0 * gamma(shape.n + 16)),
      underflow(2.0 * static_cast<double>(shape.n) * 0x1p-149),
      lost_in_float64(gamma(shape.n, 0x1p-53)),
      running_inflation(shape.running_inflation),
      running(shape.running ? 1.0 : 0.0),
      noise(shape.n, shape.unit_roundoff) {}

double gamma(std::int64_t n, double unit_roundoff) {
  const double nu = static_cast<double>(n) * unit_roundoff;
  return nu / (1.0 - nu);
}

double product_bound_constant(std::int64_t n, double unit_roundoff) {
  return gamma(n, unit_roundoff) + (unit_roundoff < kFp32UnitRoundoff ? gamma(n, unit_roundoff) : 0.0);
}

BoundShape bound_shape(std::int64_t n, double unit_roundoff, const Accumulator& accumulator,
                       bool any_exact_row) {
  BoundShape shape{n, unit_roundoff, product_bound_constant(n, unit_roundoff),
                   accumulation_rate(n, unit_roundoff)};
  if (!any_exact_row || !order_declared(accumulator) || unit_roundoff < kFp32UnitRoundoff || n == 0)
    return shape;
  const double weight = weight_of_steps(summation(accumulator, n), n);
  shape.running = weight < 0.5;
  shape.running_inflation = ElementConstants(shape).inflation / (1.0 - weight);
  return shape;
}

float spread_of(const BoundShape& shape, const Interval& a) {
  const double width = radius(a);
  return static_cast<float>((width + shape.c * (std::fabs(a.ref) + width)) * (1.0 + 0x1p-22));
}

float squares_of(const BoundShape& shape, const Interval& a) {
  const double noise = a.noise;
  return static_cast<float>(a.ref * a.ref + noise * noise * 6.0 / shape.rate);
}

float noise_units(const BoundShape& shape, const Interval& b) {
  const double noise = b.noise;
  return static_cast<float>(noise * noise * 6.0 / shape.rate);
}

float moment_of(const Interval& a) {
  const double noise = a.noise;
  return static_cast<float>(a.ref * a.ref + noise * noise);
}

double a_priori_bound(const BoundShape& shape, const ProductSums& sums) {
  return ElementConstants(shape).a_priori_bound(sums.spread);
}

double running_bound(const BoundShape& shape, const ProductSums& sums) {
  return ElementConstants(shape).running_bound(sums.spread, sums.running);
}

double granularity(double x) {
  if (x == 0.0) return std::numeric_limits<double>::infinity();
  if (!std::isfinite(x)) return 0.0;
  constexpr std::uint64_t kFraction = (std::uint64_t{1} << 52) - 1;
  const auto bits = std::bit_cast<std::uint64_t>(x);
  // Without its lowest set bit of the fraction x is short by just that bit.
  return std::fabs((bits & kFraction) == 0 ? x : x - std::bit_cast<double>(bits & (bits - 1)));
}

bool exact_in_any_order(const BoundShape& shape, const ProductSums& sums, double left_granularity,
                        double right_granularity) {
  return ElementConstants(shape).exact_in_any_order(sums.spread, left_granularity, right_granularity);
}

double least_right_granularity(const BoundShape& shape, const ProductSums& sums, double left_granularity) {
  return ElementConstants(shape).least_right_granularity(sums.spread, left_granularity);
}

Interval product_interval(const BoundShape& shape, const ProductSums& sums, bool exact) {
  return ElementConstants(shape).interval(sums.ref, sums.spread, sums.squares, sums.running, exact);
}

}  // namespace assay
