// Where the weight comes after the product with down_proj: what a slot's weight is applied to, and its
// gradient, formed from the activation.
#include "reference_cpu/explain/explain.h"

#include <cmath>

#include <fmt/format.h>

#include "harness/contract/layer.h"
#include "harness/contract/product_bound.h"
#include "reference_cpu/product/layer_product.h"

namespace assay {
namespace {

std::int64_t slot_of(const ElementLayer& at) { return at.token * at.layer->config().top_k + at.slot; }

}  // namespace

LateWeight late_weight(const ElementLayer& at, std::int64_t col, Derivation& derivation) {
  const PrecisionContract& contract = *at.layer->contract;
  const std::int64_t i = at.row * at.layer->config().moe_intermediate_size + col;
  const std::int64_t slot = slot_of(at);
  const Interval product = product_values<Bounded>(ProductId::down_dx, *at.layer, nullptr)[index(i)];
  const Interval weight = at.read(Field::topk_weights, slot);
  LateWeight late{multiply(product, weight, contract.unit_roundoff), {}};
  std::optional<float> foreseen;
  std::optional<float> predicted;
  if (at.predict) {
    const PredictedValue of_product =
        product_values<Predicted>(ProductId::down_dx, *at.layer, nullptr)[index(i)];
    late.predicted = multiply(of_product, at.foresee(Field::topk_weights, slot));
    foreseen = of_product.value;
    predicted = late.predicted.value;
  }
  auto& steps = derivation.steps;
  steps.push_back({fmt::format("p: d_hidden_states times down_proj, col {}", col),
                   "the product without the weight, in fp32", product, foreseen});
  steps.push_back({fmt::format("w: topk_weights, slot {} (expert {})", at.slot, at.expert), "", weight,
                   at.foreseen(Field::topk_weights, slot)});
  steps.push_back({"p w", "product in fp32", late.value, predicted});
  return late;
}

void weigh_product(const ElementLayer& at, Derivation& derivation) {
  const std::vector<BoundPart> parts = std::move(derivation.bound);
  double of_product = 0.0;
  for (const BoundPart& part : parts) of_product += part.value;
  late_weight(at, at.col, derivation);
  const Interval weight = at.read(Field::topk_weights, slot_of(at));
  derivation.bound = {{"the product's bound, C(n) sum |a||b|, times w", of_product * std::fabs(weight.high)}};
  if (radius(weight) > 0.0)
    derivation.bound.push_back(
        {"carried from w: |p| (width of w)", std::fabs(derivation.value.ref / weight.ref) * radius(weight)});
  derivation.bound.push_back({"the product with w in fp32: u |p w|",
                              at.layer->contract->unit_roundoff * std::fabs(derivation.value.ref)});
}

void derive_activation_dot(const ElementLayer& at, std::size_t terms, Derivation& derivation) {
  const PrecisionContract& contract = *at.layer->contract;
  const std::int64_t width = at.layer->config().moe_intermediate_size;
  const auto activation = recomputed_activation<Bounded>(*at.layer, *at.bounded_of(Field::first_gemm));
  const auto& products = *at.bounded_of(Field::d_intermediate);
  const std::int64_t first = rows_of_slots(*at.layer)[index(slot_of(at))] * width;
  std::vector<ProductTerm> all;
  std::vector<double> values;
  double carried = 0.0;
  double rounded = 0.0;
  for (std::int64_t i = 0; i < width; ++i) {
    const Interval a = activation[index(first + i)];
    const Interval p = products[index(first + i)];
    const Interval term = multiply(a, p, contract.unit_roundoff);
    all.push_back(
        {.k = i, .a = a.ref, .width = radius(a), .b = p.ref, .right_width = radius(p), .product = term.ref});
    values.push_back(term.ref);
    derivation.magnitude += std::fabs(term.ref);
    carried += radius(term);
    rounded += 2.0 * contract.unit_roundoff * std::fabs(term.ref);
  }
  derivation.operands =
      "a: the activation recomputed from first_gemm, b: d_hidden_states times down_proj, summed over k: "
      "columns "
      "(I)";
  list_terms(std::move(all), terms, derivation);
  const std::vector<double> ones(values.size(), 1.0);
  derivation.sums = partial_sums({values, ones, {}, {}}, {});
  std::optional<float> predicted;
  if (at.predict)
    predicted = activation_dots<Predicted>(*at.layer, *at.predicted_of(Field::d_intermediate),
                                           *at.predicted_of(Field::first_gemm))[index(slot_of(at))]
                    .value;
  derivation.steps.push_back({fmt::format("sum of {} products", width),
                              "fp32, in any order, before the last rounding", derivation.value, predicted});
  const double u = contract.product_unit_roundoff();
  const double c = product_bound_constant(width, u);
  derivation.bound.push_back(sum_in_any_order("|a p|", width, u, derivation.magnitude));
  derivation.bound.push_back({"carried: sum of the terms' widths, and C(n) times that", carried * (1.0 + c)});
  derivation.bound.push_back(
      {"each term rounded or fused: 2 u |a p|, and C(n) times that", rounded * (1.0 + c)});
}

}  // namespace assay
