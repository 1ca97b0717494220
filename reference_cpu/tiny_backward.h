// Small layers for the tests of gradients.
#pragma once

#include <vector>

#include "reference_cpu/eigen/plain_problem.h"
#include "reference_cpu/evaluator.h"

namespace assay {

inline FieldFlags everything() {
  FieldFlags flags;
  flags.fill(true);
  return flags;
}

/// A small problem with its routing fixed.
struct TinyBackward {
  plain::PlainProblem p;
  Layer layer;

  TinyBackward(plain::PlainProblem problem, std::string_view contract) : p(std::move(problem)) {
    const auto& config = p.problem.config;
    p.problem.output_gradient = Tensor(DType::BFloat16, p.problem.input.shape());
    const auto out = p.problem.output_gradient.as<Bf16>();
    for (std::int64_t t = 0; t < p.d_hidden_states.rows(); ++t)
      for (std::int64_t h = 0; h < config.hidden_size; ++h)
        out[static_cast<std::size_t>(t * config.hidden_size + h)] = round_to_bf16(p.d_hidden_states(t, h));
    use(contract);
    const auto logits = Evaluator<Bounded>(layer, {}, everything()).value(Field::router_logits);
    layer.routing = get_token_counts_and_gather_indices(config, select_experts(layer, logits));
  }
  void use(std::string_view contract) {
    layer.problem = &p.problem;
    layer.contract = &find_contract(contract);
    layer.accumulators = every_product({AccumulatorKind::Hopper, {}});
  }
  TinyBackward(const TinyBackward&) = delete;

  template <class A>
  Values<A> stored_value(Field field) const {
    Evaluator<A> walk(layer, {}, everything());
    return walk.value(field);
  }
};

inline std::vector<double> refs(const Values<Bounded>& values) {
  std::vector<double> out;
  for (const auto& x : values) out.push_back(x.ref);
  return out;
}
inline std::vector<double> refs(const Values<Predicted>& values) {
  std::vector<double> out;
  for (const auto& x : values) out.push_back(x.value);
  return out;
}

}  // namespace assay
