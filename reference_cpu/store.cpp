#include "reference_cpu/planted/planted.h"
#include "reference_cpu/stages.h"

namespace assay {

Store store_of(Field field, const PrecisionContract& contract) {
  switch (field) {
    case Field::router_logits: return contract.logits;
    case Field::topk_weights: return contract.weights;
    case Field::first_gemm: return contract.first_gemm;
    case Field::intermediate: return contract.intermediate;
    case Field::second_gemm:
    case Field::hidden_states_unpermute: return contract.second_gemm;
    case Field::hidden_states: return contract.output;
    default: return Store::Bf16;
  }
}

namespace {

/// Rows of experts where the field has them; one group otherwise.
void plant_field(Field field, const Layer& layer, auto& values) {
  const auto columns = expected_shape(field, layer.problem->sizes())[1];
  const auto rows = static_cast<std::int64_t>(values.size()) / columns;
  const bool by_expert = row(field).shape[0] == Dim::S && field != Field::hidden_states_unpermute;
  const std::int64_t one_group[] = {0, rows};
  plant_values(layer.fault,
               {rows, columns, by_expert ? std::span(layer.routing.offsets) : std::span(one_group)},
               layer.problem->input, values);
}

}  // namespace

template <class A>
void store_field(Field field, const Layer& layer, Values<A>& values) {
  const Store store = store_of(field, *layer.contract);
  const bool here = layer.fault.kind != FaultKind::None && layer.fault.field == field;
  const bool wrongly = here && rounds_wrongly(layer.fault.kind);
  if (here) plant_field(field, layer, values);
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto before = values[i];
    values[i] = stored(before, store);
    if constexpr (std::is_same_v<A, Predicted>)
      if (wrongly)
        values[i].value = round_wrongly(layer.fault.kind, before.value, static_cast<std::int64_t>(i));
  }
}

template <class A>
Values<A> lift(const Tensor& tensor) {
  Values<A> out(static_cast<std::size_t>(tensor.size()));
  if (tensor.dtype() == DType::Float64) {
    const auto from = tensor.as<double>();
#pragma omp parallel for schedule(static)
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = A::exact(from[i]);
  } else {
    const auto from = tensor.as<Bf16>();
#pragma omp parallel for schedule(static)
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = A::exact(to_float(from[i]));
  }
  return out;
}

template void store_field<Bounded>(Field, const Layer&, Values<Bounded>&);
template void store_field<Predicted>(Field, const Layer&, Values<Predicted>&);
template Values<Bounded> lift<Bounded>(const Tensor&);
template Values<Predicted> lift<Predicted>(const Tensor&);

}  // namespace assay
