// Sums of products, term by term: matrix products along columns, and over rows.
#include "reference_cpu/explain/explain.h"

#include <algorithm>

#include <fmt/format.h>

#include "reference_cpu/product/element_bound.h"
#include "reference_cpu/product/layer_product.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

constexpr std::int64_t kStep = 16;
constexpr int kFractionBits = 25;  // of the tensor core, below the largest exponent

int exponent(float x) { return std::ilogb(x); }

/// One step of the tensor core: addends aligned to the largest exponent, each truncated after 25 fractional
/// bits, added exactly, the sum truncated to fp32. A product's exponent is e_a + e_b, not normalised; zeros
/// have none (harness/contract/accumulator.h).
float tensor_core_step(float sum, std::span<const float> a, std::span<const float> b,
                       std::optional<std::int32_t>& top) {
  if (sum != 0.0f) top = exponent(sum);
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float x = a[i];
    const float y = b[i];
    if (x == 0.0f || y == 0.0f) continue;
    const int e = exponent(x) + exponent(y);
    if (!top || e > *top) top = e;
  }
  if (!top) return sum;
  // At most 17 integers below 2^27: exact in double.
  double total = std::trunc(std::ldexp(static_cast<double>(sum), kFractionBits - *top));
  for (std::size_t i = 0; i < a.size(); ++i)
    total += std::trunc(std::ldexp(static_cast<double>(a[i]) * b[i], kFractionBits - *top));
  const double value = std::ldexp(total, *top - kFractionBits);
  auto rounded = static_cast<float>(value);
  if (std::fabs(static_cast<double>(rounded)) > std::fabs(value)) rounded = std::nextafter(rounded, 0.0f);
  return rounded;
}

float pairwise(std::span<const float> a, std::span<const float> b) {
  if (a.empty()) return 0.0f;
  if (a.size() == 1) return a[0] * b[0];
  const std::size_t half = std::bit_floor(a.size() - 1);
  return pairwise(a.first(half), b.first(half)) + pairwise(a.subspan(half), b.subspan(half));
}

bool finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float x) { return std::isfinite(x); });
}

/// The operands of every term, as the sum takes them.
struct Factors {
  std::vector<Interval> a;
  std::vector<Interval> b;
  std::vector<float> predicted_a;  // empty unless predicting
  std::vector<float> predicted_b;
  Accumulator accumulator;  // that bounds may rely on
  double unit_roundoff = 0.0;
};

/// Of an element of a product whose left operand lies along its columns.
Factors factors_along_columns(ProductId id, const ElementLayer& at) {
  const Field left = row(id).left;
  const auto prepared = prepare_product<Bounded>(id, *at.layer, at.bounded_of(left));
  const auto& product = prepared.product;
  Factors factors{{}, {}, {}, {}, product.accumulator, product.unit_roundoff};
  const bool rows = row(row(id).made).rows == RowsAre::ExpertOrder;
  const std::int64_t first = prepared.source[index(rows ? at.row : at.token)] * product.k;
  const auto b =
      right_column(id, right_operand(id, *at.layer->problem, at.expert), product.k, product.n, at.col);
  for (std::int64_t k = 0; k < product.k; ++k) {
    const Interval a = product.left[index(first + k)];
    const double weight = to_float(b[index(k)]);
    factors.a.push_back(a);
    factors.b.push_back(Bounded::exact(weight));
    if (!at.predict) continue;
    factors.predicted_a.push_back(at.predicted_of(left) == nullptr ? static_cast<float>(a.ref)
                                                                   : at.foresee(left, first + k).value);
    factors.predicted_b.push_back(static_cast<float>(weight));
  }
  return factors;
}

/// Of an element of a weight's gradient.
Factors factors_over_rows(ProductId id, const ElementLayer& at, std::int64_t matrix_row) {
  const Field left = row(id).left;
  const Field right = row(id).right;
  const std::int64_t expert = per_expert(row(id)) ? at.expert : 0;
  const RowRange rows{matrix_row, matrix_row + 1};
  const auto prepared = prepare_weight_gradient<Bounded>(id, *at.layer, expert, rows, at.bounded_of(left),
                                                         at.bounded_of(right));
  const auto& product = prepared.product;
  Factors factors{{prepared.lifted.begin(), prepared.lifted.end()},
                  {},
                  {},
                  {},
                  product.accumulator,
                  product.unit_roundoff};
  for (std::int64_t k = 0; k < product.k; ++k)
    factors.b.push_back(prepared.right[index(k * product.n + at.col)]);
  if (!at.predict) return factors;
  const auto foreseen = prepare_weight_gradient<Predicted>(id, *at.layer, expert, rows, at.predicted_of(left),
                                                           at.predicted_of(right));
  for (std::int64_t k = 0; k < product.k; ++k) {
    factors.predicted_a.push_back(foreseen.lifted[index(k)].value);
    factors.predicted_b.push_back(foreseen.right[index(k * product.n + at.col)].value);
  }
  return factors;
}

/// Terms, sums and the a-priori bound, whose parts are returned; and the running bound, where it applies.
/// `named` has the tokens and slots of the terms, where they have any.
std::vector<BoundPart> derive_sum(const Factors& factors, std::vector<ProductTerm> named, std::size_t terms,
                                  Derivation& derivation) {
  const auto n = std::ssize(factors.b);
  std::vector<double> a;
  std::vector<double> b;
  named.resize(factors.b.size());
  for (std::size_t k = 0; k < factors.b.size(); ++k) {
    a.push_back(factors.a[k].ref);
    b.push_back(factors.b[k].ref);
    ProductTerm& term = named[k];
    term.k = static_cast<std::int64_t>(k);
    term.a = a[k];
    term.width = radius(factors.a[k]);
    term.b = b[k];
    term.right_width = radius(factors.b[k]);
    term.product = term.a * term.b;
  }
  list_terms(std::move(named), terms, derivation);
  const double u = factors.unit_roundoff;
  const double c = product_bound_constant(n, u);
  const ElementBound bound =
      element_bound(factors.accumulator, u, factors.a, std::span<const Interval>(factors.b));
  derivation.magnitude = bound.magnitude;
  derivation.sums =
      partial_sums({a, b, factors.predicted_a, factors.predicted_b},
                   parse_accumulator(derivation.accumulator.empty() ? "unknown" : derivation.accumulator));
  std::vector<BoundPart> parts;
  parts.push_back(sum_in_any_order("|a||b|", n, u, bound.magnitude));
  if (bound.carried > 0.0)
    parts.push_back({"carried: sum of (width of a) |b| and |a| (width of b), and C(n) times that",
                     bound.carried * (1.0 + c)});
  parts.push_back({"underflow: n 2^-149", static_cast<double>(n) * 0x1p-149});
  if (!bound.ordered) return parts;
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
  return parts;
}

std::string operands_of(ProductId id, const PrecisionContract& contract, std::string_view over) {
  const bool late = weight_after_product(contract);
  const auto left = late && row(id).left == Field::d_second_gemm ? Field::d_hidden_states : row(id).left;
  const std::string_view weighted =
      late && id == ProductId::down_dw ? "w times the activation, rounded: " : "";
  return fmt::format("a: {}, b: {}{}, summed over {}", name(left), weighted, name(row(id).right), over);
}

}  // namespace

BoundPart sum_in_any_order(std::string_view terms, std::int64_t n, double u, double magnitude) {
  const double c = product_bound_constant(n, u);
  return {fmt::format("C(n) sum {}, any order: C = n u / (1 - n u) = {:.3g}, n = {}, u = 2^{}, sum {:.6g}",
                      terms, c, n, std::ilogb(u), magnitude),
          c * magnitude};
}

std::vector<PartialSum> partial_sums(const SumOperands& operands, const Accumulator& accumulator) {
  std::vector<PartialSum> sums;
  const auto n = std::ssize(operands.b);
  const auto a = operands.predicted_a;
  const auto b = operands.predicted_b;
  const bool replay = !a.empty() && finite(a) && finite(b);
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
    const std::size_t at = index(begin);
    const std::size_t length = index(end - begin);
    PartialSum sum{begin, end, 0.0, {}, {}};
    for (std::size_t k = at; k < at + length; ++k) exact += operands.a[k] * operands.b[k];
    sum.exact = exact;
    if (replay && accumulator.kind == AccumulatorKind::Fp32Sequential) {
      for (std::size_t i = at; i < at + length; ++i) running += a[i] * b[i];
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

void list_terms(std::vector<ProductTerm> all, std::size_t count, Derivation& derivation) {
  derivation.terms = std::ssize(all);
  const std::size_t shown = std::min(count, all.size());
  std::ranges::partial_sort(all, all.begin() + static_cast<std::ptrdiff_t>(shown), std::greater(),
                            [](const ProductTerm& t) { return std::fabs(t.product); });
  all.resize(shown);
  derivation.largest = std::move(all);
}

void derive_product(const ElementLayer& at, std::size_t terms, Derivation& derivation) {
  const ProductId id = *product_of(derivation.field);
  derivation.operands =
      operands_of(id, *at.layer->contract, fmt::format("k: columns ({})", symbol(row(id).summed)));
  derivation.bound = derive_sum(factors_along_columns(id, at), {}, terms, derivation);
}

void derive_weight_gradient(const ElementLayer& at, std::size_t terms, Derivation& derivation) {
  const ProductId id = *product_of(derivation.field);
  const Layer& layer = *at.layer;
  const bool by_expert = row(id).summed == Dim::S;
  std::vector<ProductTerm> named;
  for (const std::int64_t r : summed_rows(id, layer, at.expert)) {
    const std::int64_t top_k = layer.config().top_k;
    const std::int64_t slot = by_expert ? layer.routing.gather[index(r)] : r * top_k;
    named.push_back({.token = at.tokens[index(slot / top_k)], .slot = by_expert ? slot % top_k : -1});
  }
  derivation.operands = operands_of(
      id, *layer.contract,
      by_expert ? fmt::format(
                      "k: the {} row{} of expert {}{}", named.size(), named.size() == 1 ? "" : "s", at.expert,
                      layer.contract->weight_gradient_rows == RowOrder::BySlot ? ", slot by slot" : "")
                : "k: tokens");
  const bool no_rows = named.empty();
  derivation.bound = derive_sum(factors_over_rows(id, at, by_expert ? at.row : at.expert), std::move(named),
                                terms, derivation);
  if (no_rows)
    derivation.steps.push_back({fmt::format("expert {} has no rows", at.expert), "an empty sum: 0, exactly",
                                Bounded::exact(0.0), at.predict ? std::optional(0.0f) : std::nullopt});
}

void derive_input_gradient(const ElementLayer& at, std::size_t terms, Derivation& derivation) {
  const Layer& layer = *at.layer;
  const PrecisionContract& contract = *layer.contract;
  const Factors factors = factors_along_columns(ProductId::router_dx, at);
  derivation.operands = operands_of(ProductId::router_dx, contract, "k: experts (E)");
  derive_sum(factors, {}, terms, derivation);
  const std::int64_t i = at.token * layer.config().hidden_size + at.col;
  const Interval experts = at.read(Field::d_experts_hidden_states, i);
  const Interval router =
      product_values<Bounded>(ProductId::router_dx, layer, at.bounded_of(Field::d_router_logits))[index(i)];
  const Interval kept = stored(router, contract.gradients);
  std::optional<float> product;
  std::optional<float> rounded;
  std::optional<float> sum;
  if (at.predict) {
    const auto predicted = product_values<Predicted>(ProductId::router_dx, layer,
                                                     at.predicted_of(Field::d_router_logits))[index(i)];
    product = predicted.value;
    const PredictedValue part = stored(predicted, contract.gradients);
    rounded = part.value;
    sum = add(at.foresee(Field::d_experts_hidden_states, i), part).value;
  }
  auto& steps = derivation.steps;
  steps.push_back({"e: the experts' part", "d_experts_hidden_states: the token's slots added up", experts,
                   at.foreseen(Field::d_experts_hidden_states, i)});
  steps.push_back({"r: the router's part", "d_router_logits times gate, the sum above", router, product});
  if (contract.gradients == Store::Bf16)
    steps.push_back({"r, stored as bf16", "a declared rounding", kept, rounded});
  steps.push_back({"e + r", "added in fp32, before the last rounding", derivation.value, sum});
  derivation.bound.push_back(
      {contract.gradients == Store::Bf16
           ? "the router's product, C(n) sum |a||b|, after its declared rounding to bf16"
           : "the router's product, C(n) sum |a||b|",
       radius(kept)});
  if (radius(experts) > 0.0) derivation.bound.push_back({"carried from the experts' part", radius(experts)});
  derivation.bound.push_back(
      {"one addition in fp32: u |e + r|", contract.unit_roundoff * std::fabs(derivation.value.ref)});
}

}  // namespace assay
