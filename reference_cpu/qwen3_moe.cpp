#include "reference_cpu/qwen3_moe.h"

#include <algorithm>

#include "reference_cpu/planted/planted.h"
#include "reference_cpu/stages.h"

namespace assay {
namespace {

double value_of(const Interval& x) { return x.ref; }
double value_of(const PredictedValue& x) { return x.value; }

template <class A>
Tensor to_tensor(const Values<A>& values, Shape shape) {
  Tensor tensor(DType::BFloat16, std::move(shape));
  const auto out = tensor.as<Bf16>();
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = round_to_bf16(value_of(values[i]));
  return tensor;
}

Tensor to_tensor(std::span<const std::int32_t> values, Shape shape) {
  Tensor tensor(DType::Int32, std::move(shape));
  std::ranges::copy(values, tensor.as<std::int32_t>().begin());
  return tensor;
}

/// Runs the stage list and keeps every field the contract stores.
template <class A>
class Run {
 public:
  Run(const Problem& problem, const PrecisionContract& contract, const Accumulators& accumulators,
      const Fault& fault, std::vector<Undetermined>* undetermined)
      : undetermined_(undetermined) {
    layer_.problem = &problem;
    layer_.contract = &contract;
    layer_.accumulators = accumulators;
    layer_.fault = fault;
  }

  void router() {
    logits_ = keep(Field::router_logits, router_logits<A>(layer_));
    layer_.routing = get_token_counts_and_gather_indices(layer_.config(), select());
    const Sizes sizes = layer_.problem->sizes();
    const auto integers = [&](Field field, const std::vector<std::int32_t>& values) {
      fields_.set(field, to_tensor(values, expected_shape(field, sizes)));
    };
    integers(Field::selected_experts, layer_.routing.selected);
    weights_ = keep(Field::topk_weights, topk_weights<A>(layer_, logits_));
    integers(Field::token_counts_by_expert, planted_counts(layer_.fault, layer_.routing.counts));
    plant_gather(layer_.fault, layer_.routing);
    integers(Field::gather_indices, layer_.routing.gather);
  }

  void experts() {
    auto first = keep(Field::first_gemm, first_gemm<A>(layer_));
    auto middle = keep(Field::intermediate, act_and_mul<A>(layer_, first));
    first = {};
    auto second = keep(Field::second_gemm, second_gemm<A>(layer_, middle));
    middle = {};
    auto unpermuted = keep(Field::hidden_states_unpermute, unpermute<A>(layer_, second));
    second = {};
    keep(Field::hidden_states, merge<A>(layer_, unpermuted, weights_));
  }

  FieldSet take() { return std::move(fields_); }

 private:
  std::vector<std::int32_t> select() {
    if constexpr (std::is_same_v<A, Predicted>) {
      std::vector<bool> tokens;
      auto selected = select_experts(layer_, logits_, tokens);
      note(Field::selected_experts, std::ranges::count(tokens, true) * layer_.config().top_k);
      return selected;
    } else {
      return select_experts(layer_, logits_);
    }
  }

  Values<A> keep(Field field, Values<A> values) {
    const auto unrounded = read_unrounded(field) ? values : Values<A>{};
    store_field<A>(field, layer_, values);
    if (store_of(field, *layer_.contract) == Store::Bf16) {
      Tensor tensor = to_tensor<A>(values, expected_shape(field, layer_.problem->sizes()));
      if (layer_.fault.hits(FaultKind::FlipBit, field) && tensor.size() > 0) {
        auto& victim = tensor.as<Bf16>()[static_cast<std::size_t>(tensor.size() / 2)];
        victim.bits = static_cast<std::uint16_t>(victim.bits ^ (1u << layer_.fault.amount));
        values[values.size() / 2] = A::exact(to_float(victim));
      }
      fields_.set(field, std::move(tensor));
    }
    if constexpr (std::is_same_v<A, Predicted>)
      note(field, std::ranges::count(values, true, &PredictedValue::undetermined));
    return unrounded.empty() ? values : unrounded;
  }

  /// Whether the planted fault lets the next stage read the field before its rounding.
  bool read_unrounded(Field field) const {
    const auto read_by = [&](Field next) { return layer_.fault.hits(FaultKind::ReadsUnrounded, next); };
    switch (field) {
      case Field::first_gemm: return read_by(Field::intermediate);
      case Field::intermediate: return read_by(Field::second_gemm);
      case Field::topk_weights: return read_by(Field::hidden_states);
      default: return false;
    }
  }

  void note(Field field, std::int64_t elements) {
    if (undetermined_ != nullptr && elements > 0) undetermined_->push_back({field, elements});
  }

  Layer layer_;
  Values<A> logits_, weights_;
  FieldSet fields_;
  std::vector<Undetermined>* undetermined_;
};

Candidate describe(FieldSet fields, const PrecisionContract& contract, const Accumulators& accumulators) {
  Candidate candidate;
  candidate.contract = contract.name;
  candidate.accumulators = accumulators;
  candidate.accumulators.rest_as_torch = true;
  candidate.device = "cpu";
  candidate.fields = std::move(fields);
  return candidate;
}

}  // namespace

FieldSet run_router(const Problem& problem, const PrecisionContract& contract,
                    const Accumulators& accumulators) {
  Run<Predicted> run(problem, contract, accumulators, {}, nullptr);
  run.router();
  return run.take();
}

Candidate predict_forward(const Problem& problem, const PrecisionContract& contract,
                          const Accumulators& accumulators, const Fault& fault,
                          std::vector<Undetermined>& undetermined) {
  Run<Predicted> run(problem, contract, accumulators, fault, &undetermined);
  run.router();
  run.experts();
  auto candidate = describe(run.take(), contract, accumulators);
  candidate.name = candidate.producer = "predicted";
  return candidate;
}

Candidate predict_forward(const Problem& problem, const PrecisionContract& contract,
                          const Accumulators& accumulators, const Fault& fault) {
  std::vector<Undetermined> ignored;
  return predict_forward(problem, contract, accumulators, fault, ignored);
}

Candidate forward(const Problem& problem, const PrecisionContract& contract) {
  Run<Bounded> run(problem, contract, {}, {}, nullptr);
  run.router();
  run.experts();
  auto candidate = describe(run.take(), contract, {});
  candidate.name = candidate.producer = "reference_cpu";
  return candidate;
}

}  // namespace assay
