// What may have gone wrong with a field: one row per hypothesis that the search for causes tries (causes.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "harness/contract/field.h"

namespace assay {

/// Fields as a set of bits.
using FieldMask = std::uint32_t;
template <class... F>
constexpr FieldMask fields_of(F... fields) {
  return ((FieldMask{1} << static_cast<unsigned>(fields)) | ...);
}

struct Hypothesis {
  std::string_view id;    // Cause::hypothesis; faults name the one they expect
  FieldMask fields;       // where it is tried, when the field itself did not pass
  std::string_view what;  // in general; Cause::sentence gives the parameters found
};

namespace hypothesis_fields {
inline constexpr FieldMask kProducts = fields_of(Field::router_logits, Field::first_gemm, Field::second_gemm);
inline constexpr FieldMask kSwiglu = fields_of(Field::intermediate);
inline constexpr FieldMask kWeights = fields_of(Field::topk_weights);
inline constexpr FieldMask kMerge = fields_of(Field::hidden_states);
inline constexpr FieldMask kCopy = fields_of(Field::hidden_states_unpermute);
// Gradients: products whose rows have expert's weights, sums over rows, the other steps.
inline constexpr FieldMask kRowGradients = fields_of(Field::d_intermediate, Field::d_permuted_hidden_states);
inline constexpr FieldMask kExpertGradients = fields_of(Field::d_down_proj, Field::d_gate_up_proj);
inline constexpr FieldMask kWeightGradients = kExpertGradients | fields_of(Field::d_gate);
inline constexpr FieldMask kSlotGradients = fields_of(Field::d_second_gemm);
/// Where a weight may be applied: late where it comes after the product.
inline constexpr FieldMask kLateWeights = fields_of(Field::d_first_gemm, Field::d_down_proj);
inline constexpr FieldMask kDots = fields_of(Field::d_topk_weights);
inline constexpr FieldMask kSwigluGradient = fields_of(Field::d_first_gemm);
inline constexpr FieldMask kRouterGradient = fields_of(Field::d_router_logits);
inline constexpr FieldMask kCombine = fields_of(Field::d_experts_hidden_states);
inline constexpr FieldMask kInputGradient = fields_of(Field::d_input_hidden_states);
inline constexpr FieldMask kGradients = kRowGradients | kWeightGradients | kSlotGradients | kDots |
                                        kSwigluGradient | kRouterGradient | kCombine | kInputGradient;
/// A matrix product with weights on the right.
inline constexpr FieldMask kWeightProducts = kProducts | kRowGradients;
inline constexpr FieldMask kComputed = kProducts | kSwiglu | kWeights | kMerge | kGradients;
inline constexpr FieldMask kAll = kComputed | kCopy;
inline constexpr FieldMask kChoice = fields_of(Field::selected_experts);
inline constexpr FieldMask kIndices = fields_of(Field::token_counts_by_expert, Field::gather_indices);
}  // namespace hypothesis_fields

/// Simplest first: of two that explain equally much, the earlier is named.
// clang-format off
inline constexpr Hypothesis kHypotheses[] = {
  // What is there instead of a result.
  {"zeros",                 hypothesis_fields::kAll,      "rows, columns or elements are zero"},
  {"nan_swallowed",         hypothesis_fields::kAll,      "finite values where NaN or infinity is due"},
  {"nan_spread",            hypothesis_fields::kAll,      "NaN or infinity in rows that have none, beside rows that do"},
  {"not_written",           hypothesis_fields::kAll,      "rows, columns or elements are NaN, infinite, or one value everywhere: never written"},
  {"bit_flip",              hypothesis_fields::kAll,      "a few elements differ in one bit each"},
  {"gate_up_swapped",       hypothesis_fields::kSwiglu | hypothesis_fields::kSwigluGradient | fields_of(Field::first_gemm, Field::d_permuted_hidden_states, Field::d_gate_up_proj), "gate and up halves are exchanged"},
  {"other_routing",         hypothesis_fields::kSlotGradients, "backward follows another routing than forward"},
  {"moved_rows",            hypothesis_fields::kAll,      "rows hold the result of other rows: another token's, the neighbour's"},
  {"stored_transposed",     hypothesis_fields::kAll,      "a matrix lies column by column"},
  {"shifted_columns",       hypothesis_fields::kAll,      "columns are shifted"},
  {"copy_of_upstream",      hypothesis_fields::kSwiglu | hypothesis_fields::kMerge, "a row of an upstream field, copied"},
  {"scaled",                hypothesis_fields::kComputed, "times a constant"},
  // How products are summed.
  {"split_k",               hypothesis_fields::kWeightProducts, "K is split into parts whose sums are added"},
  {"k_permuted",            hypothesis_fields::kWeightProducts, "K is walked in another order of blocks"},
  {"fp32_sequential",       hypothesis_fields::kWeightProducts, "K is summed one by one in fp32, rounded to nearest"},
  {"fp32_pairwise",         hypothesis_fields::kWeightProducts, "K is summed as a tree in fp32, rounded to nearest"},
  {"bf16_accumulation",     hypothesis_fields::kWeightProducts | hypothesis_fields::kDots | hypothesis_fields::kWeightGradients, "the running sum is rounded to bf16 after every term"},
  {"bf16_partial_sums",     hypothesis_fields::kWeightProducts, "the running sum is rounded to bf16 after every block of K"},
  {"fp16_accumulation",     hypothesis_fields::kWeightProducts, "the running sum is rounded to fp16"},
  // How values are stored.
  {"truncated",             hypothesis_fields::kComputed, "stored values are truncated, not rounded"},
  {"half_away",             hypothesis_fields::kComputed, "ties are rounded away from zero, not to even"},
  {"rounded_twice",         hypothesis_fields::kComputed, "rounded to an intermediate format (fp16, tf32) before bf16"},
  {"subnormals_flushed",    hypothesis_fields::kComputed, "small results are flushed to zero"},
  {"clamped",               hypothesis_fields::kComputed, "results are limited in magnitude; Inf and NaN are lost"},
  // Products on wrong operands.
  {"k_dropped",             hypothesis_fields::kWeightProducts | hypothesis_fields::kDots | hypothesis_fields::kWeightGradients, "a stretch of K is missing"},
  {"k_doubled",             hypothesis_fields::kWeightProducts | hypothesis_fields::kWeightGradients, "a stretch of K is added twice"},
  {"k_scaled",              hypothesis_fields::kWeightProducts, "a stretch of K is scaled, or missing in a part of the elements"},
  {"k_stale",               hypothesis_fields::kWeightProducts, "a stretch of K uses another stretch's, row's or expert's operand"},
  {"wrong_expert",          hypothesis_fields::kWeightProducts, "rows use another expert's weights"},
  {"wrong_token",           hypothesis_fields::kWeightProducts | hypothesis_fields::kSwiglu | hypothesis_fields::kSlotGradients | hypothesis_fields::kDots | hypothesis_fields::kSwigluGradient | hypothesis_fields::kExpertGradients, "rows use another row's input"},
  {"transposed_weight",     hypothesis_fields::kWeightProducts, "the weight is read transposed"},
  // SwiGLU.
  {"gate_up_interleaved",   hypothesis_fields::kSwiglu | hypothesis_fields::kSwigluGradient | fields_of(Field::first_gemm), "gate and up columns are read as interleaved pairs"},
  {"gate_up_paired",        hypothesis_fields::kSwiglu,   "gate columns meet other up columns than their own"},
  {"columns_permuted",      hypothesis_fields::kAll,      "columns stand in another order"},
  {"moved_tile",            hypothesis_fields::kAll,      "a block of rows and columns holds another block's values"},
  {"silu_unrounded",        hypothesis_fields::kSwiglu | hypothesis_fields::kSwigluGradient,   "silu is not rounded to bf16 before the product"},
  {"silu_rounded",          hypothesis_fields::kSwiglu,   "silu is rounded to bf16 before the product"},
  {"sigmoid_rounded",       hypothesis_fields::kSwiglu,   "the sigmoid is rounded to bf16 before it is multiplied"},
  {"approximate_sigmoid",   hypothesis_fields::kSwiglu | hypothesis_fields::kSwigluGradient,   "the sigmoid is a fast approximation"},
  {"silu_flushed",          hypothesis_fields::kSwiglu,   "silu is zero below a limit"},
  {"up_not_multiplied",     hypothesis_fields::kSwiglu | hypothesis_fields::kSwigluGradient,   "the product with the up half is missing"},
  {"wrong_activation",      hypothesis_fields::kSwiglu | hypothesis_fields::kSwigluGradient,   "another activation: relu, gelu, sigmoid(1.702 a), sigmoid alone"},
  // Weights.
  {"logits_softmaxed",      fields_of(Field::router_logits), "probabilities, or another function, in the place of logits"},
  {"other_expert",          hypothesis_fields::kChoice, "another expert stands in a slot"},
  {"not_renormalised",      hypothesis_fields::kWeights | hypothesis_fields::kDots | hypothesis_fields::kRouterGradient,  "the weights are not divided by their sum"},
  {"renormalised",          hypothesis_fields::kWeights | hypothesis_fields::kRouterGradient,  "the weights are divided by their sum, which norm_topk_prob switches off"},
  {"renormalised_twice",    hypothesis_fields::kWeights,  "the weights are divided by their sum, and once more"},
  {"softmax_over_selected", hypothesis_fields::kWeights,  "the softmax runs over the chosen experts only"},
  {"probabilities_rounded", hypothesis_fields::kWeights | hypothesis_fields::kChoice,  "the probabilities are rounded to bf16 before they are divided by their sum"},
  {"logits_unrounded",      hypothesis_fields::kWeights | hypothesis_fields::kChoice,  "the softmax runs on logits that are not rounded"},
  {"no_softmax",            hypothesis_fields::kWeights | hypothesis_fields::kRouterGradient,  "there is no softmax: logits, sigmoids or exponentials as weights"},
  {"softmax_over_tokens",   hypothesis_fields::kWeights,  "the softmax runs over the tokens"},
  // Merge.
  {"fp32_merge",            hypothesis_fields::kMerge | hypothesis_fields::kCombine,    "slots are summed in fp32 and rounded once"},
  {"slots_ascending",       hypothesis_fields::kMerge,    "slots are summed ascending, not as four interleaved sums"},
  {"bf16_merge_by_expert",  hypothesis_fields::kMerge | hypothesis_fields::kCombine,    "slots are added in bf16 by ascending expert"},
  {"bf16_merge",            hypothesis_fields::kMerge | hypothesis_fields::kCombine,    "slots are added in bf16 by ascending slot"},
  {"product_unrounded",     hypothesis_fields::kMerge | hypothesis_fields::kDots | hypothesis_fields::kWeightGradients,    "weight times value, or a weight's gradient, is not rounded before the sum"},
  {"product_rounded",       hypothesis_fields::kMerge | hypothesis_fields::kWeightGradients,    "weight times value, a weight's gradient, or a sum that the contract keeps in fp32, is rounded to bf16"},
  {"weights_unrounded",     hypothesis_fields::kMerge,    "the weights are not rounded to bf16"},
  {"weight_twice",          hypothesis_fields::kMerge | hypothesis_fields::kSlotGradients | hypothesis_fields::kDots | hypothesis_fields::kCombine | hypothesis_fields::kLateWeights,    "the weight is applied twice"},
  {"weight_not_applied",    hypothesis_fields::kMerge | hypothesis_fields::kSlotGradients | hypothesis_fields::kLateWeights,    "the weights are not applied"},
  {"weights_permuted",      hypothesis_fields::kMerge | hypothesis_fields::kWeights | hypothesis_fields::kSlotGradients | hypothesis_fields::kDots | hypothesis_fields::kRouterGradient, "the weights of two slots are exchanged, or their order is another"},
  {"weights_of_token",      hypothesis_fields::kMerge | hypothesis_fields::kWeights | hypothesis_fields::kSlotGradients, "the weights are another token's"},
  {"slot_missing",          hypothesis_fields::kMerge | hypothesis_fields::kCombine | hypothesis_fields::kRouterGradient,    "a slot is left out of the sum"},
  {"slots_missing",         hypothesis_fields::kMerge | hypothesis_fields::kCombine,    "several slots are left out: by number, by expert, by their place in the expert's rows"},
  {"slot_doubled",          hypothesis_fields::kMerge | hypothesis_fields::kCombine,    "a slot is added twice"},
  {"one_weight_for_all",    hypothesis_fields::kMerge | hypothesis_fields::kWeights, "all slots have one slot's weight"},
  {"slot_of_token",         hypothesis_fields::kMerge | hypothesis_fields::kCombine,    "a slot's row is another one"},
  {"bf16_merge_any_order",  hypothesis_fields::kMerge,    "slots are added in bf16, in no fixed order"},
  // Gradients.
  {"divided_by_weight",     hypothesis_fields::kDots, "the weight's gradient is a quotient by the weight"},
  {"other_gradient",        hypothesis_fields::kSlotGradients, "formed from another gradient of the output"},
  {"d_silu_unrounded",      hypothesis_fields::kSwigluGradient, "silu's upstream gradient is not rounded"},
  {"rows_of_neighbour",     hypothesis_fields::kExpertGradients, "rows of the next expert are summed, too"},
  {"row_order",             hypothesis_fields::kExpertGradients, "an expert's rows are summed in another order"},
  {"previous_overwritten",  hypothesis_fields::kWeightGradients, "what was there before is overwritten, not added to"},
  {"gradient_not_added",    hypothesis_fields::kWeightGradients, "what was there before stays: this pass's gradient does not reach it"},
  {"added_twice",           hypothesis_fields::kWeightGradients, "this pass's gradient is added twice, or what was there counts twice"},
  {"previous_of_neighbour", hypothesis_fields::kWeightGradients, "the gradient is added to what another expert had"},
  {"jacobian_of_chosen",    hypothesis_fields::kRouterGradient, "the softmax's gradient reaches the chosen experts only"},
  {"mean_not_subtracted",   hypothesis_fields::kRouterGradient, "gradient times probability, without its mean"},
  {"last_slot_wins",        hypothesis_fields::kCombine, "a token's slots are written over one another"},
  {"router_missing",        hypothesis_fields::kInputGradient, "the router's part is not added"},
  {"router_doubled",        hypothesis_fields::kInputGradient, "the router's part is added twice"},
  {"router_unrounded",      hypothesis_fields::kInputGradient, "the router's part is not rounded before it is added"},
  {"experts_missing",       hypothesis_fields::kInputGradient, "the experts' part is not added"},
  // Choices, counts and indices: looked for by the judge itself (harness/judge: selection_causes, index_causes).
  {"counted_from_one",      hypothesis_fields::kChoice | hypothesis_fields::kIndices, "experts or slots are counted from 1"},
  {"constant_ids",          hypothesis_fields::kChoice | hypothesis_fields::kIndices, "every entry, or every token, is the same"},
  {"transposed_ids",        hypothesis_fields::kChoice, "the ids lie [K, T]"},
  {"repeated_expert",       hypothesis_fields::kChoice, "a token names an expert twice"},
  {"smallest_chosen",       hypothesis_fields::kChoice, "the smallest logits are chosen"},
  {"ids_in_other_order",    hypothesis_fields::kChoice, "the right experts in another order"},
  {"ids_of_token",          hypothesis_fields::kChoice, "the choice is another token's"},
  {"by_magnitude",          hypothesis_fields::kChoice, "the logits of largest magnitude are chosen"},
  {"other_ranks",           hypothesis_fields::kChoice, "the same other ranks in every token"},
  {"ids_out_of_range",      hypothesis_fields::kChoice, "ids name no expert"},
  {"inverse_permutation",   hypothesis_fields::kIndices, "every slot's row stands for every row's slot"},
  {"token_numbers",         hypothesis_fields::kIndices, "token numbers stand for slots"},
  {"choice_major",          hypothesis_fields::kIndices, "slots are counted, or sorted, by choice before token"},
  {"slot_order",            hypothesis_fields::kIndices, "slots are not sorted by expert"},
  {"next_row",              hypothesis_fields::kIndices, "rows have a neighbour's slot"},
  {"shifted_slots",         hypothesis_fields::kIndices, "every index is one further"},
  {"descending_slots",      hypothesis_fields::kIndices, "an expert's slots descend"},
  {"experts_reversed",      hypothesis_fields::kIndices, "the experts descend"},
  {"expert_numbers",        hypothesis_fields::kIndices, "expert numbers stand for slots"},
  {"indices_out_of_range",  hypothesis_fields::kIndices, "indices name no slot"},
  {"no_permutation",        hypothesis_fields::kIndices, "slots stand in several rows, others in none"},
  {"exchanged_rows",        hypothesis_fields::kIndices, "the slots of two rows are exchanged"},
  {"other_row_order",       hypothesis_fields::kIndices, "experts have their own slots, in another order"},
  {"slots_of_other_experts", hypothesis_fields::kIndices, "a permutation across experts"},
  {"offsets_for_counts",    hypothesis_fields::kIndices, "running offsets stand for counts"},
  {"next_expert",           hypothesis_fields::kIndices, "counts are a neighbour's"},
  {"equal_counts",          hypothesis_fields::kIndices, "all experts have the same count"},
  {"first_choices",         hypothesis_fields::kIndices, "only first choices are counted"},
  {"padded_counts",         hypothesis_fields::kIndices, "counts are padded"},
  {"sorted_counts",         hypothesis_fields::kIndices, "the counts are sorted"},
  {"miscounted",            hypothesis_fields::kIndices, "a few counts are wrong"},
};
// clang-format on

constexpr const Hypothesis* find_hypothesis(std::string_view id) {
  for (const auto& row : kHypotheses)
    if (row.id == id) return &row;
  return nullptr;
}

}  // namespace assay
