// Gradients that are no matrix products, step by step: of the merge and of SwiGLU.
#include "reference_cpu/explain/explain.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "harness/contract/layer.h"
#include "harness/contract/product_bound.h"
#include "reference_cpu/expf_sm90.h"

namespace assay {
namespace {

/// SwiGLU's gradient of one row and one column, the stage itself: that of the gate half, then of the up half.
template <class A>
std::array<typename A::Value, 2> swiglu_gradient_of(const PrecisionContract& contract,
                                                    const typename A::Value& d_intermediate,
                                                    const typename A::Value& gate,
                                                    const typename A::Value& up) {
  const OneElementLayer one(contract);
  const auto both = act_and_mul_grad<A>(one.layer, Values<A>{d_intermediate}, Values<A>{gate, up});
  return {both[0], both[1]};
}

/// What one fp32 operation at the end may add to a half width.
BoundPart last_operation(const PrecisionContract& contract, const Derivation& derivation, std::string what) {
  return {std::move(what), contract.unit_roundoff * std::fabs(derivation.value.ref)};
}

double output_gradient(const ElementLayer& at, std::int64_t col) {
  const std::int64_t width = at.layer->config().hidden_size;
  return to_float(at.layer->problem->output_gradient.as<Bf16>()[index(at.token * width + col)]);
}

struct GradientOfRow {
  Interval d;  // d_intermediate
  Interval a;  // gate half
  Interval b;  // up half
  PredictedValue predicted_d;
  PredictedValue predicted_a;
  PredictedValue predicted_b;
};

/// (d b) silu'(a), the product d b stored as bf16 where the contract does.
void derive_gate_half(const ElementLayer& at, const GradientOfRow& row, Derivation& derivation) {
  const PrecisionContract& contract = *at.layer->contract;
  const auto one = Bounded::exact(1.0);
  const Interval d_silu = multiply(row.d, row.b, contract.unit_roundoff);
  const Interval kept = stored(d_silu, contract.d_silu);
  const Interval slope = swiglu_gradient_of<Bounded>(contract, one, row.a, one)[0];
  const double s = 1.0 / (1.0 + std::exp(-row.a.ref));
  std::optional<float> predicted_silu;
  std::optional<float> predicted_kept;
  std::optional<float> predicted_s;
  std::optional<float> predicted_slope;
  std::optional<float> predicted;
  if (at.predict) {
    const PredictedValue product = multiply(row.predicted_d, row.predicted_b);
    predicted_silu = product.value;
    predicted_kept = stored(product, contract.d_silu).value;
    predicted_s = 1.0f / (1.0f + expf_sm90(-row.predicted_a.value).value);
    predicted_slope = 1.0f + row.predicted_a.value * (1.0f - *predicted_s);
    predicted =
        swiglu_gradient_of<Predicted>(contract, row.predicted_d, row.predicted_a, row.predicted_b)[0].value;
  }
  auto& steps = derivation.steps;
  steps.push_back({"d b", "product in fp32", d_silu, predicted_silu});
  if (contract.d_silu == Store::Bf16)
    steps.push_back({"d b, stored as bf16", "a declared rounding", kept, predicted_kept});
  steps.push_back({"s = sigma(a)", "1 / (1 + exp(-a))", Bounded::exact(s), predicted_s});
  steps.push_back({"f", "1 + a (1 - s)", Bounded::exact(1.0 + row.a.ref * (1.0 - s)), predicted_slope});
  steps.push_back({"silu'(a)", "s f", slope, {}});
  steps.push_back(
      {"d b s f", "products in fp32 from the left, before the last rounding", derivation.value, predicted});
  derivation.bound.push_back(
      // `slope` is seen after a rounding of its ends to fp32, which may have brought them nearer.
      {fmt::format(
           "expf to {} ulp and six operations of 2^-24 in s and f{}: |d b| (width of s f, and u |s f|)",
           contract.expf_ulps, radius(row.a) > 0.0 ? ", and the width of a" : ""),
       std::fabs(kept.ref) * (radius(slope) + contract.unit_roundoff * std::fabs(slope.ref))});
  if (radius(kept) > 0.0)
    derivation.bound.push_back({"carried from d and b, after the declared rounding: |s f| (width of d b)",
                                (std::fabs(slope.ref) + radius(slope)) * radius(kept)});
  derivation.bound.push_back(last_operation(contract, derivation, "the last product in fp32: u |d b s f|"));
  derivation.bound.push_back(
      {"products below 2^-126 may be flushed", 0x1p-126 * (2.0 + std::fabs(row.a.low))});
}

/// d silu(a), silu(a) stored as bf16 where the contract does.
void derive_up_half(const ElementLayer& at, const GradientOfRow& row, Derivation& derivation) {
  const PrecisionContract& contract = *at.layer->contract;
  PrecisionContract unrounded = contract;
  unrounded.silu = Store::Unrounded;
  const auto one = Bounded::exact(1.0);
  const auto silu_under = [&](const PrecisionContract& rule) {
    return swiglu_gradient_of<Bounded>(rule, one, row.a, one)[1];
  };
  const Interval kept = silu_under(contract);
  std::optional<float> predicted_silu;
  std::optional<float> predicted_kept;
  std::optional<float> predicted;
  if (at.predict) {
    const auto unit = Predicted::exact(1.0);
    predicted_silu = swiglu_gradient_of<Predicted>(unrounded, unit, row.predicted_a, unit)[1].value;
    predicted_kept = swiglu_gradient_of<Predicted>(contract, unit, row.predicted_a, unit)[1].value;
    predicted =
        swiglu_gradient_of<Predicted>(contract, row.predicted_d, row.predicted_a, row.predicted_b)[1].value;
  }
  auto& steps = derivation.steps;
  steps.push_back({"s = silu(a)", "a / (1 + exp(-a))", silu_under(unrounded), predicted_silu});
  if (contract.silu == Store::Bf16)
    steps.push_back({"s, stored as bf16", "a declared rounding", kept, predicted_kept});
  steps.push_back({"d s", "product in fp32, before the last rounding", derivation.value, predicted});
  derivation.bound.push_back(
      {fmt::format("silu: expf to {} ulp, an addition and a division{}{}: |d| (width of s)",
                   contract.expf_ulps, radius(row.a) > 0.0 ? ", and the width of a" : "",
                   contract.silu == Store::Bf16 ? ", after the declared rounding" : ""),
       std::fabs(row.d.ref) * radius(kept)});
  if (radius(row.d) > 0.0)
    derivation.bound.push_back(
        {"carried from d: |s| (width of d)", (std::fabs(kept.ref) + radius(kept)) * radius(row.d)});
  derivation.bound.push_back(last_operation(contract, derivation, "the product in fp32: u |d s|"));
}

}  // namespace

void derive_weighted_row(const ElementLayer& at, Derivation& derivation) {
  const double d = output_gradient(at, at.col);
  const std::int64_t slot = at.token * at.layer->config().top_k + at.slot;
  const Interval weight = at.read(Field::topk_weights, slot);
  auto& steps = derivation.steps;
  steps.push_back({fmt::format("d: d_hidden_states, token {}, col {}", at.tokens[index(at.token)], at.col),
                   "the output's gradient", Bounded::exact(d),
                   at.predict ? std::optional(static_cast<float>(d)) : std::nullopt});
  steps.push_back({fmt::format("w: topk_weights, slot {} (expert {})", at.slot, at.expert), "", weight,
                   at.foreseen(Field::topk_weights, slot)});
  std::optional<float> predicted;
  if (at.predict) predicted = multiply(Predicted::exact(d), at.foresee(Field::topk_weights, slot)).value;
  steps.push_back({"d w", "product in fp32, before the last rounding", derivation.value, predicted});
  const PrecisionContract& contract = *at.layer->contract;
  const bool exact = contract.weights == Store::Bf16;
  if (exact) derivation.bound.push_back({"a product of two bf16 values is exact in fp32", 0.0});
  if (radius(weight) > 0.0)
    derivation.bound.push_back({"carried from w: |d| (width of w)", std::fabs(d) * radius(weight)});
  if (radius(weight) > 0.0)
    derivation.bound.push_back(last_operation(contract, derivation, "its ends in fp32: u |d w|"));
  else if (!exact)
    derivation.bound.push_back(
        last_operation(contract, derivation, "a product with a float32 weight: u |d w|"));
}

void derive_row_dot(const ElementLayer& at, std::size_t terms, Derivation& derivation) {
  const PrecisionContract& contract = *at.layer->contract;
  const std::int64_t width = at.layer->config().hidden_size;
  const std::int64_t slot = at.token * at.layer->config().top_k + at.slot;
  const bool rounds = contract.d_weighted == Store::Bf16;
  std::vector<ProductTerm> all;
  std::vector<double> products;
  double carried = 0.0;
  for (std::int64_t h = 0; h < width; ++h) {
    const double d = output_gradient(at, h);
    const Interval y = at.read(Field::hidden_states_unpermute, slot * width + h);
    const Interval product =
        stored(multiply(Bounded::exact(d), y, contract.unit_roundoff), contract.d_weighted);
    all.push_back({.k = h, .a = d, .b = y.ref, .right_width = radius(y), .product = product.ref});
    products.push_back(product.ref);
    derivation.magnitude += std::fabs(product.ref);
    carried += radius(product);
  }
  derivation.operands =
      fmt::format("a: d_hidden_states, b: hidden_states_unpermute, summed over k: columns (H){}",
                  rounds ? "; each product is rounded to bf16" : "");
  list_terms(std::move(all), terms, derivation);
  // torch adds in an order of its own (a row among all rows), of which only the sum is shown.
  const std::vector<double> ones(products.size(), 1.0);
  derivation.sums = partial_sums({products, ones, {}, {}}, {});
  std::optional<float> predicted;
  if (at.predict)
    predicted =
        row_dots<Predicted>(*at.layer, *at.predicted_of(Field::hidden_states_unpermute))[index(slot)].value;
  derivation.steps.push_back({fmt::format("sum of {} products", width),
                              "fp32, in torch's order of a row's sum, before the last rounding",
                              derivation.value, predicted});
  const double u = contract.product_unit_roundoff();
  const double c = product_bound_constant(width, u);
  derivation.bound.push_back(sum_in_any_order("|d y|", width, u, derivation.magnitude));
  if (carried > 0.0)
    derivation.bound.push_back(
        {"carried: sum of the products' widths, and C(n) times that", carried * (1.0 + c)});
}

void derive_swiglu_gradient(const ElementLayer& at, Derivation& derivation) {
  const std::int64_t width = at.layer->config().moe_intermediate_size;
  const std::int64_t col = at.col % width;
  const std::int64_t gate_at = at.row * 2 * width + col;
  const std::int64_t d_at = at.row * width + col;
  const bool late = weight_after_product(*at.layer->contract);
  const LateWeight weighted = late ? late_weight(at, col, derivation) : LateWeight{};
  GradientOfRow row{late ? weighted.value : at.read(Field::d_intermediate, d_at),
                    at.read(Field::first_gemm, gate_at),
                    at.read(Field::first_gemm, gate_at + width),
                    {},
                    {},
                    {}};
  if (at.predict) {
    row.predicted_d = late ? weighted.predicted : at.foresee(Field::d_intermediate, d_at);
    row.predicted_a = at.foresee(Field::first_gemm, gate_at);
    row.predicted_b = at.foresee(Field::first_gemm, gate_at + width);
  }
  auto& steps = derivation.steps;
  if (late)
    steps.back().what = "d = p w";
  else
    steps.push_back(
        {fmt::format("d: d_intermediate, col {}", col), "", row.d, at.foreseen(Field::d_intermediate, d_at)});
  steps.push_back({fmt::format("a: first_gemm, col {}", col), "gate half", row.a,
                   at.foreseen(Field::first_gemm, gate_at)});
  const bool gate_half = at.col < width;
  if (gate_half)
    steps.push_back({fmt::format("b: first_gemm, col {}", width + col), "up half", row.b,
                     at.foreseen(Field::first_gemm, gate_at + width)});
  return gate_half ? derive_gate_half(at, row, derivation) : derive_up_half(at, row, derivation);
}

}  // namespace assay
