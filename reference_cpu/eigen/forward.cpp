#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/contract/worth_threads.h"
#include "reference_cpu/eigen/plain_layer.h"

namespace assay::plain {

ForwardResult forward(const Problem& problem, const PrecisionContract& contract,
                      const std::optional<IndexMatrix>& replayed) {
  const MoeConfig& config = problem.config;
  const Matrix input = widened(problem.input);
  auto [router_logits, topk_weights, selected] =
      run_router(input, widened(problem.gate), config, contract, replayed);
  auto [counts, gather] = get_token_counts_and_gather_indices(selected, config.num_experts);
  const IndexVector token_of_row = gather / static_cast<std::int32_t>(config.top_k);

  Matrix first_gemm(gather.size(), 2 * config.moe_intermediate_size);
  Matrix intermediate(gather.size(), config.moe_intermediate_size);
  Matrix second_gemm(gather.size(), config.hidden_size);
  for_each_expert(config.num_experts, [&](std::int64_t e) {
    const auto [begin, rows] = rows_of(counts, e);
    if (rows == 0) return;
    const Matrix x = input(token_of_row.segment(begin, rows), Eigen::all);
    const auto gate_up_proj = problem.experts(Field::gate_up_proj, e);
    const Matrix product = times_transposed(x, gate_up_proj.values);
    const Matrix first = rounded(product, contract.first_gemm);
    const Matrix hidden = act_and_mul(contract.swiglu_reads == From::Memory ? first : product, contract);
    const auto down_proj = problem.experts(Field::down_proj, e);
    first_gemm.middleRows(begin, rows) = first;
    intermediate.middleRows(begin, rows) = hidden;
    second_gemm.middleRows(begin, rows) =
        rounded(times_transposed(hidden, down_proj.values), contract.second_gemm);
  });

  Matrix unpermuted(second_gemm.rows(), second_gemm.cols());
  unpermuted(gather, Eigen::all) = second_gemm;
  Matrix hidden_states = merge(unpermuted, topk_weights, selected, contract);
  return {{std::move(counts), std::move(gather), std::move(topk_weights), std::move(first_gemm),
           std::move(intermediate), std::move(second_gemm), std::move(unpermuted), std::move(hidden_states)},
          std::move(router_logits),
          std::move(selected)};
}

RouterResult run_router(const Matrix& hidden_states, const Matrix& gate, const MoeConfig& config,
                        const PrecisionContract& contract, const std::optional<IndexMatrix>& replayed) {
  Matrix logits =
      in_float32(rounded(hidden_states * gate.transpose(), contract.logits), Field::router_logits, contract);
  // Softmax is monotone: the largest logits have the largest probabilities, and none of them merge.
  IndexMatrix selected = replayed ? *replayed : largest(logits, config.top_k);
  if (selected.rows() != logits.rows() || selected.cols() != config.top_k)
    throw InputError(fmt::format("selected_experts: expected [{}, {}], found [{}, {}]", logits.rows(),
                                 config.top_k, selected.rows(), selected.cols()));
  if ((selected.array() < 0 || selected.array() >= config.num_experts).any())
    throw InputError(fmt::format("selected_experts: expected 0 to {}, found {} to {}", config.num_experts - 1,
                                 selected.minCoeff(), selected.maxCoeff()));
  Matrix weights = in_float32(weights_of(logits, selected, config.norm_topk_prob, contract),
                              Field::topk_weights, contract);
  return {std::move(logits), std::move(weights), std::move(selected)};
}

Matrix in_float32(Matrix values, Field field, const PrecisionContract& contract) {
  if (dtype_of(field, contract) == DType::Float32) values = values.cast<float>().cast<double>().eval();
  return values;
}

Matrix softmax(const Matrix& logits) {
  const Eigen::VectorXd top = logits.rowwise().maxCoeff();
  // Eigen's own exp clamps its argument and may lose a NaN.
  const Matrix e = (logits.colwise() - top).unaryExpr([](double x) { return std::exp(x); });
  return e.array().colwise() / e.rowwise().sum().array();
}

IndexMatrix largest(const Matrix& values, std::int64_t top_k) {
  IndexMatrix chosen(values.rows(), top_k);
  for (std::int64_t t = 0; t < values.rows(); ++t) {
    // NaN counts as largest, as in torch.
    const RowVector keys =
        values.row(t).array().isNaN().select(std::numeric_limits<double>::infinity(), values.row(t));
    std::vector<std::int32_t> order(static_cast<std::size_t>(values.cols()));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::ranges::greater{}, [&](std::int32_t e) { return keys[e]; });
    std::copy_n(order.begin(), top_k, chosen.row(t).begin());
  }
  return chosen;
}

Matrix weights_of(const Matrix& router_logits, const IndexMatrix& selected_experts, bool norm_topk_prob,
                  const PrecisionContract& contract) {
  const Matrix probabilities = softmax(router_logits);
  Matrix weights(selected_experts.rows(), selected_experts.cols());
  for (std::int64_t t = 0; t < weights.rows(); ++t)
    weights.row(t) = probabilities.row(t)(selected_experts.row(t));
  if (norm_topk_prob) weights.array().colwise() /= weights.rowwise().sum().eval().array();
  return rounded(weights, contract.weights);
}

ExpertOrder get_token_counts_and_gather_indices(const IndexMatrix& selected_experts,
                                                std::int64_t num_experts) {
  const auto flat = selected_experts.reshaped<Eigen::RowMajor>();
  ExpertOrder order{IndexVector::Zero(num_experts), IndexVector(flat.size())};
  for (const auto e : flat) ++order.counts[e];
  std::iota(order.gather_indices.begin(), order.gather_indices.end(), 0);
  std::ranges::stable_sort(order.gather_indices, {}, [&](std::int32_t slot) { return flat[slot]; });
  return order;
}

ExpertRows rows_of(const IndexVector& counts, std::int64_t expert) {
  return {counts.head(expert).cast<std::int64_t>().sum(), counts[expert]};
}

Matrix sigmoid(const Matrix& gate, const PrecisionContract& contract) {
  const double lost = contract.unit_roundoff == kFp32UnitRoundoff ? 0.5 * kFp32UnitRoundoff : 0.0;
  return gate.unaryExpr([lost](double a) {
    const double e = std::exp(-a);
    return e < lost ? 1.0 : 1.0 / (1.0 + e);
  });
}

Matrix activation(const Matrix& first_gemm, const PrecisionContract& contract) {
  const Matrix gate = first_gemm.leftCols(first_gemm.cols() / 2);
  const auto up = first_gemm.rightCols(first_gemm.cols() / 2);
  const Matrix silu = rounded(gate.cwiseProduct(sigmoid(gate, contract)), contract.silu);
  const double most = contract.unit_roundoff == kFp32UnitRoundoff ? std::numeric_limits<float>::max()
                                                                  : std::numeric_limits<double>::infinity();
  return silu.cwiseProduct(up).unaryExpr([most](double x) {
    return std::fabs(x) > most ? std::copysign(std::numeric_limits<double>::infinity(), x) : x;
  });
}

Matrix act_and_mul(const Matrix& first_gemm, const PrecisionContract& contract) {
  return rounded(activation(first_gemm, contract), contract.intermediate);
}

Matrix merge(const Matrix& hidden_states_unpermute, const Matrix& topk_weights,
             const IndexMatrix& selected_experts, const PrecisionContract& contract) {
  const std::int64_t tokens = topk_weights.rows();
  const std::int64_t top_k = topk_weights.cols();
  const SlotSum sum = slot_sum(contract.combine);
  Matrix hidden_states(tokens, hidden_states_unpermute.cols());
#pragma omp parallel for schedule(static) if (worth_threads(hidden_states_unpermute.size()))
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto slots = hidden_states_unpermute.middleRows(t * top_k, top_k).array();
    const Matrix weighted =
        rounded(slots.colwise() * topk_weights.row(t).transpose().array(), contract.weighted);
    hidden_states.row(t) = rounded(sum_of_slots(weighted, selected_experts.row(t), sum), contract.output);
  }
  return hidden_states;
}

SlotSum slot_sum(Combine combine) {
  if (combine == Combine::Fp32Sum) return SlotSum::Exact;
  return combine == Combine::Bf16ByExpertDescending ? SlotSum::Bf16Descending : SlotSum::Bf16Ascending;
}

RowVector sum_of_slots(const Matrix& slots, const IndexVector& experts, SlotSum sum) {
  if (sum == SlotSum::Exact) return slots.colwise().sum();
  std::vector<std::int64_t> order(static_cast<std::size_t>(slots.rows()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](std::int64_t j) { return experts[j]; });
  if (sum == SlotSum::Bf16Descending) std::ranges::reverse(order);
  RowVector total = RowVector::Zero(slots.cols());
  for (const auto j : order) total = rounded(total, Store::Bf16) + slots.row(j);
  return total;
}

}  // namespace assay::plain
