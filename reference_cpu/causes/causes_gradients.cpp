// Hypotheses about the steps of the backward pass but gradients of weights (causes_weight_gradients.cpp):
// each is a fault that the predicted arithmetic can compute (planted/planted_gradients.h), tried on the
// values that the step read.
#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"
#include "reference_cpu/causes/hypotheses.h"
#include "reference_cpu/planted/planted_gradients.h"

namespace assay {
namespace {

using enum Field;
using K = FaultKind;

constexpr std::int64_t kTriedElements = std::int64_t{1}
                                        << 24;  // of a field: more would take longer than judging
constexpr std::int64_t kEachSlot = -1;          // tried for every slot of a token
constexpr std::int64_t kEachPower = -2;         // for 1, 2, 4, ... 64

struct GradientTrial {
  std::string_view id;
  FieldMask fields;
  Fault fault;
  std::string_view sentence;  // {} is the amount
};

// clang-format off
const GradientTrial kTrials[] = {
  {"weight_not_applied",   fields_of(d_second_gemm, d_first_gemm, d_down_proj), {.kind = K::NoWeights}, "the weights are not applied"},
  {"weight_twice",         fields_of(d_second_gemm, d_topk_weights, d_experts_hidden_states, d_first_gemm, d_down_proj), {.kind = K::WeightTwice}, "the weight is applied once more"},
  {"weights_permuted",     fields_of(d_second_gemm, d_topk_weights, d_router_logits), {.kind = K::SwapWeights}, "slots 0 and 1 are exchanged"},
  {"weights_of_token",     fields_of(d_second_gemm), {.kind = K::WeightsModulo, .amount = kEachPower}, "tokens take the weights of the first {}, over and over"},
  {"wrong_token",          fields_of(d_second_gemm, d_topk_weights), {.kind = K::SlotForToken}, "the token numbered as the slot is read"},
  {"wrong_token",          fields_of(d_topk_weights), {.kind = K::RowsInExpertOrder}, "rows in expert order are read as if in slot order"},
  {"product_unrounded",    fields_of(d_topk_weights), {.kind = K::WeightedUnrounded}, "products are not rounded before the sum over H"},
  {"divided_by_weight",    fields_of(d_topk_weights), {.kind = K::DividedByWeight}, "formed as sum of intermediate times its gradient, over the stored weight"},
  {"bf16_accumulation",    fields_of(d_topk_weights), {.kind = K::AccumulateBf16}, "the running sum is rounded to bf16 after every term"},
  {"k_dropped",            fields_of(d_topk_weights), {.kind = K::DropLastK, .amount = kEachPower}, "the last {} terms of the sum are missing"},
  {"previous_overwritten", fields_of(d_down_proj, d_gate_up_proj, d_gate), {.kind = K::PreviousOverwritten}, "what was there before is overwritten, not added to"},
  {"gradient_not_added",   fields_of(d_down_proj, d_gate_up_proj, d_gate), {.kind = K::ProductDropped}, "what was there before stays: this pass's gradient is not added"},
  {"added_twice",          fields_of(d_down_proj, d_gate_up_proj, d_gate), {.kind = K::ProductTwice}, "this pass's gradient is added twice"},
  {"added_twice",          fields_of(d_down_proj, d_gate_up_proj, d_gate), {.kind = K::PreviousTwice}, "what was there before counts twice"},
  {"previous_of_neighbour", fields_of(d_down_proj, d_gate_up_proj, d_gate), {.kind = K::PreviousOfNeighbour}, "the gradient is added to what the next expert had"},
  {"product_unrounded",    fields_of(d_down_proj, d_gate_up_proj, d_gate), {.kind = K::ProductUnrounded}, "the product is not rounded before it is added to what was there"},
  {"product_rounded",      fields_of(d_down_proj, d_gate_up_proj, d_gate), {.kind = K::ProductRounded}, "the product is rounded before it is added to what was there, or stored"},
  {"gate_up_swapped",      fields_of(d_first_gemm, d_permuted_hidden_states), {.kind = K::SwapGateUp}, "gate and up halves are exchanged"},
  {"gate_up_interleaved",  fields_of(d_first_gemm), {.kind = K::InterleavedGateUp}, "gate and up columns are written as interleaved pairs"},
  {"k_dropped",            fields_of(d_permuted_hidden_states), {.kind = K::HalfZero, .amount = 0}, "the gate half of the sum is missing"},
  {"k_dropped",            fields_of(d_permuted_hidden_states), {.kind = K::HalfZero, .amount = 1}, "the up half of the sum is missing"},
  {"up_not_multiplied",    fields_of(d_first_gemm), {.kind = K::UpIgnored}, "the gate half is not multiplied by the up half"},
  {"wrong_token",          fields_of(d_first_gemm), {.kind = K::UpOfNextRow}, "the up half is that of the row after"},
  {"wrong_activation",     fields_of(d_first_gemm), {.kind = K::SlopeOfSigmoid}, "silu's slope is taken for the sigmoid"},
  {"wrong_activation",     fields_of(d_first_gemm), {.kind = K::Relu}, "the activation and its slope are relu's"},
  {"wrong_activation",     fields_of(d_first_gemm), {.kind = K::Gelu}, "the activation and its slope are gelu's"},
  {"approximate_sigmoid",  fields_of(d_first_gemm), {.kind = K::TanhApprox}, "the sigmoid comes from a tanh of 11 bits"},
  {"silu_unrounded",       fields_of(d_first_gemm), {.kind = K::SiluUnrounded}, "silu is not rounded before the up half's gradient"},
  {"d_silu_unrounded",     fields_of(d_first_gemm), {.kind = K::DSiluUnrounded}, "d_intermediate times up is not rounded before silu's slope"},
  {"not_renormalised",     fields_of(d_router_logits), {.kind = K::NoRenormalisation}, "the division by the sum of the chosen has no gradient"},
  {"renormalised",         fields_of(d_router_logits), {.kind = K::AlwaysRenormalised}, "the gradient of a division that norm_topk_prob switches off"},
  {"jacobian_of_chosen",   fields_of(d_router_logits), {.kind = K::JacobianOfChosen}, "the softmax's gradient reaches the chosen experts only"},
  {"mean_not_subtracted",  fields_of(d_router_logits), {.kind = K::SumNotSubtracted}, "gradient times probability is returned, its mean not subtracted"},
  {"no_softmax",           fields_of(d_router_logits), {.kind = K::NoSoftmaxGradient}, "the gradient of the probabilities is returned"},
  {"slot_missing",         fields_of(d_router_logits, d_experts_hidden_states), {.kind = K::DropSlot, .amount = kEachSlot}, "slot {} is left out"},
  {"slot_doubled",         fields_of(d_experts_hidden_states), {.kind = K::RepeatSlot, .amount = kEachSlot}, "slot {} is added twice"},
  {"last_slot_wins",       fields_of(d_experts_hidden_states), {.kind = K::LastSlotWins}, "the last slot is written over the others"},
  {"slot_of_token",        fields_of(d_experts_hidden_states), {.kind = K::RowsInExpertOrder}, "rows in expert order are taken for slots"},
  {"bf16_merge",           fields_of(d_experts_hidden_states), {.kind = K::MergeBf16}, "slots are added in bf16 by ascending slot"},
  {"bf16_merge_by_expert", fields_of(d_experts_hidden_states), {.kind = K::ExpertsReversed}, "slots are added in bf16 from the other end of the experts"},
  {"fp32_merge",           fields_of(d_experts_hidden_states), {.kind = K::CombineFp32}, "slots are summed in fp32 and rounded once"},
  {"router_missing",       fields_of(d_input_hidden_states), {.kind = K::RouterIgnored}, "the router's part is not added"},
  {"router_doubled",       fields_of(d_input_hidden_states), {.kind = K::RouterTwice}, "the router's part is added twice"},
  {"router_unrounded",     fields_of(d_input_hidden_states), {.kind = K::RouterUnrounded}, "the router's part is not rounded before it is added"},
  {"experts_missing",      fields_of(d_input_hidden_states), {.kind = K::ExpertsIgnored}, "the experts' part is not added"},
};
// clang-format on

/// The amounts that a trial stands for.
std::vector<std::int64_t> amounts(const GradientTrial& trial, const Layer& layer) {
  const auto of = trial.fault.amount;
  std::vector<std::int64_t> all;
  if (of == kEachSlot)
    for (std::int64_t j = 0; j < layer.config().top_k; ++j) all.push_back(j);
  else if (of == kEachPower)
    for (std::int64_t n = 1; n <= 64; n *= 2) all.push_back(n);
  else
    all.push_back(of);
  return all;
}

/// The field under a fault, computed when first asked for.
Synthesis under(const Evidence& evidence, const Fault& fault) {
  auto values = std::make_shared<Values<Predicted>>();
  return [&evidence, fault, values](const Window& window) {
    if (values->empty()) *values = planted_gradient(evidence.field, fault, *evidence.layer, evidence.read);
    std::vector<Stored> elements;
    elements.reserve(window.size());
    for (const auto r : window.rows)
      for (const auto c : window.columns)
        elements.push_back(evidence.stored((*values)[index(evidence, r, c)].value));
    return elements;
  };
}

}  // namespace

std::vector<Proposal> propose_gradients(const Evidence& evidence, const ErrorPlace&) {
  std::vector<Proposal> all;
  if (evidence.rows * evidence.width > kTriedElements || !evidence.read) return all;
  for (const GradientTrial& trial : kTrials) {
    if ((trial.fields & fields_of(evidence.field)) == 0) continue;
    for (const std::int64_t amount : amounts(trial, *evidence.layer)) {
      Fault fault = trial.fault;
      fault.field = evidence.field;
      fault.amount = amount;
      all.push_back({trial.id, fmt::format(fmt::runtime(trial.sentence), amount), under(evidence, fault)});
    }
  }
  return all;
}

}  // namespace assay
