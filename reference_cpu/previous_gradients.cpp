#include "reference_cpu/previous_gradients.h"

#include "harness/contract/layer.h"
#include "harness/contract/stored.h"
#include "harness/contract/worth_threads.h"

namespace assay {
namespace {

/// The addition is a declared rounding to fp32: it is replayed on the reference, too.
Interval sum(const Interval& product, float before, double unit_roundoff) {
  const Interval x = add(product, Bounded::exact(before), unit_roundoff);
  if (unit_roundoff < kFp32UnitRoundoff) return x;
  return with_noise({finite_float(x.ref), x.low, x.high}, x.noise, x.mean);
}

/// A kernel that skips an expert without rows leaves -0 where adding +0 gives +0.
PredictedValue sum(const PredictedValue& product, float before, double) {
  const bool skipped = product.value == 0.0f && before == 0.0f && std::signbit(before);
  return {product.value + before, product.undetermined || skipped};
}

Interval planted_sum(FaultKind, const Interval& product, float, float) { return product; }
PredictedValue planted_sum(FaultKind kind, const PredictedValue& product, float before, float of_neighbour) {
  float value = product.value + before;
  if (kind == FaultKind::PreviousOverwritten) value = product.value;
  if (kind == FaultKind::ProductDropped) value = before;
  if (kind == FaultKind::ProductTwice) value += product.value;
  if (kind == FaultKind::PreviousTwice) value += before;
  if (kind == FaultKind::PreviousOfNeighbour) value = product.value + of_neighbour;
  return {value, product.undetermined};
}

}  // namespace

template <class A>
void add_previous(Field field, const Layer& layer, std::int64_t first_row, Values<A>& values) {
  const PrecisionContract& contract = *layer.contract;
  const bool wrongly = layer.fault.field == field && adds_wrongly(layer.fault.kind);
  const FaultKind kind = wrongly ? layer.fault.kind : FaultKind::None;
  const bool added = layer.problem->previous.has(field);
  if (!added && contract.weight_gradients == Store::Bf16) return;
  Store product_store = contract.weight_products;
  if (kind == FaultKind::ProductRounded) product_store = Store::Bf16;
  if (kind == FaultKind::ProductUnrounded) product_store = Store::Unrounded;
  const bool in_another_way =
      wrongly && kind != FaultKind::ProductRounded && kind != FaultKind::ProductUnrounded;
  StoredSpan before;
  if (added) before = StoredSpan(layer.problem->previous.at(field), DType::Float32);
  const Sizes sizes = layer.problem->sizes();
  const auto first = static_cast<std::size_t>(first_row * width_of(field, sizes));
  const auto matrix = static_cast<std::size_t>(rows_of(field, sizes) * width_of(field, sizes) /
                                               std::max<std::int64_t>(1, sizes.config.num_experts));
#pragma omp parallel for schedule(static) if (worth_threads(8 * values.size()))
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto product = stored(values[i], product_store);
    if (!added)
      values[i] = product;
    else if (in_another_way)
      values[i] = planted_sum(kind, product, before.value(first + i),
                              before.value((first + i + matrix) % before.size()));
    else
      values[i] = sum(product, before.value(first + i), contract.unit_roundoff);
  }
}

template void add_previous<Bounded>(Field, const Layer&, std::int64_t, Values<Bounded>&);
template void add_previous<Predicted>(Field, const Layer&, std::int64_t, Values<Predicted>&);

}  // namespace assay
