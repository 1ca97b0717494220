// The layer once more, plainly: doubles, Eigen expressions, loops over experts. It shares no line with the
// judge's kernels nor with the predicted arithmetic, so that neither can err unseen. A contract's roundings
// are applied between the stages; with `fp64` there are none.
//
// A row of a field depends on its own token alone, so some tokens' rows of a large problem are those of a
// smaller one (`subproblem` in the harness). What sums over tokens, the weights' gradients, is made one
// expert at a time, from the tokens that chose it.
#pragma once

#include <optional>

#include "harness/contract/problem.h"
#include "reference_cpu/eigen/plain_matrix.h"

namespace assay::plain {

// ---- forward.cpp

/// Unsloth's GroupedGEMMResult, in its order.
struct GroupedGemmResult {
  IndexVector token_counts_by_expert;  // [E]
  IndexVector gather_indices;          // [S]: flat slot t K + j of each row in expert order
  Matrix topk_weights;                 // [T, K]
  Matrix first_gemm;                   // [S, 2I], expert order, gate half first
  Matrix intermediate;                 // [S, I]
  Matrix second_gemm;                  // [S, H]
  Matrix hidden_states_unpermute;      // [S, H], slot order
  Matrix hidden_states;                // [T, H]
};

struct RouterResult {
  Matrix router_logits;          // [T, E]
  Matrix topk_weights;           // [T, K]
  IndexMatrix selected_experts;  // [T, K]
};

struct ForwardResult {
  GroupedGemmResult grouped;
  Matrix router_logits;          // [T, E]
  IndexMatrix selected_experts;  // [T, K]
};

/// The whole forward pass. `replayed` [T, K] is the routing to follow; without it the layer chooses.
/// Throws InputError when it names an expert that is none or has another shape.
ForwardResult forward(const Problem& problem, const PrecisionContract& contract,
                      const std::optional<IndexMatrix>& replayed = {});

/// router_logits = X Gᵀ; topk_weights = the chosen probabilities, over their sum if `norm_topk_prob`.
RouterResult run_router(const Matrix& hidden_states, const Matrix& gate, const MoeConfig& config,
                        const PrecisionContract& contract, const std::optional<IndexMatrix>& replayed = {});

/// Every row's exponentials over their sum.
Matrix softmax(const Matrix& logits);

/// The values as they are read where the contract has the field stored in float32; else as they are.
Matrix in_float32(Matrix values, Field field, const PrecisionContract& contract);

/// The `top_k` largest of every row, descending; the lowest index first among equals.
IndexMatrix largest(const Matrix& values, std::int64_t top_k);

/// topk_weights [T, K] of the chosen experts.
Matrix weights_of(const Matrix& router_logits, const IndexMatrix& selected_experts, bool norm_topk_prob,
                  const PrecisionContract& contract);

struct ExpertOrder {
  IndexVector counts;          // token_counts_by_expert [E]
  IndexVector gather_indices;  // [S]
};
ExpertOrder get_token_counts_and_gather_indices(const IndexMatrix& selected_experts,
                                                std::int64_t num_experts);

/// The rows of one expert, in expert order.
struct ExpertRows {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};
ExpertRows rows_of(const IndexVector& counts, std::int64_t expert);

/// 1 / (1 + e^-a). Beside 1, fp32 loses an e^-a below 2^-25: a layer that is not in float64 has exactly 1
/// there, and silu(a) is a, on which ties of rounding depend.
Matrix sigmoid(const Matrix& gate, const PrecisionContract& contract);

/// intermediate = silu(gate half) * up half.
Matrix act_and_mul(const Matrix& first_gemm, const PrecisionContract& contract);

/// The same before its rounding, as backward recomputes it: fp32, which overflows.
Matrix activation(const Matrix& first_gemm, const PrecisionContract& contract);

/// hidden_states [T, H] = sum over the slots of weight times row.
Matrix merge(const Matrix& hidden_states_unpermute, const Matrix& topk_weights,
             const IndexMatrix& selected_experts, const PrecisionContract& contract);

/// How the rows of a token's slots are added up.
enum class SlotSum { Exact, Bf16Ascending, Bf16Descending };
SlotSum slot_sum(Combine combine);

/// The sum of slots [K, H]: exact, or by bf16 additions that start from 0, in the order of their experts, the
/// last one not yet rounded.
RowVector sum_of_slots(const Matrix& slots, const IndexVector& experts, SlotSum sum);

// ---- backward.cpp

/// Every gradient with one row per token, slot or expert of the router.
struct PlainGradients {
  Matrix d_second_gemm;             // [S, H], expert order
  Matrix d_topk_weights;            // [T, K]
  Matrix d_intermediate;            // [S, I]
  Matrix d_first_gemm;              // [S, 2I]
  Matrix d_permuted_hidden_states;  // [S, H]
  Matrix d_router_logits;           // [T, E]
  Matrix d_gate;                    // [E, H]
  Matrix d_experts_hidden_states;   // [T, H], without the router's part
  Matrix d_input_hidden_states;     // [T, H]
  Matrix d_hidden_states_permuted;  // [S, H], the rows that are read where the weight comes after the product
};

/// The gradients of one expert's matrices, zero where it has no rows.
struct ExpertGradients {
  Matrix d_gate_up_proj;  // [2I, H]
  Matrix d_down_proj;     // [H, I]
};

/// The whole backward pass but for the experts' matrices. `d_hidden_states` is [T, H].
PlainGradients backward(const Problem& problem, const PrecisionContract& contract,
                        const ForwardResult& result, const Matrix& d_hidden_states);

/// Those of one expert, from the fields of both passes.
ExpertGradients expert_gradients(const Problem& problem, const PrecisionContract& contract,
                                 const ForwardResult& result, const PlainGradients& gradients,
                                 std::int64_t expert);

/// The same from the inputs alone: both passes over the rows of that expert and no others.
ExpertGradients expert_gradients(const Problem& problem, const PrecisionContract& contract,
                                 const IndexMatrix& selected_experts, const Matrix& d_hidden_states,
                                 std::int64_t expert);

/// An expert's rows through down_proj.
struct DownGradient {
  Matrix d_intermediate;      // [rows, I]
  Eigen::VectorXd d_weights;  // [rows]: <activation, product without the weight>; 0 where that is not formed
};
DownGradient d_down(const Matrix& d_out, const Eigen::VectorXd& weights, const Matrix& first_gemm,
                    std::span<const Bf16> down_proj, const PrecisionContract& contract);

/// What down_proj's gradient reads of an expert's rows, where the weight comes after the product: the
/// activation with the weight rounded into it.
Matrix weighted_activation(const Matrix& first_gemm, const Eigen::VectorXd& weights,
                           const PrecisionContract& contract);

/// Rows of a weight's gradient, all experts' matrices counted through, as they are kept: the product `own`
/// added to what the problem has of before.
Matrix kept_gradient(Field field, const Problem& problem, const PrecisionContract& contract,
                     const IndexVector& rows, const Matrix& own);

/// The same before the last rounding.
Matrix summed_gradient(Field field, const Problem& problem, const PrecisionContract& contract,
                       const IndexVector& rows, const Matrix& own);

/// By how much the sum may differ where the product `own` may by `slack`. Infinite where float64 cannot tell
/// on which side of a tie the product, or its fp32 sum with what was there before, lies.
Matrix summed_slack(Field field, const Problem& problem, const PrecisionContract& contract,
                    const IndexVector& rows, const Matrix& own, Matrix slack);

/// d_topk_weights = <d_hidden_states, row> of every slot.
Matrix d_weights(const Matrix& d_hidden_states, const Matrix& hidden_states_unpermute,
                 const PrecisionContract& contract);

/// d_first_gemm from d_intermediate.
Matrix d_act_and_mul(const Matrix& first_gemm, const Matrix& d_intermediate,
                     const PrecisionContract& contract);

/// d_router_logits: through the division by the chosen ones' sum, if `norm_topk_prob`, and the softmax over
/// all experts.
Matrix d_logits(const Matrix& router_logits, const IndexMatrix& selected_experts,
                const Matrix& d_topk_weights, bool norm_topk_prob, const PrecisionContract& contract);

/// d_experts_hidden_states [T, H]: a token's slots [S, H] added up, the router's part not yet among them.
Matrix d_experts(const Matrix& d_slots, const IndexMatrix& selected_experts,
                 const PrecisionContract& contract);

}  // namespace assay::plain
