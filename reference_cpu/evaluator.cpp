#include "reference_cpu/evaluator.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "reference_cpu/planted/planted_gradients.h"
#include "reference_cpu/previous_gradients.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

template <class A>
using Reads = std::array<const Values<A>*, kFieldCount>;

template <class A>
const Values<A>& of(const Reads<A>& reads, Field field) {
  return *reads[static_cast<std::size_t>(field)];
}

/// The weights that a step applies itself.
template <class A>
const Values<A>* own_weights(const Layer& layer, const Reads<A>& reads) {
  return weight_after_product(*layer.contract) ? &of<A>(reads, Field::topk_weights) : nullptr;
}

/// A product's values; of one that sums over rows those of `rows` alone.
template <class A>
Values<A> evaluate_product(ProductId id, const Layer& layer, RowRange rows, const Reads<A>& reads) {
  const auto of_operand = [&](Field operand) { return reads[static_cast<std::size_t>(operand)]; };
  if (sums_over_rows(row(id))) {
    auto values = weight_gradient<A>(id, layer, rows, of_operand(row(id).left), of_operand(row(id).right));
    add_previous<A>(row(id).made, layer, rows.begin, values);
    return values;
  }
  return product_values<A>(id, layer, of_operand(row(id).left));
}

/// One step, from the values it reads: all rows, or where a product sums over rows `rows` of the field.
template <class A>
Values<A> evaluate_step(Field field, const Layer& layer, RowRange rows, const Reads<A>& reads) {
  const StepRow* step = find_step(field, *layer.contract);
  switch (step == nullptr ? StepKind::Selection : step->kind) {
    case StepKind::Product:
      if (field == Field::d_intermediate && weight_after_product(*layer.contract))
        return times_weights<A>(layer, of<A>(reads, field), of<A>(reads, Field::topk_weights));
      return evaluate_product<A>(*product_of(field), layer, rows, reads);
    case StepKind::Weights: return topk_weights<A>(layer, of<A>(reads, Field::router_logits));
    case StepKind::Swiglu: return act_and_mul<A>(layer, of<A>(reads, Field::first_gemm));
    case StepKind::Unpermute: return unpermute<A>(layer, of<A>(reads, Field::second_gemm));
    case StepKind::Merge:
      return merge<A>(layer, of<A>(reads, Field::hidden_states_unpermute), of<A>(reads, Field::topk_weights));
    case StepKind::WeightedRows: return weighted_rows<A>(layer, of<A>(reads, Field::topk_weights));
    case StepKind::RowDots: return row_dots<A>(layer, of<A>(reads, Field::hidden_states_unpermute));
    case StepKind::ActivationDots:
      return activation_dots<A>(layer, of<A>(reads, Field::d_intermediate), of<A>(reads, Field::first_gemm));
    case StepKind::SwigluGrad:
      return act_and_mul_grad<A>(layer, of<A>(reads, Field::d_intermediate), of<A>(reads, Field::first_gemm),
                                 own_weights<A>(layer, reads));
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
    : layer_(layer), stored_(stored), asked_(asked) {}

/// When the first value is asked for: the layer has its contract then.
template <class A>
void Evaluator<A>::count_readers() {
  if (std::exchange(counted_, true)) return;
  FieldFlags expected = asked_;
  for (const FieldRow& field : kFields)
    for (const FieldRow& later : kFields)
      if (asked_[static_cast<std::size_t>(later.id)] && descends_from(later.id, field.id, *layer_.contract))
        expected[static_cast<std::size_t>(field.id)] = true;
  for (const FieldRow& reader : kFields)
    for (const View& read : views(reader.id)) readers(read) += expected[static_cast<std::size_t>(reader.id)];
}

/// By an evaluation of all rows.
template <class A>
void Evaluator<A>::count_reads(const std::vector<View>& reads) {
  for (const View& from : reads)
    if (--readers(from) <= 0) done_.push_back(from);
}

template <class A>
const Values<A>& Evaluator<A>::passed_over(Field field) {
  count_readers();
  give_back();
  count_reads(views(field));
  return value(field);
}

template <class A>
void Evaluator<A>::give_back() {
  for (const View& view : done_) slot(view).reset();
  done_.clear();
}

template <class A>
void Evaluator<A>::forget(Field field) {
  for (const Lives lives : {Lives::InMemory, Lives::Unrounded, Lives::Formed}) slot({field, lives}).reset();
}

/// A planted fault may let a stage read the last of what it reads before that is rounded.
template <class A>
typename Evaluator<A>::View Evaluator<A>::view(Field reader, Field field) const {
  const bool after = weight_after_product(*layer_.contract);
  if (after &&
      (field == Field::d_intermediate || (field == Field::intermediate && reader == Field::d_down_proj)))
    return {field, Lives::Formed};
  const auto reads = upstream_of(reader, *layer_.contract);
  if (layer_.fault.hits(FaultKind::ReadsUnrounded, reader) && !reads.empty() && reads.back() == field)
    return {field, Lives::Unrounded};
  return {field, in_memory(reader, field, *layer_.contract) ? Lives::InMemory : Lives::Unrounded};
}

/// What a step sees: the values it reads, and what is formed for it alone.
template <class A>
std::vector<typename Evaluator<A>::View> Evaluator<A>::views(Field reader) const {
  std::vector<View> all;
  for (const Field read : upstream_of(reader, *layer_.contract)) all.push_back(view(reader, read));
  if (!weight_after_product(*layer_.contract)) return all;
  if (reader == Field::d_intermediate) all.push_back({reader, Lives::Formed});
  if (reader == Field::d_down_proj) all.push_back({Field::intermediate, Lives::Formed});
  return all;
}

template <class A>
Values<A> Evaluator<A>::evaluate(Field field) {
  return evaluate_rows(field, {0, rows_of(field, layer_.problem->sizes())});
}

/// What `step` makes, or nothing, of what the field's step reads. After the field's last row that is given
/// back.
template <class A>
template <class Step>
auto Evaluator<A>::with_reads(Field field, RowRange rows, const Step& step) {
  std::unique_lock lock(mutex_);
  count_readers();
  if (running_ == 0) give_back();  // not while a step further on is collecting what it reads
  ++running_;
  Reads reads{};
  const std::vector<View> all = views(field);
  for (const View& from : all) reads[static_cast<std::size_t>(from.field)] = &seen(field, from.field);
  lock.unlock();
  auto made = step(reads);
  lock.lock();
  if (made && rows.end == rows_of(field, layer_.problem->sizes())) count_reads(all);
  --running_;
  return made;
}

template <class A>
Values<A> Evaluator<A>::evaluate_rows(Field field, RowRange rows) {
  auto values = *with_reads(field, rows, [&](const Reads& reads) -> std::optional<Values<A>> {
    if constexpr (std::is_same_v<A, Predicted>)
      if (replaces_step(layer_.fault, field)) return planted_step(field);
    return evaluate_step<A>(field, layer_, rows, reads);
  });
  const std::int64_t width = width_of(field, layer_.problem->sizes());
  const auto asked = static_cast<std::size_t>(rows.count() * width);
  if (values.size() == asked) return values;
  const auto first = values.begin() + rows.begin * width;
  return Values<A>(first, first + static_cast<std::ptrdiff_t>(asked));
}

/// Of an expert's weight, stored in bf16 as it comes from its sum.
template <class A>
bool Evaluator<A>::straight_gradient(Field field) const {
  const auto product = product_of(field);
  const PrecisionContract& contract = *layer_.contract;
  return product && sums_over_rows(row(*product)) && row(field).rows == RowsAre::ExpertMatrix &&
         layer_.fault.kind == FaultKind::None && !layer_.problem->previous.has(field) &&
         dtype_of(field, contract) == DType::BFloat16 && store_of(field, contract) == Store::Bf16;
}

template <class A>
std::shared_ptr<const KeptIntervals> Evaluator<A>::evaluate_kept(Field field, RowRange rows,
                                                                 bool above_underflow) {
  if constexpr (std::is_same_v<A, Bounded>) {
    if (layer_.engine == nullptr || !straight_gradient(field)) return nullptr;
    const ProductId id = *product_of(field);
    return with_reads(field, rows, [&](const Reads& reads) {
      const auto of_operand = [&](Field operand) { return reads[static_cast<std::size_t>(operand)]; };
      return kept_weight_gradient(id, layer_, rows, of_operand(row(id).left), of_operand(row(id).right),
                                  above_underflow);
    });
  } else {
    return nullptr;
  }
}

template <class A>
std::optional<LargeVector<std::uint16_t>> Evaluator<A>::evaluate_words(Field field, RowRange rows) {
  if (!straight_gradient(field)) return {};
  const auto product = product_of(field);
  // An engine makes values; and how the product is summed may still have to be found out.
  if (layer_.engine != nullptr || layer_.accumulators[*product].kind == AccumulatorKind::HopperAnySplit)
    return {};
  if constexpr (std::is_same_v<A, Predicted>) {
    return with_reads(field, rows, [&](const Reads& reads) {
      const auto of_operand = [&](Field operand) { return reads[static_cast<std::size_t>(operand)]; };
      return weight_gradient_words(*product, layer_, rows, of_operand(row(*product).left),
                                   of_operand(row(*product).right));
    });
  } else {
    return {};
  }
}

/// All rows, as the layer's fault computes them.
template <class A>
Values<A> Evaluator<A>::planted_step(Field field) {
  if constexpr (std::is_same_v<A, Predicted>) {
    Layer right = layer_;
    right.fault = {};
    return planted_gradient(field, layer_.fault, right,
                            [this, field](Field from) -> const auto& { return seen(field, from); });
  } else {
    return {};
  }
}

template <class A>
const Values<A>& Evaluator<A>::value(Field field) {
  const std::scoped_lock lock(mutex_);
  auto& kept = slot({field, Lives::InMemory});
  if (kept) return *kept;
  if (stored_.has(field)) return kept.emplace(lift<A>(stored_.fields->at(field)));
  keep(field, evaluate(field));
  return *kept;
}

template <class A>
void Evaluator<A>::keep(Field field, Values<A> evaluated) {
  count_readers();
  const View unrounded{field, Lives::Unrounded};
  if (readers(unrounded) > 0 && !slot(unrounded))
    plant_field<A>(field, layer_, slot(unrounded).emplace(evaluated));
  store_field<A>(field, layer_, evaluated);
  slot({field, Lives::InMemory}) = std::move(evaluated);
}

template <class A>
void Evaluator<A>::keep_unreached(Field fault, const std::map<Field, Values<A>>& all) {
  for (const auto& [field, values] : all)
    if (field != fault && !descends_from(field, fault, *layer_.contract)) keep(field, values);
}

template <class A>
const Values<A>& Evaluator<A>::seen(Field reader, Field field) {
  const std::scoped_lock lock(mutex_);
  const View as = view(reader, field);
  if (as.lives == Lives::InMemory) return value(field);
  auto& kept = slot(as);
  if (kept) return *kept;
  if (as.lives == Lives::Formed) return kept.emplace(formed(reader, field));
  auto values = evaluate(field);
  plant_field<A>(field, layer_, values);
  return kept.emplace(std::move(values));
}

/// With the weight after the product: d_intermediate is that product alone, and what d_down_proj takes for
/// intermediate the activation with the weight rounded into it.
template <class A>
Values<A> Evaluator<A>::formed(Field reader, Field field) {
  if (field == Field::d_intermediate) {
    auto values = product_values<A>(ProductId::down_dx, layer_, nullptr);
    plant_field<A>(field, layer_, values);
    return values;
  }
  auto values = times_weights<A>(layer_, recomputed_activation<A>(layer_, seen(reader, Field::first_gemm)),
                                 seen(reader, Field::topk_weights));
  for (auto& x : values) x = stored(x, layer_.contract->intermediate);
  return values;
}

std::vector<Field> unwritten_before(Field field, const Upstream& upstream,
                                    const PrecisionContract& contract) {
  std::vector<Field> missing;
  const auto add = [&](Field one) {
    if (std::ranges::find(missing, one) == missing.end()) missing.push_back(one);
  };
  for (const Field need : upstream_of(field, contract)) {
    if (upstream.has(need) && in_memory(field, need, contract)) continue;
    add(need);
    for (const Field further : unwritten_before(need, upstream, contract)) add(further);
  }
  return missing;
}

FieldFlags offered(const Upstream& upstream) {
  FieldFlags flags{};
  for (const FieldRow& field : kFields) flags[static_cast<std::size_t>(field.id)] = upstream.has(field.id);
  return flags;
}

template class Evaluator<Bounded>;
template class Evaluator<Predicted>;

}  // namespace assay
