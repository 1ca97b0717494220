#include "harness/contract/layer.h"
#include "harness/contract/worth_threads.h"
#include "reference_cpu/eigen/plain_layer.h"

namespace assay::plain {
namespace {

/// Rows of the matrix numbered `expert` of so many.
IndexVector matrix_rows(std::int64_t expert, std::int64_t rows) {
  return IndexVector::LinSpaced(rows, static_cast<std::int32_t>(expert * rows),
                                static_cast<std::int32_t>((expert + 1) * rows - 1));
}

ExpertGradients kept(const Problem& problem, const PrecisionContract& contract, std::int64_t expert,
                     const Matrix& d_gate_up_proj, const Matrix& d_down_proj) {
  return {kept_gradient(Field::d_gate_up_proj, problem, contract, matrix_rows(expert, d_gate_up_proj.rows()),
                        d_gate_up_proj),
          kept_gradient(Field::d_down_proj, problem, contract, matrix_rows(expert, d_down_proj.rows()),
                        d_down_proj)};
}

}  // namespace

PlainGradients backward(const Problem& problem, const PrecisionContract& contract,
                        const ForwardResult& result, const Matrix& d_hidden_states) {
  const MoeConfig& config = problem.config;
  const auto& [counts, gather, topk_weights, first_gemm, intermediate, second_gemm, unpermuted, output] =
      result.grouped;
  const Store stored = contract.gradients;
  const IndexVector token_of_row = gather / static_cast<std::int32_t>(config.top_k);
  const Eigen::VectorXd weight_of_row = topk_weights.reshaped<Eigen::RowMajor>()(gather);
  PlainGradients d;

  const Matrix d_out = d_hidden_states(token_of_row, Eigen::all);
  d.d_second_gemm =
      rounded(d_out.array().colwise() * weight_of_row.array(), store_of(Field::d_second_gemm, contract));
  d.d_intermediate.resize(gather.size(), config.moe_intermediate_size);
  d.d_first_gemm.resize(gather.size(), 2 * config.moe_intermediate_size);
  d.d_permuted_hidden_states.resize(gather.size(), config.hidden_size);
  Eigen::VectorXd d_weight_of_row(gather.size());
  for_each_expert(config.num_experts, [&](std::int64_t e) {
    const auto [begin, rows] = rows_of(counts, e);
    if (rows == 0) return;
    const Matrix first = first_gemm.middleRows(begin, rows);
    const DownGradient down = d_down(d_out.middleRows(begin, rows), weight_of_row.segment(begin, rows), first,
                                     problem.experts(Field::down_proj, e).values, contract);
    const Matrix d_first = d_act_and_mul(first, down.d_intermediate, contract);
    const auto gate_up_proj = problem.experts(Field::gate_up_proj, e);
    d_weight_of_row.segment(begin, rows) = down.d_weights;
    d.d_intermediate.middleRows(begin, rows) = down.d_intermediate;
    d.d_first_gemm.middleRows(begin, rows) = d_first;
    d.d_permuted_hidden_states.middleRows(begin, rows) =
        rounded(times(d_first, gate_up_proj.values, config.hidden_size), stored);
  });

  if (contract.weight_side == WeightSide::AfterProduct) d.d_hidden_states_permuted = d_out;
  if (contract.d_weights_from == WeightGradientFrom::Activation) {
    d.d_topk_weights.resize(topk_weights.rows(), topk_weights.cols());
    d.d_topk_weights.reshaped<Eigen::RowMajor>()(gather) = rounded(d_weight_of_row, stored);
  } else {
    d.d_topk_weights = d_weights(d_hidden_states, unpermuted, contract);
  }
  d.d_router_logits = in_float32(d_logits(result.router_logits, result.selected_experts, d.d_topk_weights,
                                          config.norm_topk_prob, contract),
                                 Field::d_router_logits, contract);
  d.d_gate = kept_gradient(Field::d_gate, problem, contract, matrix_rows(0, config.num_experts),
                           d.d_router_logits.transpose() * widened(problem.input));

  Matrix slots(gather.size(), config.hidden_size);
  slots(gather, Eigen::all) = d.d_permuted_hidden_states;
  d.d_experts_hidden_states = d_experts(slots, result.selected_experts, contract);
  const Matrix d_router = rounded(d.d_router_logits * widened(problem.gate), stored);
  d.d_input_hidden_states = rounded(d.d_experts_hidden_states + d_router, stored);
  return d;
}

ExpertGradients expert_gradients(const Problem& problem, const PrecisionContract& contract,
                                 const ForwardResult& result, const PlainGradients& gradients,
                                 std::int64_t expert) {
  const auto& of = result.grouped;
  const auto [begin, rows] = rows_of(of.token_counts_by_expert, expert);
  const IndexVector slots = of.gather_indices.segment(begin, rows);
  const Matrix x = widened(problem.input, slots / static_cast<std::int32_t>(problem.config.top_k));
  const Matrix d_gate_up = gradients.d_first_gemm.middleRows(begin, rows).transpose() * x;
  if (contract.weight_side == WeightSide::OutputGradient)
    return kept(problem, contract, expert, d_gate_up,
                gradients.d_second_gemm.middleRows(begin, rows).transpose() *
                    of.intermediate.middleRows(begin, rows));
  const Matrix d_out = gradients.d_hidden_states_permuted.middleRows(begin, rows);
  const Eigen::VectorXd weights = of.topk_weights.reshaped<Eigen::RowMajor>()(slots);
  return kept(
      problem, contract, expert, d_gate_up,
      d_out.transpose() * weighted_activation(of.first_gemm.middleRows(begin, rows), weights, contract));
}

ExpertGradients expert_gradients(const Problem& problem, const PrecisionContract& contract,
                                 const IndexMatrix& selected_experts, const Matrix& d_hidden_states,
                                 std::int64_t expert) {
  const MoeConfig& config = problem.config;
  const auto [counts, gather] = get_token_counts_and_gather_indices(selected_experts, config.num_experts);
  const auto [begin, rows] = rows_of(counts, expert);
  const IndexVector tokens = gather.segment(begin, rows) / static_cast<std::int32_t>(config.top_k);
  const Matrix x = widened(problem.input, tokens);
  const Matrix topk_weights = run_router(x, widened(problem.gate), config, contract,
                                         IndexMatrix(selected_experts(tokens, Eigen::all)))
                                  .topk_weights;
  Eigen::VectorXd weights(rows);
  for (std::int64_t r = 0; r < rows; ++r) weights[r] = topk_weights(r, gather[begin + r] % config.top_k);

  const Matrix product = times_transposed(x, problem.experts(Field::gate_up_proj, expert).values);
  const Matrix first = rounded(product, contract.first_gemm);
  const Matrix d_out = d_hidden_states(tokens, Eigen::all);
  const auto down = d_down(d_out, weights, first, problem.experts(Field::down_proj, expert).values, contract);
  const Matrix d_first = d_act_and_mul(first, down.d_intermediate, contract);
  const bool after_product = contract.weight_side == WeightSide::AfterProduct;
  const Matrix left =
      after_product ? d_out : rounded(d_out.array().colwise() * weights.array(), contract.gradients);
  const Matrix right = after_product
                           ? weighted_activation(first, weights, contract)
                           : act_and_mul(contract.swiglu_reads == From::Memory ? first : product, contract);
  return kept(problem, contract, expert, d_first.transpose() * x, left.transpose() * right);
}

DownGradient d_down(const Matrix& d_out, const Eigen::VectorXd& weights, const Matrix& first_gemm,
                    std::span<const Bf16> down_proj, const PrecisionContract& contract) {
  const std::int64_t width = first_gemm.cols() / 2;
  if (contract.weight_side == WeightSide::OutputGradient) {
    const Matrix weighted = rounded(d_out.array().colwise() * weights.array(), contract.gradients);
    return {rounded(times(weighted, down_proj, width), contract.gradients),
            Eigen::VectorXd::Zero(weights.size())};
  }
  const Matrix product = times(d_out, down_proj, width);
  return {product.array().colwise() * weights.array(),
          product.cwiseProduct(activation(first_gemm, contract)).rowwise().sum()};
}

Matrix weighted_activation(const Matrix& first_gemm, const Eigen::VectorXd& weights,
                           const PrecisionContract& contract) {
  return rounded(activation(first_gemm, contract).array().colwise() * weights.array(), contract.intermediate);
}

Matrix d_weights(const Matrix& d_hidden_states, const Matrix& hidden_states_unpermute,
                 const PrecisionContract& contract) {
  const std::int64_t tokens = d_hidden_states.rows();
  const std::int64_t top_k = tokens == 0 ? 0 : hidden_states_unpermute.rows() / tokens;
  Matrix out(tokens, top_k);
#pragma omp parallel for schedule(static) if (worth_threads(d_hidden_states.size() * top_k))
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < top_k; ++j) {
      const auto y = hidden_states_unpermute.row(t * top_k + j).array();
      out(t, j) = rounded(d_hidden_states.row(t).array() * y, contract.d_weighted).sum();
    }
  return rounded(out, contract.gradients);
}

Matrix d_act_and_mul(const Matrix& first_gemm, const Matrix& d_intermediate,
                     const PrecisionContract& contract) {
  const std::int64_t width = d_intermediate.cols();
  const Matrix gate = first_gemm.leftCols(width);
  const Matrix up = first_gemm.rightCols(width);
  const Matrix s = sigmoid(gate, contract);
  const Matrix silu = rounded(gate.cwiseProduct(s), contract.silu);
  const Matrix d_silu = rounded(d_intermediate.cwiseProduct(up), contract.d_silu);
  Matrix d_first(first_gemm.rows(), 2 * width);
  d_first.leftCols(width) = d_silu.array() * s.array() * (1.0 + gate.array() * (1.0 - s.array()));
  d_first.rightCols(width) = d_intermediate.cwiseProduct(silu);
  return rounded(d_first, contract.gradients);
}

Matrix d_logits(const Matrix& router_logits, const IndexMatrix& selected_experts,
                const Matrix& d_topk_weights, bool norm_topk_prob, const PrecisionContract& contract) {
  const Matrix probabilities = softmax(router_logits);
  Matrix out(router_logits.rows(), router_logits.cols());
  for (std::int64_t t = 0; t < out.rows(); ++t) {
    const RowVector p = probabilities.row(t);
    const RowVector chosen = p(selected_experts.row(t));
    RowVector g = d_topk_weights.row(t);
    if (norm_topk_prob) {  // of chosen / sum: the quotient's own part, and the sum's, common to all
      const double sum = chosen.sum();
      g = g.array() / sum - g.dot(chosen) / (sum * sum);
    }
    RowVector d_p = RowVector::Zero(p.size());
    for (std::int64_t j = 0; j < g.size(); ++j) d_p[selected_experts(t, j)] += g[j];
    out.row(t) = p.array() * (d_p.array() - d_p.dot(p));
  }
  return rounded(out, contract.d_logits);
}

Matrix d_experts(const Matrix& d_slots, const IndexMatrix& selected_experts,
                 const PrecisionContract& contract) {
  const std::int64_t tokens = selected_experts.rows();
  const std::int64_t top_k = selected_experts.cols();
  Matrix out(tokens, d_slots.cols());
#pragma omp parallel for schedule(static) if (worth_threads(d_slots.size()))
  for (std::int64_t t = 0; t < tokens; ++t)
    out.row(t) = sum_of_slots(d_slots.middleRows(t * top_k, top_k), selected_experts.row(t),
                              slot_sum(contract.d_input_combine));
  return rounded(out, contract.gradients);
}

}  // namespace assay::plain
