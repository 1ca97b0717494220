#include "reference_cpu/eigen/plain_candidate.h"

#include <algorithm>

#include "reference_cpu/eigen/plain_layer.h"

namespace assay::plain {
namespace {

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

}  // namespace

Candidate run_plain_layer(const Problem& problem, const PrecisionContract& contract) {
  const ForwardResult result = forward(problem, contract);
  const GroupedGemmResult& of = result.grouped;
  Candidate candidate;
  candidate.name = candidate.producer = "reference_cpu";
  candidate.device = "cpu";
  candidate.contract = contract.name;
  const auto shape = [&](Field field) { return expected_shape(field, problem.sizes()); };
  const auto keep_integers = [&](Field field, const auto& values) {
    candidate.fields.set(field, integers(values, shape(field)));
  };
  const auto keep = [&](Field field, const Matrix& values, Store store) {
    if (store == Store::Bf16) candidate.fields.set(field, bf16(values, shape(field)));
  };
  keep(Field::router_logits, result.router_logits, contract.logits);
  keep_integers(Field::selected_experts, result.selected_experts);
  keep_integers(Field::token_counts_by_expert, of.token_counts_by_expert);
  keep_integers(Field::gather_indices, of.gather_indices);
  keep(Field::topk_weights, of.topk_weights, contract.weights);
  keep(Field::first_gemm, of.first_gemm, contract.first_gemm);
  keep(Field::intermediate, of.intermediate, contract.intermediate);
  keep(Field::second_gemm, of.second_gemm, contract.second_gemm);
  keep(Field::hidden_states_unpermute, of.hidden_states_unpermute, contract.second_gemm);
  keep(Field::hidden_states, of.hidden_states, contract.output);
  return candidate;
}

}  // namespace assay::plain
