#include "harness/contract/element_constants.h"
#include "harness/contract/layer.h"
#include "harness/contract/stored.h"
#include "harness/contract/worth_threads.h"
#include "reference_cpu/planted/planted.h"
#include "reference_cpu/stages.h"

namespace assay {

/// Rows of experts where the field has them; one group otherwise.
template <class A>
void plant_field(Field field, const Layer& layer, Values<A>& values) {
  if (layer.fault.kind == FaultKind::None || layer.fault.field != field) return;
  const std::int64_t width = width_of(field, layer.problem->sizes());
  const std::int64_t rows = std::ssize(values) / width;
  std::vector<std::int64_t> offsets = {0, rows};
  std::span<const std::int32_t> counts;
  if (row(field).rows == RowsAre::ExpertOrder) offsets = layer.routing.offsets;
  if (row(field).rows == RowsAre::ExpertMatrix) {
    counts = layer.routing.counts;
    offsets.clear();
    for (std::int64_t e = 0; e <= std::ssize(counts); ++e) offsets.push_back(e * rows / std::ssize(counts));
  }
  plant_values(layer.fault, {rows, width, offsets, counts}, layer.problem->input, values);
}

namespace {

/// One bit of one stored element is wrong.
void flip_bit(const Fault& fault, DType dtype, Values<Predicted>& values) {
  if (values.empty()) return;
  float& victim = values[values.size() / 2].value;
  victim = with_bits(dtype, stored_as(dtype, victim).bits() ^ (1u << fault.amount)).value;
}
void flip_bit(const Fault&, DType, Values<Bounded>&) {}

}  // namespace

template <class A>
void store_field(Field field, const Layer& layer, Values<A>& values) {
  const Store store = store_of(field, *layer.contract);
  const bool here = layer.fault.kind != FaultKind::None && layer.fault.field == field;
  const bool wrongly = here && rounds_wrongly(layer.fault.kind);
  plant_field<A>(field, layer, values);
#pragma omp parallel for schedule(static) if (worth_threads(8 * values.size()))
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto before = values[i];
    values[i] = stored(before, store);
    if constexpr (std::is_same_v<A, Predicted>)
      if (wrongly)
        values[i].value = round_wrongly(layer.fault.kind, before.value, static_cast<std::int64_t>(i));
  }
  if (dtype_of(field, *layer.contract) == DType::Float32 && !is_weight_gradient(field))
    for (auto& value : values) value = in_float32(value);
  if (layer.fault.hits(FaultKind::FlipBit, field))
    flip_bit(layer.fault, dtype_of(field, *layer.contract), values);
}

template <class A>
Values<A> lift(const Tensor& tensor) {
  Values<A> out(static_cast<std::size_t>(tensor.size()));
  if (tensor.dtype() == DType::Float64) {
    const auto from = tensor.as<double>();
#pragma omp parallel for schedule(static) if (worth_threads(out.size()))
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = A::exact(from[i]);
  } else {
    const StoredSpan from(tensor, tensor.dtype());
#pragma omp parallel for schedule(static) if (worth_threads(out.size()))
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = A::exact(from.value(i));
  }
  return out;
}

void keep_noise_above_underflow(Values<Bounded>& values) {
#pragma omp parallel for schedule(static) if (worth_threads(values.size()))
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = with_noise_above_underflow(values[i]);
}

template void store_field<Bounded>(Field, const Layer&, Values<Bounded>&);
template void store_field<Predicted>(Field, const Layer&, Values<Predicted>&);
template void plant_field<Bounded>(Field, const Layer&, Values<Bounded>&);
template void plant_field<Predicted>(Field, const Layer&, Values<Predicted>&);
template Values<Bounded> lift<Bounded>(const Tensor&);
template Values<Predicted> lift<Predicted>(const Tensor&);

}  // namespace assay
