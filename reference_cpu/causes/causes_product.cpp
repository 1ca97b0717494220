#include "reference_cpu/causes/causes_product.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "reference_cpu/product/layer_product.h"

namespace assay {

ExpertMatrix ProductOperands::weights(std::int64_t of_expert) const {
  const ProductId id = *product_of(evidence->field);
  const ExpertMatrix stored = right_operand(id, *evidence->layer->problem, of_expert);
  if (row(id).right_lies == Lies::AlongColumns) return stored;
  auto turned = std::make_shared<std::vector<Bf16>>(stored.values.size());
  for (std::int64_t i = 0; i < k; ++i)
    for (std::int64_t c = 0; c < n; ++c)
      (*turned)[static_cast<std::size_t>(c * k + i)] = stored.values[static_cast<std::size_t>(i * n + c)];
  return {*turned, turned};
}

ProductOperands operands_of(const Evidence& evidence) {
  const Layer& layer = *evidence.layer;
  const ProductId id = *product_of(evidence.field);
  const Field left = row(id).left;
  auto prepared = prepare_product<Predicted>(id, layer, given(left) ? nullptr : &evidence.input(left));
  ProductOperands result;
  result.evidence = &evidence;
  result.n = evidence.width;
  result.k = prepared.product.k;
  result.left.assign(prepared.product.left.begin(), prepared.product.left.end());
  result.left_rows = result.k == 0 ? 0 : static_cast<std::int64_t>(result.left.size()) / result.k;
  result.source = std::move(prepared.source);
  result.expert.resize(result.source.size(), 0);
  result.accumulator = layer.accumulators[id];
  result.experts = std::ssize(prepared.offsets) - 1;
  for (std::size_t e = 0; e + 1 < prepared.offsets.size(); ++e)
    std::fill(result.expert.begin() + prepared.offsets[e], result.expert.begin() + prepared.offsets[e + 1],
              static_cast<std::int32_t>(e));
  return result;
}

Values<Predicted> product(const ProductOperands& operands, const Window& window,
                          const ProductChange& change) {
  const auto k = static_cast<std::size_t>(operands.k);
  std::vector<std::int64_t> identity;
  if (change.k_order.empty()) {
    identity.resize(k);
    std::iota(identity.begin(), identity.end(), 0);
  }
  const auto& order = change.k_order.empty() ? identity : change.k_order;
  const auto taken = order.size();
  const auto columns = window.columns.size();
  // Rows of one expert together, as a grouped product wants them.
  std::vector<std::size_t> sorted(window.rows.size());
  std::iota(sorted.begin(), sorted.end(), std::size_t{0});
  std::vector<std::int64_t> expert;
  for (const auto r : window.rows)
    expert.push_back(change.expert ? change.expert(r) : operands.expert[static_cast<std::size_t>(r)]);
  std::ranges::stable_sort(sorted, {}, [&](std::size_t i) { return expert[i]; });

  Values<Predicted> left(window.rows.size() * taken);
  std::vector<std::int32_t> source;
  std::vector<std::int64_t> offsets;
  std::vector<std::int64_t> experts;
  std::vector<PredictedValue> row;
  for (std::size_t at = 0; at < sorted.size(); ++at) {
    const std::size_t i = sorted[at];
    std::span<const PredictedValue> from = operands.left_of(window.rows[i]);
    if (change.left) {
      row.assign(from.begin(), from.end());
      change.left(window.rows[i], row);
      from = row;
    }
    for (std::size_t p = 0; p < taken; ++p)
      left[at * taken + p] = order[p] < 0 ? PredictedValue{} : from[static_cast<std::size_t>(order[p])];
    source.push_back(static_cast<std::int32_t>(at));
    if (experts.empty() || experts.back() != expert[i]) {
      experts.push_back(expert[i]);
      offsets.push_back(static_cast<std::int64_t>(at));
    }
  }
  offsets.push_back(static_cast<std::int64_t>(sorted.size()));

  GroupedProduct<PredictedValue> part;
  part.left = left;
  part.source = source;
  part.offsets = offsets;
  part.k = static_cast<std::int64_t>(taken);
  part.engine = operands.evidence->layer->engine;
  part.n = static_cast<std::int64_t>(columns);
  part.accumulator = change.accumulator.value_or(operands.accumulator);
  if (change.bf16_every_term) part.fault.kind = FaultKind::AccumulateBf16;
  part.weights = [&](std::int64_t group) {
    const std::int64_t of = experts[static_cast<std::size_t>(group)];
    const ExpertMatrix whole = operands.weights(of);
    auto narrowed = std::make_shared<std::vector<Bf16>>(columns * taken);
    std::vector<Bf16> column;
    for (std::size_t c = 0; c < columns; ++c) {
      std::span<const Bf16> from = whole.values.subspan(static_cast<std::size_t>(window.columns[c]) * k, k);
      if (change.weight) {
        column.assign(from.begin(), from.end());
        change.weight(whole.values, of, window.columns[c], column);
        from = column;
      }
      for (std::size_t p = 0; p < taken; ++p)
        (*narrowed)[c * taken + p] = order[p] < 0 ? Bf16{} : from[static_cast<std::size_t>(order[p])];
    }
    return ExpertMatrix{*narrowed, narrowed};
  };
  const auto values = grouped_product(part);
  Values<Predicted> result(values.size());
  for (std::size_t at = 0; at < sorted.size(); ++at)
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(at * columns), columns,
                result.begin() + static_cast<std::ptrdiff_t>(sorted[at] * columns));
  return result;
}

std::vector<Bf16> stored_bits(const Values<Predicted>& values) {
  std::vector<Bf16> bits(values.size());
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = round_to_bf16(values[i].value);
  return bits;
}

}  // namespace assay
