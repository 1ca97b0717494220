#include "reference_cpu/eigen/plain_fields.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/subproblem.h"
#include "harness/contract/worth_threads.h"
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

/// Those with a row per token or slot.
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
    {Field::d_experts_hidden_states, &PlainGradients::d_experts_hidden_states},
    {Field::d_input_hidden_states, &PlainGradients::d_input_hidden_states},
};

template <class Integers>
Tensor integers(const Integers& values, Shape shape) {
  Tensor tensor(DType::Int32, std::move(shape));
  std::copy_n(values.data(), values.size(), tensor.as<std::int32_t>().begin());
  return tensor;
}

void place_rounded(const Matrix& values, Tensor& to, std::int64_t first) {
  const auto round = [&](auto out, auto rounding) {
#pragma omp parallel for schedule(static) if (worth_threads(values.size()))
    for (std::int64_t i = 0; i < values.size(); ++i)
      out[static_cast<std::size_t>(first + i)] = rounding(values.data()[i]);
  };
  if (to.dtype() == DType::Float32)
    round(to.as<float>(), [](double x) { return static_cast<float>(x); });
  else
    round(to.as<Bf16>(), [](double x) { return round_to_bf16(x); });
}

/// Values in the type that the contract stores the field in.
Tensor in_dtype(DType dtype, const Matrix& values, Shape shape) {
  Tensor tensor(dtype, std::move(shape));
  place_rounded(values, tensor, 0);
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

IndexMatrix as_indices(std::span<const std::int32_t> selected, const Sizes& sizes) {
  if (static_cast<std::int64_t>(selected.size()) != sizes.slots())
    throw InputError(fmt::format("selected_experts: expected {} of {} tokens, found {}", sizes.slots(),
                                 sizes.tokens, selected.size()));
  return Eigen::Map<const IndexMatrix>(selected.data(), sizes.tokens, sizes.config.top_k);
}

struct BothPasses {
  ForwardResult result;
  PlainGradients gradients;
};
BothPasses both_passes(const Problem& problem, const PrecisionContract& contract, const IndexMatrix& selected,
                       const Matrix& d_hidden_states) {
  ForwardResult result = forward(problem, contract, selected);
  PlainGradients gradients = backward(problem, contract, result, d_hidden_states);
  return {std::move(result), std::move(gradients)};
}

FieldSet rows_of_fields(const ForwardResult& result, const PlainGradients& gradients, const Sizes& sizes) {
  FieldSet fields;
  const auto keep = [&](Field field, const Matrix& values) {
    fields.set(field, float64(values, expected_shape(field, sizes)));
  };
  keep(Field::router_logits, result.router_logits);
  for (const auto& row : kForwardRows) keep(row.field, result.grouped.*row.matrix);
  for (const auto& row : kBackwardRows) keep(row.field, gradients.*row.matrix);
  return fields;
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
    const DType dtype = dtype_of(field, contract);
    if (store == Store::Bf16 || dtype == DType::Float32)
      candidate.fields.set(field, in_dtype(dtype, values, expected_shape(field, problem.sizes())));
  };
  keep(Field::router_logits, result.router_logits, contract.logits);
  for (const auto& [field, matrix, store] : kForwardRows)
    keep(field, result.grouped.*matrix, contract.*store);
  if (problem.output_gradient.shape().size() != 2 || contract.gradients == Store::Unrounded) return candidate;
  const Sizes sizes = problem.sizes();
  const PlainGradients gradients = backward(problem, contract, result, widened(problem.output_gradient));
  for (const auto& row : kBackwardRows) keep(row.field, gradients.*row.matrix, store_of(row.field, contract));
  keep(Field::d_gate, gradients.d_gate, Store::Bf16);
  const DType dtype = dtype_of(Field::d_gate, contract);  // of every weight's gradient
  Tensor d_gate_up_proj(dtype, expected_shape(Field::d_gate_up_proj, sizes));
  Tensor d_down_proj(dtype, expected_shape(Field::d_down_proj, sizes));
  for_each_expert(problem.config.num_experts, [&](std::int64_t e) {
    const auto one = expert_gradients(problem, contract, result, gradients, e);
    place_rounded(one.d_gate_up_proj, d_gate_up_proj, e * one.d_gate_up_proj.size());
    place_rounded(one.d_down_proj, d_down_proj, e * one.d_down_proj.size());
  });
  candidate.fields.set(Field::d_gate_up_proj, std::move(d_gate_up_proj));
  candidate.fields.set(Field::d_down_proj, std::move(d_down_proj));
  return candidate;
}

FieldSet run_both_passes(const Problem& problem, const PrecisionContract& contract,
                         std::span<const std::int32_t> selected, const Tensor& d_hidden_states) {
  const Sizes sizes = problem.sizes();
  const auto [result, gradients] =
      both_passes(problem, contract, as_indices(selected, sizes), widened(d_hidden_states));
  FieldSet fields = rows_of_fields(result, gradients, sizes);
  keep_integers(result, sizes, fields);
  fields.set(Field::d_gate, float64(gradients.d_gate, expected_shape(Field::d_gate, sizes)));

  const auto [hidden, width, experts, top_k, norm] = problem.config;
  Matrix d_gate_up_proj(experts * 2 * width, hidden);
  Matrix d_down_proj(experts * hidden, width);
  for_each_expert(experts, [&](std::int64_t e) {
    const auto one = expert_gradients(problem, contract, result, gradients, e);
    d_gate_up_proj.middleRows(e * 2 * width, 2 * width) = one.d_gate_up_proj;
    d_down_proj.middleRows(e * hidden, hidden) = one.d_down_proj;
  });
  fields.set(Field::d_gate_up_proj, float64(d_gate_up_proj, expected_shape(Field::d_gate_up_proj, sizes)));
  fields.set(Field::d_down_proj, float64(d_down_proj, expected_shape(Field::d_down_proj, sizes)));
  return fields;
}

FieldSet run_tokens(const Problem& problem, const PrecisionContract& contract,
                    std::span<const std::int32_t> selected, const Tensor& d_hidden_states,
                    std::span<const std::int64_t> tokens) {
  Part part = whole(problem.sizes());
  part.tokens.assign(tokens.begin(), tokens.end());
  const Problem some = subproblem(problem, part);
  const IndexMatrix routing = as_indices(selected, problem.sizes())(part.tokens, Eigen::all);
  const auto [result, gradients] =
      both_passes(some, contract, routing, widened(d_hidden_states)(part.tokens, Eigen::all));
  return rows_of_fields(result, gradients, some.sizes());
}

FieldSet run_expert(const Problem& problem, const PrecisionContract& contract,
                    std::span<const std::int32_t> selected, const Tensor& d_hidden_states,
                    std::int64_t expert) {
  const auto [hidden, width, experts, top_k, norm] = problem.config;
  const auto one = expert_gradients(problem, contract, as_indices(selected, problem.sizes()),
                                    widened(d_hidden_states), expert);
  FieldSet fields;
  fields.set(Field::d_gate_up_proj, float64(one.d_gate_up_proj, {2 * width, hidden}));
  fields.set(Field::d_down_proj, float64(one.d_down_proj, {hidden, width}));
  return fields;
}

}  // namespace assay::plain
