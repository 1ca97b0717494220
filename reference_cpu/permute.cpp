#include "harness/contract/worth_threads.h"
#include "reference_cpu/product/layer_product.h"
#include "reference_cpu/stages.h"
#include "reference_cpu/term_sums.h"

#include <algorithm>
#include <numeric>

namespace assay {

Routing get_token_counts_and_gather_indices(const MoeConfig& config,
                                            std::vector<std::int32_t> selected_experts) {
  Routing routing;
  routing.selected = std::move(selected_experts);
  routing.counts.assign(static_cast<std::size_t>(config.num_experts), 0);
  for (const auto expert : routing.selected) ++routing.counts[static_cast<std::size_t>(expert)];
  routing.offsets.assign(routing.counts.size() + 1, 0);
  std::partial_sum(routing.counts.begin(), routing.counts.end(), routing.offsets.begin() + 1,
                   std::plus<std::int64_t>());
  routing.gather.resize(routing.selected.size());
  std::iota(routing.gather.begin(), routing.gather.end(), 0);
  std::ranges::stable_sort(routing.gather, {}, [&](std::int32_t slot) {
    return routing.selected[static_cast<std::size_t>(slot)];
  });
  return routing;
}

std::vector<std::int64_t> rows_of_slots(const Layer& layer) {
  const auto& slot_of_row = layer.routing.gather;
  std::vector<std::int64_t> row_of_slot(slot_of_row.size(), -1);
  for (std::size_t r = 0; r < slot_of_row.size(); ++r)
    row_of_slot[static_cast<std::size_t>(slot_of_row[r])] = static_cast<std::int64_t>(r);
  return row_of_slot;
}

namespace {

/// A token's slots in the order in which the contract adds them.
std::vector<std::int32_t> order_of_slots(const Layer& layer, std::int64_t token) {
  const std::int64_t top_k = layer.config().top_k;
  std::vector<std::int32_t> order(static_cast<std::size_t>(top_k));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](std::int32_t j) {
    return layer.routing.selected[static_cast<std::size_t>(token * top_k + j)];
  });
  if (layer.contract->d_input_combine == Combine::Bf16ByExpertDescending) std::ranges::reverse(order);
  return order;
}

/// K - 1 additions rounded to nearest, in any order; of two float64 sums, both err.
Interval sum_of_slots(std::span<const Interval> terms, const PrecisionContract& contract) {
  const double sums = contract.unit_roundoff < kFp32UnitRoundoff ? 2.0 : 1.0;
  return sum_of_terms(terms, sums * gamma(std::ssize(terms) - 1, contract.unit_roundoff), SummedBy::Additions,
                      contract);
}
PredictedValue sum_of_slots(std::span<const PredictedValue> terms, const PrecisionContract&) {
  return sum_interleaved(terms);
}

}  // namespace

template <class A>
Values<A> combine_slots(const Layer& layer, const Values<A>& d_permuted) {
  using V = typename A::Value;
  const std::int64_t width = layer.config().hidden_size;
  const std::int64_t top_k = layer.config().top_k;
  const std::vector<std::int64_t> row_of_slot = rows_of_slots(layer);
  const Combine combine = layer.contract->d_input_combine;
  Values<A> out(static_cast<std::size_t>(layer.tokens() * width));
#pragma omp parallel for schedule(static) if (worth_threads(out.size() * 8))
  for (std::int64_t t = 0; t < layer.tokens(); ++t) {
    const auto order = order_of_slots(layer, t);
    std::vector<V> terms(static_cast<std::size_t>(top_k));
    for (std::int64_t h = 0; h < width; ++h) {
      for (std::int64_t j = 0; j < top_k; ++j) {
        const std::int64_t row = row_of_slot[static_cast<std::size_t>(t * top_k + j)];
        terms[static_cast<std::size_t>(j)] =
            row < 0 ? V{} : d_permuted[static_cast<std::size_t>(row * width + h)];
      }
      out[static_cast<std::size_t>(t * width + h)] =
          combine == Combine::Fp32Sum ? sum_of_slots(std::span<const V>(terms), *layer.contract)
                                      : add_in_bf16<V>(terms, order, combine);
    }
  }
  return out;
}

template <class A>
Values<A> add_router(const Layer& layer, const Values<A>& d_experts, const Values<A>& d_logits) {
  const PrecisionContract& contract = *layer.contract;
  Values<A> out = product_values<A>(ProductId::router_dx, layer, &d_logits);
#pragma omp parallel for schedule(static) if (worth_threads(out.size() * 8))
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = add(d_experts[i], stored(out[i], contract.gradients), contract.unit_roundoff);
  return out;
}

template Values<Bounded> combine_slots<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> combine_slots<Predicted>(const Layer&, const Values<Predicted>&);
template Values<Bounded> add_router<Bounded>(const Layer&, const Values<Bounded>&, const Values<Bounded>&);
template Values<Predicted> add_router<Predicted>(const Layer&, const Values<Predicted>&,
                                                 const Values<Predicted>&);

}  // namespace assay
