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
/// operand of a field in expert order is gathered. Right is one matrix per expert, or one for all. Under
/// WeightSide::AfterProduct the rows of d_hidden_states stand in for d_second_gemm, and rb(weight *
/// activation), a tensor that is no field, for the intermediate of down_dw.
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
  Unpermute,       // rows from expert order to slot order
  Merge,           // weighted rows summed over a token's slots
  WeightedRows,    // the output's gradient times the slot's weight
  RowDots,         // dot products of the output's gradient with the slots' rows
  ActivationDots,  // of the activations with d_intermediate's product, before the weight
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
  {Field::d_intermediate,           StepKind::Product,      &Rounds::gradients,        {Field::d_second_gemm, Field::down_proj, Field::token_counts_by_expert}},
  {Field::d_topk_weights,           StepKind::RowDots,      &Rounds::gradients,        {Field::d_hidden_states, Field::hidden_states_unpermute}},
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

constexpr bool weight_after_product(const PrecisionContract& contract) {
  return contract.weight_side == WeightSide::AfterProduct;
}
constexpr bool weights_from_activation(const PrecisionContract& contract) {
  return contract.d_weights_from == WeightGradientFrom::Activation;
}

/// A step that stands in for that of kSteps under some contracts.
struct OtherStep {
  bool (*holds)(const PrecisionContract& contract);
  StepRow step;
};

// clang-format off
inline constexpr OtherStep kOtherSteps[] = {
  {weight_after_product,    {Field::d_intermediate, StepKind::Product,        &Rounds::gradients,        {Field::d_hidden_states, Field::down_proj, Field::topk_weights, Field::gather_indices}}},
  {weight_after_product,    {Field::d_down_proj,    StepKind::Product,        &Rounds::weight_gradients, {Field::d_hidden_states, Field::topk_weights, Field::first_gemm, Field::gather_indices}}},
  {weight_after_product,    {Field::d_first_gemm,   StepKind::SwigluGrad,     &Rounds::gradients,        {Field::d_intermediate, Field::topk_weights, Field::first_gemm, Field::gather_indices}}},
  {weights_from_activation, {Field::d_topk_weights, StepKind::ActivationDots, &Rounds::gradients,        {Field::d_intermediate, Field::first_gemm, Field::gather_indices}}},
};
// clang-format on

constexpr bool given(Field field) {
  return row(field).group == Group::Inputs || row(field).group == Group::Weights;
}

/// The step that makes a computed field; null for inputs and weights.
constexpr const StepRow* find_step(Field made) {
  for (const StepRow& step : kSteps)
    if (step.made == made) return &step;
  return nullptr;
}

/// The same under a contract.
constexpr const StepRow* find_step(Field made, const PrecisionContract& contract) {
  for (const OtherStep& other : kOtherSteps)
    if (other.step.made == made && other.holds(contract)) return &other.step;
  return find_step(made);
}

/// How the contract keeps a field: what is given is bf16.
constexpr Store store_of(Field field, const PrecisionContract& contract) {
  const StepRow* step = find_step(field);
  if (weight_after_product(contract) && (field == Field::d_second_gemm || field == Field::d_intermediate))
    return Store::Unrounded;
  return step == nullptr || step->stored == nullptr ? Store::Bf16 : contract.*step->stored;
}

/// Whether the field is the gradient of a weight: a pass may add it to what was there before, and keep it in
/// float32.
constexpr bool is_weight_gradient(Field field) {
  const StepRow* step = find_step(field);
  return step != nullptr && step->stored == &Rounds::weight_gradients;
}

/// Whether a field that a contract does not round is stored in float32: weights' gradients, and what the
/// router hands on. Of others the unrounded values are in no file.
constexpr bool may_be_float32(Field field) {
  const StepRow* step = find_step(field);
  return is_weight_gradient(field) ||
         (step != nullptr && (step->stored == &Rounds::logits || step->stored == &Rounds::weights ||
                              step->stored == &Rounds::d_logits));
}

/// The type in which candidates that follow the contract store a field. What the oracle keeps in float64 is
/// bf16 in files like theirs.
constexpr DType dtype_of(Field field, const PrecisionContract& contract) {
  const bool wide = may_be_float32(field) && store_of(field, contract) == Store::Unrounded &&
                    contract.unit_roundoff == kFp32UnitRoundoff;
  return wide ? DType::Float32 : row(field).dtype;
}

/// Whether the step reads the field from memory. Else it sees what a kernel holds in registers in its place
/// (reference_cpu/evaluator.h), whatever a candidate wrote. A float64 layer stores what it does not round.
constexpr bool in_memory(Field reader, Field read, const PrecisionContract& contract) {
  if (given(read) || contract.unit_roundoff < kFp32UnitRoundoff) return true;
  if (store_of(read, contract) == Store::Unrounded) return dtype_of(read, contract) == DType::Float32;
  if (reader == Field::d_down_proj && read == Field::intermediate) return !weight_after_product(contract);
  return !(reader == Field::intermediate && read == Field::first_gemm &&
           contract.swiglu_reads == From::Registers);
}

/// Every computed field after all that it reads under any contract, ties in the table's order. Those left out
/// hang on a cycle.
constexpr std::pair<std::array<Field, kStepCount>, std::size_t> order_of_evaluation() {
  std::array<Field, kStepCount> order{};
  std::array<bool, kFieldCount> known{};
  for (const FieldRow& field : kFields) known[static_cast<std::size_t>(field.id)] = given(field.id);
  std::size_t count = 0;
  for (std::size_t pass = 0; pass < kStepCount; ++pass)
    for (const StepRow& step : kSteps) {
      bool ready = !known[static_cast<std::size_t>(step.made)];
      for (const auto& read : step.reads) ready = ready && (!read || known[static_cast<std::size_t>(*read)]);
      for (const OtherStep& other : kOtherSteps)
        for (const auto& read : other.step.reads)
          ready = ready && (other.step.made != step.made || !read || known[static_cast<std::size_t>(*read)]);
      if (!ready) continue;
      known[static_cast<std::size_t>(step.made)] = true;
      order[count++] = step.made;
    }
  return {order, count};
}
inline constexpr auto kEvaluationOrder = order_of_evaluation().first;
static_assert(order_of_evaluation().second == kStepCount, "the layer's graph has a cycle");

/// Whether an error of `earlier` can reach `later`: under `hf`, and under a contract.
bool descends_from(Field later, Field earlier);
bool descends_from(Field later, Field earlier, const PrecisionContract& contract);

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
/// from. Under `hf`, and under a contract.
std::span<const Field> upstream_of(Field field);
std::span<const Field> upstream_of(Field field, const PrecisionContract& contract);

/// Steps that read the field, likewise.
std::span<const Field> readers_of(Field field);
std::span<const Field> readers_of(Field field, const PrecisionContract& contract);

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
constexpr bool other_steps_change_reads_alone() {
  for (const OtherStep& other : kOtherSteps) {
    const StepRow* step = find_step(other.step.made);
    if (step == nullptr || step->stored != other.step.stored) return false;
    if ((step->kind == StepKind::Product) != (other.step.kind == StepKind::Product)) return false;
  }
  return true;
}
static_assert(other_steps_change_reads_alone(), "a field is kept alike, and a product or none, however made");
static_assert(graph_is_whole(),
              "every computed field has one step and what is no integer a rounding, row i of kProducts "
              "describes product i, and steps read their products' operands");

std::optional<ProductId> find_product(std::string_view name);

}  // namespace assay
