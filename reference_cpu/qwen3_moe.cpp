#include "reference_cpu/qwen3_moe.h"

#include <algorithm>

#include "harness/contract/worth_threads.h"
#include "reference_cpu/evaluator.h"
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
#pragma omp parallel for schedule(static) if (worth_threads(values.size()))
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = round_to_bf16(value_of(values[i]));
  return tensor;
}

Tensor to_tensor(std::span<const std::int32_t> values, Shape shape) {
  Tensor tensor(DType::Int32, std::move(shape));
  std::ranges::copy(values, tensor.as<std::int32_t>().begin());
  return tensor;
}

/// Walks the forward steps and keeps every field the contract stores.
template <class A>
class ForwardRun {
 public:
  ForwardRun(const Problem& problem, const PrecisionContract& contract, const Accumulators& accumulators,
             const Fault& fault, std::vector<Undetermined>* undetermined)
      : undetermined_(undetermined), walk_(layer_, {}, forward_fields()) {
    layer_.problem = &problem;
    layer_.contract = &contract;
    layer_.accumulators = accumulators;
    layer_.fault = fault;
  }

  /// Up to and with `last`, in the order of evaluation.
  FieldSet run(Field last) {
    for (const Field field : kEvaluationOrder) {
      if (row(field).group == Group::Forward) step(field);
      if (field == last) break;
    }
    return std::move(fields_);
  }

 private:
  static FieldFlags forward_fields() {
    FieldFlags flags{};
    for (const FieldRow& field : kFields)
      flags[static_cast<std::size_t>(field.id)] = field.group == Group::Forward;
    return flags;
  }

  void step(Field field) {
    switch (find_step(field)->kind) {
      case StepKind::Selection:
        layer_.routing = get_token_counts_and_gather_indices(layer_.config(), select());
        return store(field, layer_.routing.selected);
      case StepKind::Counts: return store(field, planted_counts(layer_.fault, layer_.routing.counts));
      case StepKind::Order:
        plant_gather(layer_.fault, layer_.routing);
        return store(field, layer_.routing.gather);
      default: keep(field, walk_.value(field));
    }
  }

  void store(Field field, std::span<const std::int32_t> values) {
    fields_.set(field, to_tensor(values, expected_shape(field, layer_.problem->sizes())));
  }

  std::vector<std::int32_t> select() {
    const auto& logits = walk_.value(Field::router_logits);
    if constexpr (std::is_same_v<A, Predicted>) {
      std::vector<bool> tokens;
      auto selected = select_experts(layer_, logits, tokens);
      note(Field::selected_experts, std::ranges::count(tokens, true) * layer_.config().top_k);
      return selected;
    } else {
      return select_experts(layer_, logits);
    }
  }

  void keep(Field field, const Values<A>& values) {
    if (store_of(field, *layer_.contract) == Store::Bf16)
      fields_.set(field, to_tensor<A>(values, expected_shape(field, layer_.problem->sizes())));
    if constexpr (std::is_same_v<A, Predicted>)
      note(field, std::ranges::count(values, true, &PredictedValue::undetermined));
  }

  void note(Field field, std::int64_t elements) {
    if (undetermined_ != nullptr && elements > 0) undetermined_->push_back({field, elements});
  }

  Layer layer_;
  FieldSet fields_;
  std::vector<Undetermined>* undetermined_;
  Evaluator<A> walk_;
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
  return ForwardRun<Predicted>(problem, contract, accumulators, {}, nullptr).run(Field::topk_weights);
}

Candidate predict_forward(const Problem& problem, const PrecisionContract& contract,
                          const Accumulators& accumulators, const Fault& fault,
                          std::vector<Undetermined>& undetermined) {
  ForwardRun<Predicted> run(problem, contract, accumulators, fault, &undetermined);
  auto candidate = describe(run.run(Field::hidden_states), contract, accumulators);
  candidate.name = candidate.producer = "predicted";
  return candidate;
}

Candidate predict_forward(const Problem& problem, const PrecisionContract& contract,
                          const Accumulators& accumulators, const Fault& fault) {
  std::vector<Undetermined> ignored;
  return predict_forward(problem, contract, accumulators, fault, ignored);
}

Candidate forward(const Problem& problem, const PrecisionContract& contract) {
  ForwardRun<Bounded> run(problem, contract, {}, {}, nullptr);
  auto candidate = describe(run.run(Field::hidden_states), contract, {});
  candidate.name = candidate.producer = "reference_cpu";
  return candidate;
}

}  // namespace assay
