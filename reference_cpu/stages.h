// The layer, stage by stage, each written once over the arithmetic (arithmetic.h); products:
// product/layer_product.h. Every function returns its field before the rounding of the stored value;
// `stored_field` applies it. Shapes are those of the field table.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "harness/contract/accumulator.h"
#include "harness/contract/fault.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/problem.h"
#include "harness/contract/reference.h"
#include "reference_cpu/arithmetic.h"

namespace assay {

template <class A>
using Values = LargeVector<typename A::Value>;

/// What every stage may look at.
struct Layer {
  const Problem* problem = nullptr;
  const PrecisionContract* contract = nullptr;
  Accumulators accumulators;  // of predictions
  Accumulators declared;      // of bounds: running bounds rely on nothing that was assumed or searched for
  Routing routing;
  Fault fault;                     // predicted arithmetic only
  const Engine* engine = nullptr;  // that products are offered to

  const MoeConfig& config() const { return problem->config; }
  std::int64_t tokens() const { return problem->sizes().tokens; }
};

template <class A>
const Accumulators& accumulators_for(const Layer& layer) {
  return std::is_same_v<A, Bounded> ? layer.declared : layer.accumulators;
}

/// Rounds every value as the contract stores the field, planted faults of storing included.
template <class A>
void store_field(Field field, const Layer& layer, Values<A>& values);

/// The first half of it: the planted faults that strike values before any rounding.
template <class A>
void plant_field(Field field, const Layer& layer, Values<A>& values);

/// store.cpp: with_noise_above_underflow of each.
void keep_noise_above_underflow(Values<Bounded>& values);

/// topk.cpp: softmax over E in fp32 of one token's logits; Predicted only, in torch's order of sums.
std::vector<PredictedValue> probabilities(std::span<const PredictedValue> logits);

/// topk.cpp: topk_weights [T, K] of the routed experts: softmax over E, renormalised over K if
/// norm_topk_prob.
template <class A>
Values<A> topk_weights(const Layer& layer, const Values<A>& logits);

/// topk.cpp: selected_experts [T, K] with torch's choice and order of ties. Sets the flag of tokens outside
/// what was measured.
std::vector<std::int32_t> select_experts(const Layer& layer, const Values<Predicted>& logits,
                                         std::vector<bool>& undetermined);

/// topk.cpp: the same with equals broken by the lowest index, on exact softmax values.
std::vector<std::int32_t> select_experts(const Layer& layer, const Values<Bounded>& logits);

/// permute.cpp: counts, offsets and the stable expert order of the flat slots. Unsloth's name.
Routing get_token_counts_and_gather_indices(const MoeConfig& config,
                                            std::vector<std::int32_t> selected_experts);

/// router_grad.cpp: d_router_logits [T, E] from d_topk_weights [T, K]: through the division by the chosen
/// ones' sum, if norm_topk_prob, and the softmax over all experts.
template <class A>
Values<A> router_grad(const Layer& layer, const Values<A>& d_weights, const Values<A>& logits);

/// swiglu.cpp: intermediate [S, I] = silu(gate half) * up half. Unsloth's name.
template <class A>
Values<A> act_and_mul(const Layer& layer, const Values<A>& first_gemm);

/// swiglu.cpp: d_first_gemm [S, 2I] = d_intermediate * (up half * silu'(gate half), silu(gate half)).
/// `weights` [T, K]: what d_intermediate is still to be multiplied by; null where that was done.
template <class A>
Values<A> act_and_mul_grad(const Layer& layer, const Values<A>& d_intermediate, const Values<A>& first_gemm,
                           const Values<A>* weights = nullptr);

/// swiglu.cpp: the activation [S, I] that backward recomputes, in registers: intermediate before its
/// rounding.
template <class A>
Values<A> recomputed_activation(const Layer& layer, const Values<A>& first_gemm);

/// merge.cpp: rows in expert order [S, I] times their slots' weights.
template <class A>
Values<A> times_weights(const Layer& layer, Values<A> rows, const Values<A>& weights);

/// merge.cpp: rows from expert order to slot order [S, H]: a copy.
template <class A>
Values<A> unpermute(const Layer& layer, const Values<A>& second_gemm);

/// merge.cpp: hidden_states [T, H] = sum over slots of weight * row, combined as the contract says.
template <class A>
Values<A> merge(const Layer& layer, const Values<A>& unpermuted, const Values<A>& weights);

/// merge.cpp: d_second_gemm [S, H], in expert order: the token's d_hidden_states times the slot's weight.
template <class A>
Values<A> weighted_rows(const Layer& layer, const Values<A>& weights);

/// merge.cpp: d_topk_weights [T, K] = sum over H of the token's d_hidden_states times the slot's row.
template <class A>
Values<A> row_dots(const Layer& layer, const Values<A>& unpermuted);

/// activation_dots.cpp: d_topk_weights [T, K] = sum over I of the recomputed activation times `products` [S,
/// I], the product of d_hidden_states and down_proj without the weight.
template <class A>
Values<A> activation_dots(const Layer& layer, const Values<A>& products, const Values<A>& first_gemm);

/// permute.cpp: d_experts_hidden_states [T, H]: a token's rows of d_permuted_hidden_states added up as the
/// contract says.
template <class A>
Values<A> combine_slots(const Layer& layer, const Values<A>& d_permuted);

/// permute.cpp: d_input_hidden_states [T, H]: the experts' part and the router's, which is rounded before.
template <class A>
Values<A> add_router(const Layer& layer, const Values<A>& d_experts, const Values<A>& d_logits);

/// permute.cpp: the row in expert order of every flat slot [S], -1 where no row names it. A candidate's own
/// order may name a slot twice and another never: the last row wins.
std::vector<std::int64_t> rows_of_slots(const Layer& layer);

/// merge.cpp: n of the bound gamma_n sum |w y| for the fp32 sum over the slots, in any order.
std::int64_t slot_sum_length(const PrecisionContract& contract, std::int64_t top_k);

/// A stored bf16 tensor as exact values.
template <class A>
Values<A> lift(const Tensor& tensor);

}  // namespace assay
