#include "reference_cpu/evaluator.h"

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "reference_cpu/product/layer_product.h"

namespace assay {
namespace {

template <class A>
using Reads = std::array<const Values<A>*, kFieldCount>;

template <class A>
const Values<A>& of(const Reads<A>& reads, Field field) {
  return *reads[static_cast<std::size_t>(field)];
}

/// One step, from the values it reads.
template <class A>
Values<A> evaluate_step(Field field, const Layer& layer, const Reads<A>& reads) {
  const StepRow* step = find_step(field);
  switch (step == nullptr ? StepKind::Selection : step->kind) {
    case StepKind::Product: {
      const ProductId id = *product_of(field);
      return product_values<A>(id, layer, reads[static_cast<std::size_t>(row(id).left)]);
    }
    case StepKind::Weights: return topk_weights<A>(layer, of<A>(reads, Field::router_logits));
    case StepKind::Swiglu: return act_and_mul<A>(layer, of<A>(reads, Field::first_gemm));
    case StepKind::Unpermute: return unpermute<A>(layer, of<A>(reads, Field::second_gemm));
    case StepKind::Merge:
      return merge<A>(layer, of<A>(reads, Field::hidden_states_unpermute), of<A>(reads, Field::topk_weights));
    default: throw InputError(fmt::format("{} is not a rounded forward field", name(field)));
  }
}

}  // namespace

template <class A>
Evaluator<A>::Evaluator(const Layer& layer, const Upstream& stored, const FieldFlags& asked)
    : layer_(layer), stored_(stored) {
  FieldFlags expected = asked;
  for (const FieldRow& field : kFields)
    for (const FieldRow& later : kFields)
      if (asked[static_cast<std::size_t>(later.id)] && descends_from(later.id, field.id))
        expected[static_cast<std::size_t>(field.id)] = true;
  for (const FieldRow& field : kFields)
    for (const Field reader : readers_of(field.id))
      readers_[static_cast<std::size_t>(field.id)] += expected[static_cast<std::size_t>(reader)];
}

template <class A>
void Evaluator<A>::give_back() {
  for (const Field field : done_) forget(field);
  done_.clear();
}

/// Whether a planted fault lets a stage read the field before its rounding: the last of what the stage reads.
template <class A>
bool Evaluator<A>::read_unrounded(Field field) const {
  if (layer_.fault.kind != FaultKind::ReadsUnrounded) return false;
  const auto reads = upstream_of(layer_.fault.field);
  return !reads.empty() && reads.back() == field;
}

template <class A>
Values<A> Evaluator<A>::evaluate(Field field) {
  if (depth_ == 0) give_back();  // not while a step further on is collecting what it reads
  ++depth_;
  Reads<A> reads{};
  for (const Field from : upstream_of(field)) reads[static_cast<std::size_t>(from)] = &read(from, field);
  auto values = evaluate_step<A>(field, layer_, reads);
  for (const Field from : upstream_of(field))
    if (--readers_[static_cast<std::size_t>(from)] <= 0) done_.push_back(from);
  --depth_;
  return values;
}

template <class A>
const Values<A>& Evaluator<A>::read(Field field, Field by) {
  const Values<A>& seen = value(field);
  return layer_.fault.field == by && unrounded_ && read_unrounded(field) ? *unrounded_ : seen;
}

template <class A>
const Values<A>& Evaluator<A>::value(Field field) {
  auto& kept = slot(field);
  if (kept) return *kept;
  if (stored_.has(field)) return kept.emplace(lift<A>(stored_.fields->at(field)));
  auto values = evaluate(field);
  if (read_unrounded(field)) unrounded_ = values;
  store_field<A>(field, layer_, values);
  return kept.emplace(std::move(values));
}

template class Evaluator<Bounded>;
template class Evaluator<Predicted>;

}  // namespace assay
