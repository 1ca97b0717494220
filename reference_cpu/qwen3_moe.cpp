#include "reference_cpu/qwen3_moe.h"

#include <algorithm>
#include <optional>

#include "harness/contract/layer.h"
#include "harness/contract/worth_threads.h"
#include "reference_cpu/evaluator.h"
#include "reference_cpu/planted/planted.h"
#include "reference_cpu/stages.h"

namespace assay {
namespace {

double value_of(const Interval& x) { return x.ref; }
double value_of(const PredictedValue& x) { return x.value; }

Bf16 kept_as(double x, Bf16) { return round_to_bf16(x); }
float kept_as(double x, float) { return static_cast<float>(x); }

template <class A, class Element>
void keep_rounded(const Values<A>& values, std::int64_t begin, std::span<Element> field) {
  const auto out = field.subspan(static_cast<std::size_t>(begin), values.size());
#pragma omp parallel for schedule(static) if (worth_threads(values.size()))
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = kept_as(value_of(values[i]), Element{});
}

Tensor to_tensor(std::span<const std::int32_t> values, Shape shape) {
  Tensor tensor(DType::Int32, std::move(shape));
  std::ranges::copy(values, tensor.as<std::int32_t>().begin());
  return tensor;
}

enum class Passes { Forward, Both };

/// Walks the steps of one pass or both and keeps every field the contract stores.
template <class A>
class LayerRun {
 public:
  LayerRun(Passes passes, const Problem& problem, const PrecisionContract& contract,
           const Accumulators& accumulators, const Fault& fault, const Engine* engine,
           std::vector<Undetermined>* undetermined)
      : wanted_(fields_of(passes)), undetermined_(undetermined), walk_(layer_, {}, wanted_) {
    layer_.problem = &problem;
    layer_.contract = &contract;
    layer_.accumulators = accumulators;
    layer_.fault = fault;
    layer_.engine = engine;
  }

  /// Up to and with `last`, in the order of evaluation.
  FieldSet run(std::optional<Field> last = {}) {
    for (const Field field : kEvaluationOrder) {
      if (wanted_[static_cast<std::size_t>(field)]) step(field);
      if (field == last) break;
    }
    return std::move(fields_);
  }

 private:
  static FieldFlags fields_of(Passes passes) {
    FieldFlags flags{};
    for (const FieldRow& field : kFields)
      flags[static_cast<std::size_t>(field.id)] =
          field.group == Group::Forward || (passes == Passes::Both && field.group == Group::Backward);
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
      default: break;
    }
    const Sizes sizes = layer_.problem->sizes();
    const DType dtype = dtype_of(field, *layer_.contract);
    if (store_of(field, *layer_.contract) == Store::Bf16 || dtype == DType::Float32)
      fields_.set(field, Tensor(dtype, expected_shape(field, sizes)));
    if (row(field).rows != RowsAre::ExpertMatrix) return keep(field, 0, walk_.value(field));
    // Nobody reads a weight's gradient, so that it can come in blocks; a fault may need to see all of it.
    const auto blocks = layer_.fault.field == field && layer_.fault.kind != FaultKind::None
                            ? std::vector{RowRange{0, rows_of(field, sizes)}}
                            : blocks_of(field, sizes);
    for (const RowRange& rows : blocks) {
      auto values = walk_.evaluate_rows(field, rows);
      store_field<A>(field, layer_, values);
      keep(field, rows.begin, values);
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

  void keep(Field field, std::int64_t first_row, const Values<A>& values) {
    const std::int64_t begin = first_row * width_of(field, layer_.problem->sizes());
    if (fields_.has(field) && fields_.at(field).dtype() == DType::Float32)
      keep_rounded<A>(values, begin, fields_.at(field).as<float>());
    else if (fields_.has(field))
      keep_rounded<A>(values, begin, fields_.at(field).as<Bf16>());
    if constexpr (std::is_same_v<A, Predicted>)
      note(field, std::ranges::count(values, true, &PredictedValue::undetermined));
  }

  void note(Field field, std::int64_t elements) {
    if (undetermined_ == nullptr || elements == 0) return;
    if (undetermined_->empty() || undetermined_->back().field != field) undetermined_->push_back({field, 0});
    undetermined_->back().elements += elements;
  }

  FieldFlags wanted_;
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

Candidate predict(Passes passes, const Problem& problem, const PrecisionContract& contract,
                  const Accumulators& accumulators, const Fault& fault, const Engine* engine,
                  std::vector<Undetermined>* undetermined) {
  LayerRun<Predicted> run(passes, problem, contract, accumulators, fault, engine, undetermined);
  auto candidate = describe(run.run(), contract, accumulators);
  candidate.name = candidate.producer = "predicted";
  return candidate;
}

Candidate in_float64(Passes passes, const Problem& problem, const PrecisionContract& contract,
                     const Engine* engine) {
  LayerRun<Bounded> run(passes, problem, contract, {}, {}, engine, nullptr);
  auto candidate = describe(run.run(), contract, {});
  candidate.name = candidate.producer = "reference_cpu";
  return candidate;
}

}  // namespace

FieldSet run_router(const Problem& problem, const PrecisionContract& contract,
                    const Accumulators& accumulators) {
  return LayerRun<Predicted>(Passes::Forward, problem, contract, accumulators, {}, nullptr, nullptr)
      .run(Field::topk_weights);
}

Candidate predict_forward(const Problem& problem, const PrecisionContract& contract,
                          const Accumulators& accumulators, const Fault& fault,
                          std::vector<Undetermined>& undetermined) {
  return predict(Passes::Forward, problem, contract, accumulators, fault, nullptr, &undetermined);
}

Candidate predict_forward(const Problem& problem, const PrecisionContract& contract,
                          const Accumulators& accumulators, const Fault& fault, const Engine* engine) {
  return predict(Passes::Forward, problem, contract, accumulators, fault, engine, nullptr);
}

Candidate predict_both_passes(const Problem& problem, const PrecisionContract& contract,
                              const Accumulators& accumulators, const Fault& fault,
                              std::vector<Undetermined>& undetermined) {
  return predict(Passes::Both, problem, contract, accumulators, fault, nullptr, &undetermined);
}

Candidate predict_both_passes(const Problem& problem, const PrecisionContract& contract,
                              const Accumulators& accumulators, const Fault& fault) {
  return predict(Passes::Both, problem, contract, accumulators, fault, nullptr, nullptr);
}

Candidate forward(const Problem& problem, const PrecisionContract& contract, const Engine* engine) {
  return in_float64(Passes::Forward, problem, contract, engine);
}

Candidate both_passes(const Problem& problem, const PrecisionContract& contract) {
  return in_float64(Passes::Both, problem, contract, nullptr);
}

}  // namespace assay
