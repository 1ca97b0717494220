#include "reference_cpu/eigen/plain_fields.h"

#include <algorithm>

#include "reference_cpu/eigen/plain_layer.h"

namespace assay::plain {
namespace {

struct ForwardRow {
  Field field;
  Matrix GroupedGemmResult::* matrix;
  Store PrecisionContract::* store;
};
constexpr ForwardRow kForwardRows[] = {
    {Field::topk_weights, &GroupedGemmResult::topk_weights, &PrecisionContract::weights},
    {Field::first_gemm, &GroupedGemmResult::first_gemm, &PrecisionContract::first_gemm},
    {Field::intermediate, &GroupedGemmResult::intermediate, &PrecisionContract::intermediate},
    {Field::second_gemm, &GroupedGemmResult::second_gemm, &PrecisionContract::second_gemm},
    {Field::hidden_states_unpermute, &GroupedGemmResult::hidden_states_unpermute,
     &PrecisionContract::second_gemm},
    {Field::hidden_states, &GroupedGemmResult::hidden_states, &PrecisionContract::output},
};

struct BackwardRow {
  Field field;
  Matrix PlainGradients::* matrix;
};
constexpr BackwardRow kBackwardRows[] = {
    {Field::d_second_gemm, &PlainGradients::d_second_gemm},
    {Field::d_topk_weights, &PlainGradients::d_topk_weights},
    {Field::d_intermediate, &PlainGradients::d_intermediate},
    {Field::d_first_gemm, &PlainGradients::d_first_gemm},
    {Field::d_permuted_hidden_states, &PlainGradients::d_permuted_hidden_states},
    {Field::d_router_logits, &PlainGradients::d_router_logits},
    {Field::d_gate, &PlainGradients::d_gate},
    {Field::d_input_hidden_states, &PlainGradients::d_input_hidden_states},
};

template <class Integers>
Tensor integers(const Integers& values, Shape shape) {
  Tensor tensor(DType::Int32, std::move(shape));
  std::copy_n(values.data(), values.size(), tensor.as<std::int32_t>().begin());
  return tensor;
}

Tensor bf16(const Matrix& values, Shape shape) {
  Tensor tensor(DType::BFloat16, std::move(shape));
  const auto out = tensor.as<Bf16>();
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < values.size(); ++i)
    out[static_cast<std::size_t>(i)] = round_to_bf16(values.data()[i]);
  return tensor;
}

/// `values` may be rows of a tensor of higher rank.
Tensor float64(const Matrix& values, Shape shape) {
  Tensor tensor(DType::Float64, std::move(shape));
  std::copy_n(values.data(), values.size(), tensor.as<double>().begin());
  return tensor;
}

void keep_integers(const ForwardResult& result, const Sizes& sizes, FieldSet& fields) {
  const auto keep = [&](Field field, const auto& values) {
    fields.set(field, integers(values, expected_shape(field, sizes)));
  };
  keep(Field::selected_experts, result.selected_experts);
  keep(Field::token_counts_by_expert, result.grouped.token_counts_by_expert);
  keep(Field::gather_indices, result.grouped.gather_indices);
}

}  // namespace

Candidate run_plain_layer(const Problem& problem, const PrecisionContract& contract) {
  const ForwardResult result = forward(problem, contract);
  Candidate candidate;
  candidate.name = candidate.producer = "reference_cpu";
  candidate.device = "cpu";
  candidate.contract = contract.name;
  keep_integers(result, problem.sizes(), candidate.fields);
  const auto keep = [&](Field field, const Matrix& values, Store store) {
    if (store == Store::Bf16)
      candidate.fields.set(field, bf16(values, expected_shape(field, problem.sizes())));
  };
  keep(Field::router_logits, result.router_logits, contract.logits);
  for (const auto& [field, matrix, store] : kForwardRows)
    keep(field, result.grouped.*matrix, contract.*store);
  return candidate;
}

FieldSet run_both_passes(const Problem& problem, const PrecisionContract& contract,
                         std::span<const std::int32_t> selected, const Tensor& d_hidden_states) {
  const MoeConfig& config = problem.config;
  const Indices replayed = Eigen::Map<const Indices>(
      selected.data(), static_cast<std::int64_t>(selected.size()) / config.top_k, config.top_k);
  const ForwardResult result = forward(problem, contract, replayed);
  const PlainGradients gradients = backward(problem, contract, result, widened(d_hidden_states));
  FieldSet fields;
  keep_integers(result, problem.sizes(), fields);
  const auto keep = [&](Field field, const Matrix& values) {
    fields.set(field, float64(values, expected_shape(field, problem.sizes())));
  };
  keep(Field::router_logits, result.router_logits);
  for (const auto& row : kForwardRows) keep(row.field, result.grouped.*row.matrix);
  for (const auto& row : kBackwardRows) keep(row.field, gradients.*row.matrix);

  const std::int64_t experts = config.num_experts, hidden = config.hidden_size,
                     width = config.moe_intermediate_size;
  Matrix d_gate_up_proj(experts * 2 * width, hidden), d_down_proj(experts * hidden, width);
  for_each_expert(experts, [&](std::int64_t e) {
    const auto one = expert_gradients(problem, contract, result, gradients, e);
    d_gate_up_proj.middleRows(e * 2 * width, 2 * width) = one.d_gate_up_proj;
    d_down_proj.middleRows(e * hidden, hidden) = one.d_down_proj;
  });
  keep(Field::d_gate_up_proj, d_gate_up_proj);
  keep(Field::d_down_proj, d_down_proj);
  return fields;
}

}  // namespace assay::plain
