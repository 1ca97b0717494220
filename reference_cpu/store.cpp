#include "reference_cpu/stages.h"

#include <bit>

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

template <class A>
void store_field(Field field, const Layer& layer, Values<A>& values) {
  const Store store = store_of(field, *layer.contract);
  const bool planted = layer.fault.field == field && layer.fault.kind == FaultKind::TruncateBf16;
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto before = values[i];
    values[i] = stored(before, store);
    if constexpr (std::is_same_v<A, Predicted>)
      if (planted) values[i].value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(before.value) & 0xffff0000u);
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
