// Small problems for the tests of the plain layer, whose values lie on a coarse grid.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "reference_cpu/eigen/plain_layer.h"

namespace assay::plain {

inline Tensor bf16_tensor(Shape shape, const std::vector<double>& values) {
  Tensor tensor(DType::BFloat16, std::move(shape));
  for (std::size_t i = 0; i < values.size(); ++i) tensor.as<Bf16>()[i] = round_to_bf16(values[i]);
  return tensor;
}

/// A problem whose weights a test may change.
struct PlainProblem {
  Problem problem;
  std::shared_ptr<Tensor> gate_up_proj;  // [E, 2I, H]
  std::shared_ptr<Tensor> down_proj;     // [E, H, I]
  Matrix d_hidden_states;                // [T, H]

  PlainProblem(const MoeConfig& config, std::int64_t tokens) {
    problem.config = config;
    problem.sequence = tokens;
    const auto zeros = [&](Field field) {
      return Tensor(DType::BFloat16, expected_shape(field, problem.sizes()));
    };
    problem.input = zeros(Field::input_hidden_states);
    problem.gate = zeros(Field::gate);
    gate_up_proj = std::make_shared<Tensor>(zeros(Field::gate_up_proj));
    down_proj = std::make_shared<Tensor>(zeros(Field::down_proj));
    problem.experts = stored_experts(gate_up_proj, down_proj);
    d_hidden_states = Matrix::Zero(tokens, config.hidden_size);
  }
};

/// Every value an eighth of -7 to 7: it can be moved by 2^-6, 2^-7 and 2^-8 without being rounded.
inline PlainProblem eighths(const MoeConfig& config, std::int64_t tokens, unsigned seed) {
  PlainProblem p(config, tokens);
  std::mt19937 engine(seed);
  const auto next = [&] { return (static_cast<double>(engine() % 15) - 7.0) / 8.0; };
  for (Tensor* tensor : {&p.problem.input, &p.problem.gate, p.gate_up_proj.get(), p.down_proj.get()})
    for (auto& value : tensor->as<Bf16>()) value = round_to_bf16(next());
  for (auto& value : p.d_hidden_states.reshaped()) value = next();
  return p;
}

}  // namespace assay::plain
