#include "reference_cpu/causes/causes_product.h"

#include <algorithm>
#include <numeric>

#include "reference_cpu/product/product.h"

namespace assay {

ExpertMatrix ProductOperands::weights(std::int64_t of_expert) const {
  const Problem& problem = *evidence->layer->problem;
  if (evidence->field == Field::router_logits) return {problem.gate.as<Bf16>(), nullptr};
  return problem.experts(evidence->field == Field::first_gemm ? Field::gate_up_proj : Field::down_proj,
                         of_expert);
}

ProductOperands operands_of(const Evidence& evidence) {
  const Layer& layer = *evidence.layer;
  ProductOperands result;
  result.evidence = &evidence;
  result.n = evidence.width;
  result.source.resize(static_cast<std::size_t>(evidence.rows));
  result.expert.resize(result.source.size(), 0);
  const bool second = evidence.field == Field::second_gemm;
  result.k = second ? layer.config().moe_intermediate_size : layer.config().hidden_size;
  result.left = second ? evidence.input(Field::intermediate) : lift<Predicted>(layer.problem->input);
  result.left_rows = static_cast<std::int64_t>(result.left.size()) / result.k;
  if (evidence.field == Field::router_logits) {
    std::iota(result.source.begin(), result.source.end(), 0);
    result.accumulator = layer.accumulators.router;
    return result;
  }
  result.accumulator = second ? layer.accumulators.down : layer.accumulators.gate_up;
  result.experts = layer.config().num_experts;
  const auto& offsets = layer.routing.offsets;
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e)
    std::fill(result.expert.begin() + offsets[e], result.expert.begin() + offsets[e + 1],
              static_cast<std::int32_t>(e));
  for (std::size_t r = 0; r < result.source.size(); ++r)
    result.source[r] = static_cast<std::int32_t>(second ? static_cast<std::int64_t>(r)
                                                        : layer.routing.gather[r] / layer.config().top_k);
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
  const auto taken = order.size(), columns = window.columns.size();
  // Rows of one expert together, as a grouped product wants them.
  std::vector<std::size_t> sorted(window.rows.size());
  std::iota(sorted.begin(), sorted.end(), std::size_t{0});
  std::vector<std::int64_t> expert;
  for (const auto r : window.rows)
    expert.push_back(change.expert ? change.expert(r) : operands.expert[static_cast<std::size_t>(r)]);
  std::ranges::stable_sort(sorted, {}, [&](std::size_t i) { return expert[i]; });

  Values<Predicted> left(window.rows.size() * taken);
  std::vector<std::int32_t> source;
  std::vector<std::int64_t> offsets, experts;
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
