#include "reference_cpu/evaluator.h"

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "reference_cpu/planted/planted_gradients.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

template <class A>
using Reads = std::array<const Values<A>*, kFieldCount>;

template <class A>
const Values<A>& of(const Reads<A>& reads, Field field) {
  return *reads[static_cast<std::size_t>(field)];
}

/// A product's values; of one that sums over rows those of `rows` alone.
template <class A>
Values<A> evaluate_product(ProductId id, const Layer& layer, RowRange rows, const Reads<A>& reads) {
  const auto of_operand = [&](Field operand) { return reads[static_cast<std::size_t>(operand)]; };
  if (sums_over_rows(row(id)))
    return weight_gradient<A>(id, layer, rows, *of_operand(row(id).left), of_operand(row(id).right));
  return product_values<A>(id, layer, of_operand(row(id).left));
}

/// One step, from the values it reads: all rows, or where a product sums over rows `rows` of the field.
template <class A>
Values<A> evaluate_step(Field field, const Layer& layer, RowRange rows, const Reads<A>& reads) {
  const StepRow* step = find_step(field);
  switch (step == nullptr ? StepKind::Selection : step->kind) {
    case StepKind::Product: return evaluate_product<A>(*product_of(field), layer, rows, reads);
    case StepKind::Weights: return topk_weights<A>(layer, of<A>(reads, Field::router_logits));
    case StepKind::Swiglu: return act_and_mul<A>(layer, of<A>(reads, Field::first_gemm));
    case StepKind::Unpermute: return unpermute<A>(layer, of<A>(reads, Field::second_gemm));
    case StepKind::Merge:
      return merge<A>(layer, of<A>(reads, Field::hidden_states_unpermute), of<A>(reads, Field::topk_weights));
    case StepKind::WeightedRows: return weighted_rows<A>(layer, of<A>(reads, Field::topk_weights));
    case StepKind::RowDots: return row_dots<A>(layer, of<A>(reads, Field::hidden_states_unpermute));
    case StepKind::SwigluGrad:
      return act_and_mul_grad<A>(layer, of<A>(reads, Field::d_intermediate), of<A>(reads, Field::first_gemm));
    case StepKind::SoftmaxGrad:
      return router_grad<A>(layer, of<A>(reads, Field::d_topk_weights), of<A>(reads, Field::router_logits));
    case StepKind::Combine: return combine_slots<A>(layer, of<A>(reads, Field::d_permuted_hidden_states));
    case StepKind::AddRouter:
      return add_router<A>(layer, of<A>(reads, Field::d_experts_hidden_states),
                           of<A>(reads, Field::d_router_logits));
    case StepKind::Selection:
    case StepKind::Counts:
    case StepKind::Order: break;
  }
  throw InputError(fmt::format("{} is not a field of rounded values", name(field)));
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
  return evaluate_rows(field, {0, rows_of(field, layer_.problem->sizes())});
}

template <class A>
Values<A> Evaluator<A>::evaluate_rows(Field field, RowRange rows) {
  if (depth_ == 0) give_back();  // not while a step further on is collecting what it reads
  ++depth_;
  Reads<A> reads{};
  for (const Field from : upstream_of(field)) reads[static_cast<std::size_t>(from)] = &read(from, field);
  auto values = [&] {
    if constexpr (std::is_same_v<A, Predicted>)
      if (replaces_step(layer_.fault, field)) return planted_step(field);
    return evaluate_step<A>(field, layer_, rows, reads);
  }();
  const Sizes sizes = layer_.problem->sizes();
  const bool last = rows.end == rows_of(field, sizes);
  for (const Field from : upstream_of(field))
    if (last && --readers_[static_cast<std::size_t>(from)] <= 0) done_.push_back(from);
  --depth_;
  const auto asked = static_cast<std::size_t>(rows.count() * width_of(field, sizes));
  if (values.size() == asked) return values;
  const auto first = values.begin() + rows.begin * width_of(field, sizes);
  return Values<A>(first, first + static_cast<std::ptrdiff_t>(asked));
}

/// All rows, as the layer's fault computes them.
template <class A>
Values<A> Evaluator<A>::planted_step(Field field) {
  if constexpr (std::is_same_v<A, Predicted>) {
    Layer right = layer_;
    right.fault = {};
    return planted_gradient(field, layer_.fault, right,
                            [this](Field from) -> const auto& { return value(from); });
  } else {
    return {};
  }
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
