// A matrix product's element, term by term.
#include "reference_cpu/explain/explain.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "reference_cpu/product/element_bound.h"
#include "reference_cpu/product/layer_product.h"

namespace assay {
namespace {

constexpr std::int64_t kStep = 16;
constexpr int kFractionBits = 25;  // of the tensor core, below the largest exponent

int exponent(float x) { return std::ilogb(x); }

/// One step of the tensor core: addends aligned to the largest exponent, each truncated after 25 fractional
/// bits, added exactly, the sum truncated to fp32. A product's exponent is e_a + e_b, not normalised; zeros
/// have none (harness/contract/accumulator.h).
float tensor_core_step(float sum, std::span<const float> a, std::span<const Bf16> b,
                       std::optional<std::int32_t>& top) {
  if (sum != 0.0f) top = exponent(sum);
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float x = a[i];
    const float y = to_float(b[i]);
    if (x == 0.0f || y == 0.0f) continue;
    const int e = exponent(x) + exponent(y);
    if (!top || e > *top) top = e;
  }
  if (!top) return sum;
  // At most 17 integers below 2^27: exact in double.
  double total = std::trunc(std::ldexp(static_cast<double>(sum), kFractionBits - *top));
  for (std::size_t i = 0; i < a.size(); ++i)
    total += std::trunc(std::ldexp(static_cast<double>(a[i]) * to_float(b[i]), kFractionBits - *top));
  const double value = std::ldexp(total, *top - kFractionBits);
  auto rounded = static_cast<float>(value);
  if (std::fabs(static_cast<double>(rounded)) > std::fabs(value)) rounded = std::nextafter(rounded, 0.0f);
  return rounded;
}

float pairwise(std::span<const float> a, std::span<const Bf16> b) {
  if (a.empty()) return 0.0f;
  if (a.size() == 1) return a[0] * to_float(b[0]);
  const std::size_t half = std::bit_floor(a.size() - 1);
  return pairwise(a.first(half), b.first(half)) + pairwise(a.subspan(half), b.subspan(half));
}

bool finite(std::span<const float> a, std::span<const Bf16> b) {
  return std::ranges::all_of(a, [](float x) { return std::isfinite(x); }) &&
         std::ranges::all_of(b, is_finite);
}

}  // namespace

std::vector<PartialSum> partial_sums(std::span<const double> exact_a, std::span<const float> a,
                                     std::span<const Bf16> b, const Accumulator& accumulator) {
  std::vector<PartialSum> sums;
  const auto n = static_cast<std::int64_t>(b.size());
  const bool replay = !a.empty() && finite(a, b);
  double exact = 0.0;
  // of this stretch of K, of the stretches before it
  float running = 0.0f;
  float finished = 0.0f;
  std::size_t part = 0;
  std::int64_t stretch_begin = 0;
  for (std::int64_t begin = 0; begin < n;) {
    // A split restarts the accumulator; the last stretch reaches to the end.
    const bool last_stretch = part + 1 >= accumulator.splits.size();
    const std::int64_t stretch_end = last_stretch ? n : std::min(n, stretch_begin + accumulator.splits[part]);
    const std::int64_t end = std::min(stretch_end, begin + kStep);
    const auto at = static_cast<std::size_t>(begin);
    const auto length = static_cast<std::size_t>(end - begin);
    PartialSum sum{begin, end, 0.0, {}, {}};
    for (std::int64_t k = begin; k < end; ++k)
      exact += exact_a[static_cast<std::size_t>(k)] * to_float(b[static_cast<std::size_t>(k)]);
    sum.exact = exact;
    if (replay && accumulator.kind == AccumulatorKind::Fp32Sequential) {
      for (std::size_t i = at; i < at + length; ++i) running += a[i] * to_float(b[i]);
      sum.running = running;
    } else if (replay && accumulator.kind == AccumulatorKind::Fp32Pairwise) {
      if (end == n) sum.running = pairwise(a, b);
    } else if (replay && accumulator.kind == AccumulatorKind::Hopper) {
      running = tensor_core_step(running, a.subspan(at, length), b.subspan(at, length), sum.exponent);
      sum.running = part == 0 ? running : finished + running;
    }
    sums.push_back(sum);
    begin = end;
    if (end == stretch_end && !last_stretch) {
      finished = part == 0 ? running : finished + running;
      running = 0.0f;
      stretch_begin = stretch_end;
      ++part;
    }
  }
  return sums;
}

void derive_product(const TokenLayer& at, std::size_t terms, Derivation& derivation) {
  const ProductId id = *product_of(derivation.field);
  const auto prepared = prepare_product<Bounded>(id, *at.layer, at.upstream);
  const auto& product = prepared.product;
  const auto n = product.k;
  const auto r = static_cast<std::size_t>(row(row(id).made).rows == RowsAre::ExpertOrder ? at.row : 0);
  const auto first = static_cast<std::size_t>(prepared.source[r] * n);
  const ExpertMatrix matrix = right_operand(id, *at.layer->problem, at.expert);
  const auto b = matrix.values.subspan(static_cast<std::size_t>(at.col * n), static_cast<std::size_t>(n));
  const auto left = product.left.subspan(first, b.size());
  std::vector<double> exact(b.size());
  std::vector<float> predicted;
  std::vector<ProductTerm> all;
  for (std::size_t k = 0; k < b.size(); ++k) {
    exact[k] = left[k].ref;
    all.push_back({static_cast<std::int64_t>(k), left[k].ref, radius(left[k]), to_float(b[k])});
    if (!at.predict) continue;
    predicted.push_back(at.predicted_upstream == nullptr ? static_cast<float>(left[k].ref)
                                                         : (*at.predicted_upstream)[first + k].value);
  }
  derivation.terms = n;
  const double u = product.unit_roundoff;
  const double c = product_bound_constant(n, u);
  const ElementBound bound = element_bound(product.accumulator, u, left, b);
  derivation.magnitude = bound.magnitude;
  derivation.sums =
      partial_sums(exact, predicted, b,
                   parse_accumulator(derivation.accumulator.empty() ? "unknown" : derivation.accumulator));
  const std::size_t shown = std::min(terms, all.size());
  std::ranges::partial_sort(all, all.begin() + static_cast<std::ptrdiff_t>(shown), std::greater(),
                            [](const ProductTerm& t) { return std::fabs(t.a * t.b); });
  all.resize(shown);
  derivation.largest = std::move(all);

  derivation.bound.push_back(
      {fmt::format("C(n) sum |a||b|, any order: C = n u / (1 - n u) = {:.3g}, n = {}, u = 2^{}, sum {:.6g}",
                   c, n, std::ilogb(u), bound.magnitude),
       c * bound.magnitude});
  if (bound.carried > 0.0)
    derivation.bound.push_back(
        {"carried: sum (width of a) |b|, and C(n) times that", bound.carried * (1.0 + c)});
  derivation.bound.push_back({"underflow: n 2^-149", static_cast<double>(n) * 0x1p-149});
  if (!bound.ordered) return;
  const double steps = bound.rounding + bound.alignment + bound.joining;
  const bool truncates = bound.alignment > 0.0;
  derivation.running.push_back({truncates ? "each step's result cut to fp32: 2^-23 sum |s_k| over the steps"
                                          : "each addition rounded: 2^-24 sum |s_k|",
                                bound.rounding});
  if (truncates)
    derivation.running.push_back(
        {"each step's addends cut where they are aligned: 2^-21 sum max(|s_k-1|, |a b|)", bound.alignment});
  if (bound.joining > 0.0)
    derivation.running.push_back({"partial sums added in fp32: 2^-24 |total| each", bound.joining});
  derivation.running.push_back(
      {"that the computed sums s_k are off themselves, our own float64 sums, underflow",
       std::max(0.0, bound.running - steps)});
}

}  // namespace assay
