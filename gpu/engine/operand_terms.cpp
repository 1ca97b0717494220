#include "gpu/engine/operand_terms.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "harness/contract/noise.h"
#include "harness/contract/product_intervals.h"

namespace assay::gpu {
namespace {

/// A value that a bf16 holds whole: neither open nor with an error.
std::optional<Bf16> whole(const PredictedValue& x) {
  const auto bits = std::bit_cast<std::uint32_t>(x.value);
  if (x.undetermined || (bits & 0xffff) != 0) return std::nullopt;
  return Bf16{static_cast<std::uint16_t>(bits >> 16)};
}
std::optional<Bf16> whole(const Interval& x) {
  const Bf16 rounded = round_to_bf16(x.ref);
  if (x.low != x.ref || x.high != x.ref || x.noise > 0.0f || to_float(rounded) != x.ref) return std::nullopt;
  return rounded;
}

template <class Value>
std::optional<LargeVector<Bf16>> matrix(const GroupedProduct<Value>& product) {
  LargeVector<Bf16> values(product.right.size());
  bool all = true;
#pragma omp parallel for schedule(static) reduction(&& : all)
  for (std::int64_t first = 0; first < product.n; first += kElementsAtOnce)
    for (std::int64_t k = 0; k < product.k; ++k)
      for (std::int64_t c = first; c < std::min<std::int64_t>(first + kElementsAtOnce, product.n); ++c) {
        const std::int64_t at =
            product.right_lies == Lies::AlongColumns ? c * product.k + k : k * product.n + c;
        const auto value = whole(product.right[static_cast<std::size_t>(at)]);
        all = all && value;
        values[static_cast<std::size_t>(c * product.k + k)] = value.value_or(Bf16{});
      }
  if (!all) return std::nullopt;
  return values;
}

BoundShape shape_of(const GroupedProduct<Interval>& product, bool any_exact_row) {
  return bound_shape(product.k, product.unit_roundoff, product.accumulator,
                     any_exact_row && !product.a_priori_only);
}

}  // namespace

bool parts_of(const Summation& order, std::int64_t k, PartEnds& parts) {
  if (order.rule != StepRule::Truncate16) return false;
  std::int64_t end = 0;
  for (const auto& stretch : order.stretches) {
    const bool last = stretch.end == k;
    if (stretch.begin != end || !stretch.closes || parts.count == kMostParts ||
        (!last && stretch.end % kStepProducts != 0))
      return false;
    end = stretch.end;
    parts.step[parts.count++] = static_cast<std::int32_t>((end + kStepProducts - 1) / kStepProducts);
  }
  return end == k && parts.count > 0;
}

std::optional<LargeVector<Bf16>> matrix_of_values(const GroupedProduct<Interval>& product) {
  return matrix(product);
}
std::optional<LargeVector<Bf16>> matrix_of_values(const GroupedProduct<PredictedValue>& product) {
  return matrix(product);
}

RowsExactness::RowsExactness(const GroupedProduct<Interval>& product) {
  const std::int64_t k = product.k;
  const std::int64_t rows = static_cast<std::int64_t>(product.left.size()) / k;
  granularity.resize(static_cast<std::size_t>(rows));
  exact.resize(granularity.size());
  bool some = false;
#pragma omp parallel for schedule(static) reduction(|| : some)
  for (std::int64_t r = 0; r < rows; ++r) {
    double least = std::numeric_limits<double>::infinity();
    bool exact_row = true;
    for (const Interval& x :
         product.left.subspan(static_cast<std::size_t>(r * k), static_cast<std::size_t>(k))) {
      exact_row = exact_row && x.low == x.ref && x.ref == x.high;
      least = std::min(least, assay::granularity(x.ref));
    }
    granularity[static_cast<std::size_t>(r)] = exact_row && !product.a_priori_only ? least : 0.0;
    exact[static_cast<std::size_t>(r)] = exact_row;
    some = some || exact_row;
  }
  any = some;
}

LeftTerms::LeftTerms(const GroupedProduct<Interval>& product)
    : rows(product), shape(shape_of(product, rows.any)), terms(product.left.size()) {
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const Interval& a = product.left[i];
    terms[i] = {a.ref, spread_of(shape, a), squares_of(shape, a)};
  }
}

TwoSidedTerms::TwoSidedTerms(const GroupedProduct<Interval>& product)
    : shape(shape_of(product, RowsExactness(product).any)),
      left(product.left.size()),
      right(product.right.size()) {
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < left.size(); ++i) {
    const Interval& a = product.left[i];
    left[i] = {a.ref, spread_of(shape, a), squares_of(shape, a), not_below(std::fabs(a.ref)), moment_of(a)};
  }
  bool exact = false;
#pragma omp parallel for schedule(static) reduction(|| : exact)
  for (std::int64_t first = 0; first < product.n; first += kElementsAtOnce) {
    bool panel = true;
    for (std::int64_t k = 0; k < product.k; ++k)
      for (std::int64_t c = first; c < std::min<std::int64_t>(first + kElementsAtOnce, product.n); ++c) {
        const std::int64_t at =
            product.right_lies == Lies::AlongColumns ? c * product.k + k : k * product.n + c;
        const Interval& b = product.right[static_cast<std::size_t>(at)];
        panel = panel && is_exact_float(b);
        right[static_cast<std::size_t>(k * product.n + c)] = {
            b.ref, not_below(std::fabs(b.ref) + radius(b)), not_below(radius(b)),
            static_cast<float>(b.ref * b.ref), noise_units(shape, b)};
      }
    exact = exact || panel;
  }
  exact_panel = exact;
}

}  // namespace assay::gpu
