// The layer as a graph: what each computed field is made of. Order of evaluation, what descends from what,
// which accumulator belongs to which field and when memory can be given back all follow from it; nobody else
// repeats it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "harness/contract/field.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/product_id.h"

namespace assay {

/// out[r][n] = sum over k of left[r][k] right[n][k]. Left rows are tokens, or rows in expert order; a token
/// operand of a field in expert order is gathered. Right is one matrix per expert, or one for all.
struct ProductRow {
  ProductId id;
  std::string_view name;  // in files and on the command line
  Field made;             // of which it is the value, or the router's part (router_dx)
  Field left;
  Lies left_lies;
  Field right;
  Lies right_lies;
  Dim summed;  // Dim::S: the rows of one expert, in expert order
};

// clang-format off
inline constexpr std::array<ProductRow, kProductCount> kProducts = {{
  {ProductId::router,     "router",     Field::router_logits,            Field::input_hidden_states, Lies::AlongColumns, Field::gate,                Lies::AlongColumns, Dim::H},
  {ProductId::gate_up,    "gate_up",    Field::first_gemm,               Field::input_hidden_states, Lies::AlongColumns, Field::gate_up_proj,        Lies::AlongColumns, Dim::H},
  {ProductId::down,       "down",       Field::second_gemm,              Field::intermediate,        Lies::AlongColumns, Field::down_proj,           Lies::AlongColumns, Dim::I},
  {ProductId::down_dx,    "down_dx",    Field::d_intermediate,           Field::d_second_gemm,       Lies::AlongColumns, Field::down_proj,           Lies::AlongRows,    Dim::H},
  {ProductId::down_dw,    "down_dw",    Field::d_down_proj,              Field::d_second_gemm,       Lies::AlongRows,    Field::intermediate,        Lies::AlongRows,    Dim::S},
  {ProductId::gate_up_dx, "gate_up_dx", Field::d_permuted_hidden_states, Field::d_first_gemm,        Lies::AlongColumns, Field::gate_up_proj,        Lies::AlongRows,    Dim::TwoI},
  {ProductId::gate_up_dw, "gate_up_dw", Field::d_gate_up_proj,           Field::d_first_gemm,        Lies::AlongRows,    Field::input_hidden_states, Lies::AlongRows,    Dim::S},
  {ProductId::router_dx,  "router_dx",  Field::d_input_hidden_states,    Field::d_router_logits,     Lies::AlongColumns, Field::gate,                Lies::AlongRows,    Dim::E},
  {ProductId::router_dw,  "router_dw",  Field::d_gate,                   Field::d_router_logits,     Lies::AlongRows,    Field::input_hidden_states, Lies::AlongRows,    Dim::T},
}};
// clang-format on

constexpr const ProductRow& row(ProductId id) { return kProducts[static_cast<std::size_t>(id)]; }
constexpr std::string_view name(ProductId id) { return row(id).name; }

/// What a step does with the fields it reads.
enum class StepKind {
  Product,    // a matrix product is the field's value
  Selection,  // top-k of the router's probabilities
  Weights,    // the chosen probabilities, renormalised or not
  Counts,     // rows per expert
  Order,      // slots sorted by expert
  Swiglu,
  Unpermute,     // rows from expert order to slot order
  Merge,         // weighted rows summed over a token's slots
  WeightedRows,  // the output's gradient times the slot's weight
  RowDots,       // dot products of the output's gradient with the slots' rows
  SwigluGrad,
  SoftmaxGrad,  // through renormalisation and softmax, to all logits
  Combine,      // a token's slots added up
  AddRouter,    // the router's product added
};

inline constexpr std::size_t kMostReads = 4;

using Rounds = PrecisionContract;

/// How one field is computed. Fields of routing are read as indices.
struct StepRow {
  Field made;
  StepKind kind;
  Store Rounds::* stored;  // the contract's word on how the value is kept; null for integers
  std::array<std::optional<Field>, kMostReads> reads;
};

// clang-format off
inline constexpr StepRow kSteps[] = {
  {Field::router_logits,            StepKind::Product,      &Rounds::logits,           {Field::input_hidden_states, Field::gate}},
  {Field::selected_experts,         StepKind::Selection,    nullptr,                   {Field::router_logits}},
  {Field::topk_weights,             StepKind::Weights,      &Rounds::weights,          {Field::router_logits, Field::selected_experts}},
  {Field::token_counts_by_expert,   StepKind::Counts,       nullptr,                   {Field::selected_experts}},
  {Field::gather_indices,           StepKind::Order,        nullptr,                   {Field::selected_experts}},
  {Field::first_gemm,               StepKind::Product,      &Rounds::first_gemm,       {Field::input_hidden_states, Field::gate_up_proj, Field::gather_indices}},
  {Field::intermediate,             StepKind::Swiglu,       &Rounds::intermediate,     {Field::first_gemm}},
  {Field::second_gemm,              StepKind::Product,      &Rounds::second_gemm,      {Field::intermediate, Field::down_proj, Field::token_counts_by_expert}},
  {Field::hidden_states_unpermute,  StepKind::Unpermute,    &Rounds::second_gemm,      {Field::second_gemm, Field::gather_indices}},
  {Field::hidden_states,            StepKind::Merge,        &Rounds::output,           {Field::hidden_states_unpermute, Field::topk_weights, Field::selected_experts}},
  {Field::d_second_gemm,            StepKind::WeightedRows, &Rounds::gradients,        {Field::d_hidden_states, Field::topk_weights, Field::gather_indices}},
  {Field::d_topk_weights,           StepKind::RowDots,      &Rounds::gradients,        {Field::d_hidden_states, Field::hidden_states_unpermute}},
  {Field::d_intermediate,           StepKind::Product,      &Rounds::gradients,        {Field::d_second_gemm, Field::down_proj, Field::token_counts_by_expert}},
  {Field::d_down_proj,              StepKind::Product,      &Rounds::weight_gradients, {Field::d_second_gemm, Field::intermediate, Field::token_counts_by_expert}},
  {Field::d_first_gemm,             StepKind::SwigluGrad,   &Rounds::gradients,        {Field::d_intermediate, Field::first_gemm}},
  {Field::d_permuted_hidden_states, StepKind::Product,      &Rounds::gradients,        {Field::d_first_gemm, Field::gate_up_proj, Field::token_counts_by_expert}},
  {Field::d_gate_up_proj,           StepKind::Product,      &Rounds::weight_gradients, {Field::d_first_gemm, Field::input_hidden_states, Field::gather_indices}},
  {Field::d_router_logits,          StepKind::SoftmaxGrad,  &Rounds::d_logits,         {Field::d_topk_weights, Field::router_logits, Field::selected_experts}},
  {Field::d_gate,                   StepKind::Product,      &Rounds::weight_gradients, {Field::d_router_logits, Field::input_hidden_states}},
  {Field::d_experts_hidden_states,  StepKind::Combine,      &Rounds::gradients,        {Field::d_permuted_hidden_states, Field::gather_indices}},
  {Field::d_input_hidden_states,    StepKind::AddRouter,    &Rounds::gradients,        {Field::d_experts_hidden_states, Field::d_router_logits, Field::gate}},
};
// clang-format on

inline constexpr std::size_t kStepCount = std::size(kSteps);

constexpr bool given(Field field) {
  return row(field).group == Group::Inputs || row(field).group == Group::Weights;
}

/// The step that makes a computed field; null for inputs and weights.
constexpr const StepRow* find_step(Field made) {
  for (const StepRow& step : kSteps)
    if (step.made == made) return &step;
  return nullptr;
}

/// How the contract keeps a field: what is given is bf16.
constexpr Store store_of(Field field, const PrecisionContract& contract) {
  const StepRow* step = find_step(field);
  return step == nullptr || step->stored == nullptr ? Store::Bf16 : contract.*step->stored;
}

/// Whether the field is the gradient of a weight: a pass may add it to what was there before, and keep it in
/// float32.
constexpr bool is_weight_gradient(Field field) {
  const StepRow* step = find_step(field);
  return step != nullptr && step->stored == &Rounds::weight_gradients;
}

/// The type in which candidates that follow the contract store a field. What the oracle keeps in float64 is
/// bf16 in files like theirs.
constexpr DType dtype_of(Field field, const PrecisionContract& contract) {
  const bool main_gradient = is_weight_gradient(field) && contract.weight_gradients == Store::Unrounded &&
                             contract.unit_roundoff == kFp32UnitRoundoff;
  return main_gradient ? DType::Float32 : row(field).dtype;
}

/// Every computed field after all that it reads, ties in the table's order. Those left out hang on a cycle.
constexpr std::pair<std::array<Field, kStepCount>, std::size_t> order_of_evaluation() {
  std::array<Field, kStepCount> order{};
  std::array<bool, kFieldCount> known{};
  for (const FieldRow& field : kFields) known[static_cast<std::size_t>(field.id)] = given(field.id);
  std::size_t count = 0;
  for (std::size_t pass = 0; pass < kStepCount; ++pass)
    for (const StepRow& step : kSteps) {
      bool ready = !known[static_cast<std::size_t>(step.made)];
      for (const auto& read : step.reads) ready = ready && (!read || known[static_cast<std::size_t>(*read)]);
      if (!ready) continue;
      known[static_cast<std::size_t>(step.made)] = true;
      order[count++] = step.made;
    }
  return {order, count};
}
inline constexpr auto kEvaluationOrder = order_of_evaluation().first;
static_assert(order_of_evaluation().second == kStepCount, "the layer's graph has a cycle");

/// Bit i is set where field i is on a way to the field.
constexpr std::array<std::uint32_t, kFieldCount> ancestors() {
  static_assert(kFieldCount <= 32);
  std::array<std::uint32_t, kFieldCount> all{};
  for (const Field made : kEvaluationOrder)
    for (const auto& read : find_step(made)->reads)
      if (read)
        all[static_cast<std::size_t>(made)] |=
            all[static_cast<std::size_t>(*read)] | std::uint32_t{1} << static_cast<std::size_t>(*read);
  return all;
}
inline constexpr auto kAncestors = ancestors();

/// Whether an error of `earlier` can reach `later`.
constexpr bool descends_from(Field later, Field earlier) {
  return (kAncestors[static_cast<std::size_t>(later)] >> static_cast<std::size_t>(earlier) & 1u) != 0;
}

/// The product that is the field's value; none for other steps, d_input_hidden_states among them.
constexpr std::optional<ProductId> product_of(Field field) {
  const StepRow* step = find_step(field);
  if (step == nullptr || step->kind != StepKind::Product) return std::nullopt;
  for (const ProductRow& product : kProducts)
    if (product.made == field) return product.id;
  return std::nullopt;
}

/// Whether the product's right operand is one matrix per expert.
constexpr bool per_expert(const ProductRow& product) {
  return product.summed == Dim::S || row(product.right).rows == RowsAre::ExpertMatrix;
}

/// Computed values that the field's step reads beside the problem and the routing: what its interval inherits
/// from.
std::span<const Field> upstream_of(Field field);

/// Steps that read the field.
std::span<const Field> readers_of(Field field);

constexpr bool graph_is_whole() {
  for (const FieldRow& field : kFields)
    if (given(field.id) == (find_step(field.id) != nullptr)) return false;
  for (const StepRow& step : kSteps)
    if ((row(step.made).dtype == DType::Int32) != (step.stored == nullptr)) return false;
  for (std::size_t i = 0; i < kProductCount; ++i) {
    const ProductRow& product = kProducts[i];
    if (product.id != static_cast<ProductId>(i)) return false;
    bool left = false;
    bool right = false;
    for (const auto& read : find_step(product.made)->reads) {
      left = left || read == product.left;
      right = right || read == product.right;
    }
    if (!left || !right) return false;
  }
  for (const StepRow& step : kSteps)
    if ((step.kind == StepKind::Product) != product_of(step.made).has_value()) return false;
  return true;
}
static_assert(graph_is_whole(),
              "every computed field has one step and what is no integer a rounding, row i of kProducts "
              "describes product i, and steps read their products' operands");

std::optional<ProductId> find_product(std::string_view name);

}  // namespace assay
