#include "reference_cpu/product/element_bound.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "harness/contract/noise.h"

namespace assay {
namespace {

/// Adds up what the steps of an order may lose, walking the exact prefix sums (NUMERICS 3, Running).
struct PrefixWalk {
  std::span<const double> terms;
  const Summation& order;
  ElementBound& bound;

  double pairs(std::size_t begin, std::size_t count) {
    if (count == 1) return terms[begin];
    const std::size_t half = std::bit_floor(count - 1);
    const double sum = pairs(begin, half) + pairs(begin + half, count - half);
    bound.rounding += kFp32UnitRoundoff * std::fabs(sum);
    return sum;
  }

  void steps() {
    const std::int64_t length = order.rule == StepRule::RoundEach   ? 1
                                : order.rule == StepRule::Truncate8 ? 8
                                                                    : 16;
    double sum = 0.0;
    double total = 0.0;
    for (const auto& stretch : order.stretches) {
      for (std::int64_t k = stretch.begin; k < stretch.end; k += length) {
        double largest = std::fabs(sum);
        for (std::int64_t i = k; i < std::min(k + length, stretch.end); ++i) {
          const double term = terms[static_cast<std::size_t>(i)];
          largest = std::max(largest, std::fabs(term));
          sum += term;
        }
        bound.rounding += (length == 1 ? kFp32UnitRoundoff : 0x1p-23) * std::fabs(sum);
        if (length > 1) bound.alignment += 0x1p-21 * largest;
      }
      if (!stretch.closes) continue;
      total += sum;
      sum = 0.0;
      if (order.stretches.size() > 1) bound.joining += kFp32UnitRoundoff * std::fabs(total);
    }
  }
};

std::string steps_words(const Summation& order) {
  if (order.rule == StepRule::RoundEach || order.rule == StepRule::RoundTree)
    return "each addition loses at most 2^-24 of its result";
  const std::int64_t length = order.rule == StepRule::Truncate8 ? 8 : 16;
  std::int64_t steps = 0;
  for (const auto& stretch : order.stretches) steps += (stretch.end - stretch.begin + length - 1) / length;
  const auto parts = std::ranges::count(order.stretches, true, &SumStretch::closes);
  return fmt::format(
      "each of {} step{} of {} products loses at most 2^-23 of the sum it leaves and 2^-21 of its largest "
      "addend{}",
      steps, steps == 1 ? "" : "s", length,
      parts > 1 ? fmt::format("; {} partial sums are added in fp32", parts) : "");
}

}  // namespace

ElementBound element_bound(const Accumulator& accumulator, double unit_roundoff, std::span<const Interval> a,
                           std::span<const Interval> b) {
  ElementBound bound;
  const auto n = static_cast<std::int64_t>(b.size());
  std::vector<double> terms(b.size());
  const auto is_exact = [](const Interval& x) { return x.low == x.ref && x.high == x.ref; };
  bool exact = true;
  double left = std::numeric_limits<double>::infinity();
  double right = left;
  for (std::size_t k = 0; k < b.size(); ++k) {
    terms[k] = a[k].ref * b[k].ref;
    exact = exact && is_exact(a[k]) && is_exact(b[k]);
    bound.magnitude += std::fabs(terms[k]);
    bound.carried += radius(a[k]) * (std::fabs(b[k].ref) + radius(b[k])) + std::fabs(a[k].ref) * radius(b[k]);
    left = std::min(left, granularity(a[k].ref));
    right = std::min(right, granularity(b[k].ref));
  }
  const BoundShape shape = bound_shape(n, unit_roundoff, accumulator, exact);
  ProductSums sums;
  for (std::size_t k = 0; k < b.size(); ++k) {
    sums.ref += terms[k];
    sums.squares += static_cast<float>(squares_of(shape, a[k]) * b[k].ref * b[k].ref);
    if (b[k].noise > 0.0f) sums.squares += moment_of(a[k]) * noise_units(shape, b[k]);
  }
  sums.spread = static_cast<float>(shape.c * (bound.magnitude + bound.carried) + bound.carried);
  bound.ordered = shape.running;
  if (shape.running) {
    const Summation order = summation(accumulator, n);
    PrefixWalk walk{terms, order, bound};
    if (order.rule == StepRule::RoundTree)
      walk.pairs(0, terms.size());
    else
      walk.steps();
    sums.running = static_cast<float>((bound.rounding + bound.alignment + bound.joining) * 0x1p23);
    bound.running = running_bound(shape, sums);
  }
  bound.a_priori = a_priori_bound(shape, sums);
  bound.interval = product_interval(shape, sums, exact && exact_in_any_order(shape, sums, left, right));
  return bound;
}

ElementBound element_bound(const Accumulator& accumulator, double unit_roundoff, std::span<const Interval> a,
                           std::span<const Bf16> b) {
  std::vector<Interval> exact(b.size());
  for (std::size_t k = 0; k < b.size(); ++k) {
    const double value = to_float(b[k]);
    exact[k] = {value, value, value};
  }
  return element_bound(accumulator, unit_roundoff, a, std::span<const Interval>(exact));
}

std::string a_priori_words(std::int64_t n, double unit_roundoff) {
  return fmt::format(
      "C(n) sum |a||b| for additions in any order, C(n) = n u / (1 - n u) = {:.3g}, n = {}, u = 2^{}",
      product_bound_constant(n, unit_roundoff), n, std::ilogb(unit_roundoff));
}

std::string running_words(const Accumulator& accumulator, std::int64_t n, double unit_roundoff,
                          bool exact_operands) {
  if (!order_declared(accumulator)) return "none: no order of summation is declared";
  if (unit_roundoff < kFp32UnitRoundoff) return "none: sums are float64";
  if (!exact_operands) return "none where the operand is an interval, which the stages before leave it";
  if (n == 0) return "none: there are no terms";
  if (!bound_shape(n, unit_roundoff, accumulator, true).running)
    return fmt::format("none: {} terms are too many for it", n);
  return fmt::format("{}, in its own order: {}", to_string(accumulator),
                     steps_words(summation(accumulator, n)));
}

}  // namespace assay
