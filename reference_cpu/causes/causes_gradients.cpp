// Hypotheses about the steps of the backward pass but gradients of weights (causes_weight_gradients.cpp):
// each is a fault that the predicted arithmetic can compute (planted/planted_gradients.h), tried on the
// values that the step read.
#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"
#include "reference_cpu/causes/causes_merge.h"
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
constexpr std::int64_t kFirstHalf = -3;         // of a token's slots, rounded down
constexpr std::int64_t kLastHalf = -4;          // rounded up
constexpr std::int64_t kAllButFirst = -5;

struct GradientTrial {
  std::string_view id;
  FieldMask fields;
  Fault fault;
  std::string_view
      sentence;  // {} is the amount, {1} and {2} what follows from it: "s" and "are", or "" and "is"
};

// clang-format off
const GradientTrial kTrials[] = {
  {"weight_not_applied",   fields_of(d_second_gemm, d_first_gemm, d_down_proj), {.kind = K::NoWeights}, "the weights are not applied"},
  {"weight_twice",         fields_of(d_second_gemm, d_topk_weights, d_experts_hidden_states, d_first_gemm, d_down_proj), {.kind = K::WeightTwice}, "the weight is applied once more"},
  {"weights_permuted",     fields_of(d_second_gemm, d_topk_weights, d_router_logits), {.kind = K::SwapWeights}, "slots 0 and 1 are exchanged"},
  {"weights_of_token",     fields_of(d_second_gemm), {.kind = K::WeightsModulo, .amount = kEachPower}, "tokens take the weights of the first {}, over and over"},
  {"weights_permuted",     fields_of(d_second_gemm), {.kind = K::RowsInExpertOrder}, "rows in expert order take the weights as they lie in slot order"},
  {"wrong_token",          fields_of(d_second_gemm), {.kind = K::RowsInExpertOrder, .amount = 1}, "row r reads token r / K, as if rows stood in slot order"},
  {"wrong_token",          fields_of(d_second_gemm, d_topk_weights), {.kind = K::SlotForToken}, "the token numbered as the slot is read"},
  {"wrong_token",          fields_of(d_topk_weights), {.kind = K::RowsInExpertOrder}, "rows in expert order are read as if in slot order"},
  {"product_unrounded",    fields_of(d_topk_weights), {.kind = K::WeightedUnrounded}, "products are not rounded before the sum over H"},
  {"divided_by_weight",    fields_of(d_topk_weights), {.kind = K::DividedByWeight}, "formed as sum of intermediate times its gradient, over the stored weight"},
  {"not_renormalised",     fields_of(d_topk_weights), {.kind = K::NoRenormalisation}, "the gradient is that of the probabilities before they are divided by their sum"},
  {"not_renormalised",     fields_of(d_topk_weights), {.kind = K::NoRenormalisation, .amount = 1}, "the gradient is divided by the sum of the chosen probabilities"},
  {"bf16_accumulation",    fields_of(d_topk_weights), {.kind = K::AccumulateBf16}, "the running sum is rounded to bf16 after every term"},
  {"k_dropped",            fields_of(d_topk_weights), {.kind = K::DropLastK, .amount = kEachPower}, "the last {0} term{1} of the sum {2} missing"},
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
  {"no_softmax",           fields_of(d_router_logits), {.kind = K::NoSoftmaxGradient}, "the gradient of the weights is returned: no softmax, no division by their sum"},
  {"no_softmax",           fields_of(d_router_logits), {.kind = K::NoSoftmaxGradient, .amount = 1}, "the gradient of the probabilities is returned, not taken through the softmax"},
  {"slot_missing",         fields_of(d_router_logits, d_experts_hidden_states), {.kind = K::DropSlot, .amount = kEachSlot}, "slot {} is left out"},
  {"slots_missing",        fields_of(d_experts_hidden_states), {.kind = K::DropSlot, .amount = kFirstHalf}, "the first half of the slots is left out"},
  {"slots_missing",        fields_of(d_experts_hidden_states), {.kind = K::DropSlot, .amount = kLastHalf}, "the last half of the slots is left out"},
  {"slots_missing",        fields_of(d_experts_hidden_states), {.kind = K::DropSlot, .amount = kAllButFirst}, "all slots but the first are left out"},
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

/// The faults that a trial stands for.
std::vector<Fault> faults_of(const GradientTrial& trial, Field field, const Layer& layer) {
  const std::int64_t top_k = layer.config().top_k;
  std::vector<Fault> all;
  const auto add = [&](std::int64_t amount, std::int64_t first = 0) {
    Fault fault = trial.fault;
    fault.field = field;
    fault.amount = amount;
    fault.first = first;
    all.push_back(fault);
  };
  switch (trial.fault.amount) {
    case kEachSlot:
      for (std::int64_t j = 0; j < top_k; ++j) add(j);
      break;
    case kEachPower:
      for (std::int64_t n = 1; n <= 64; n *= 2) add(n);
      break;
    case kFirstHalf:
      if (top_k >= 4) add(0, top_k / 2 - 1);
      break;
    case kLastHalf:
      if (top_k >= 3) add(top_k / 2, top_k - 1);
      break;
    case kAllButFirst:
      if (top_k >= 3) add(1, top_k - 1);
      break;
    default: add(trial.fault.amount);
  }
  return all;
}

/// The field under a fault, computed when first asked for.
Synthesis under(const Evidence& evidence, const Fault& fault) {
  auto values = std::make_shared<Values<Predicted>>();
  return [&evidence, fault, values](const Window& window) {
    if (values->empty()) *values = planted_gradient(evidence.field, fault, *evidence.layer, evidence.read);
    return elements_of(evidence, *values, window);
  };
}

/// The sum of a token's slots in dX; a slot that is lost adds zeros.
SumOfSlots combined(const Evidence& evidence) {
  const auto top_k = evidence.layer->config().top_k;
  const auto& gather = evidence.layer->routing.gather;
  auto row_of = std::make_shared<std::vector<std::int64_t>>(gather.size());
  for (std::size_t r = 0; r < gather.size(); ++r)
    (*row_of)[static_cast<std::size_t>(gather[r])] = static_cast<std::int64_t>(r);
  const auto at = [&evidence, top_k, row_of](std::int64_t token, std::int64_t slot, std::int64_t column) {
    return index(evidence, (*row_of)[static_cast<std::size_t>(token * top_k + slot)], column);
  };
  const auto& rows = evidence.read(d_permuted_hidden_states);
  return {top_k,
          [&rows, at](std::int64_t token, std::int64_t slot, std::int64_t column) {
            return static_cast<double>(rows[at(token, slot, column)].value);
          },
          [&evidence, &rows, at, top_k](std::string sentence, LostSlot lost) -> Proposal {
            const auto values = std::make_shared<Values<Predicted>>();
            return {"slots_missing", std::move(sentence),
                    [&evidence, &rows, at, top_k, lost, values](const Window& window) {
                      if (values->empty()) {
                        Values<Predicted> left = rows;
                        for (std::int64_t t = 0; t < evidence.rows; ++t)
                          for (std::int64_t j = 0; j < top_k; ++j)
                            for (std::int64_t c = 0; lost(t, j) && c < evidence.width; ++c)
                              left[at(t, j, c)] = {};
                        *values = combine_slots<Predicted>(*evidence.layer, left);
                      }
                      return elements_of(evidence, *values, window);
                    }};
          }};
}

}  // namespace

std::vector<GradientGuess> gradient_guesses(Field field, const Layer& layer) {
  std::vector<GradientGuess> all;
  for (const GradientTrial& trial : kTrials) {
    if ((trial.fields & fields_of(field)) == 0) continue;
    for (const Fault& fault : faults_of(trial, field, layer))
      all.push_back({trial.id,
                     fmt::format(fmt::runtime(trial.sentence), fault.amount, fault.amount == 1 ? "" : "s",
                                 fault.amount == 1 ? "is" : "are"),
                     fault});
  }
  return all;
}

std::vector<Proposal> propose_gradients(const Evidence& evidence, const ErrorPlace& place) {
  std::vector<Proposal> all;
  if (evidence.rows * evidence.width > kTriedElements || !evidence.read) return all;
  for (GradientGuess& guess : gradient_guesses(evidence.field, *evidence.layer))
    all.push_back({guess.id, std::move(guess.sentence), under(evidence, guess.fault)});
  if (evidence.field == d_experts_hidden_states) propose_lost_slots(evidence, place, combined(evidence), all);
  return all;
}

}  // namespace assay
