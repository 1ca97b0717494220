#include "harness/contract/worth_threads.h"
#include "reference_cpu/product/weight_gradient.h"
#include "reference_cpu/row_sum_torch.h"
#include "reference_cpu/stages.h"
#include "reference_cpu/term_sums.h"

#include <algorithm>
#include <numeric>

namespace assay {
namespace {

/// fp32 sum over the slots, n of slot_sum_length.
Interval sum_slots(std::span<const Interval> terms, const PrecisionContract& contract, const Fault&) {
  const auto n = slot_sum_length(contract, static_cast<std::int64_t>(terms.size()));
  return sum_of_terms(terms, gamma(n, contract.unit_roundoff),
                      contract.weighted == Store::Unrounded ? SummedBy::TensorCore : SummedBy::Additions,
                      contract);
}

PredictedValue sum_slots(std::span<const PredictedValue> terms, const PrecisionContract&,
                         const Fault& fault) {
  if (!fault.hits(FaultKind::SlotsAscending, Field::hidden_states)) return sum_interleaved(terms);
  PredictedValue sum;
  for (const auto& term : terms) sum = add(sum, term);
  return sum;
}

}  // namespace

/// K - 1 additions rounded to nearest (Higham 3.1). Where products stay fp32, the merge may be one product of
/// a token's weights and rows on a tensor core, whose terms are as exact: a step of 16 cuts all addends but
/// the largest after 25 fractional bits of that, 2^-25 S each, and the result, 2^-23 S = 2u S. With K <= 16
/// that is (K - 1) u / 2 + 2u <= (K + 1) u of S; 9.5u for the first step and at most 10u for each further 16
/// slots, likewise. One that aligns 8 products after 24 bits loses (K - 1) u + 2u in its first step of 8 and
/// up to 10u in each further one: below twice that, which `product_slack` allows to whom may run on one.
std::int64_t slot_sum_length(const PrecisionContract& contract, std::int64_t top_k) {
  if (contract.weighted == Store::Bf16) return top_k - 1;
  return static_cast<std::int64_t>(contract.product_slack) * (top_k + 1);
}

template <class A>
Values<A> unpermute(const Layer& layer, const Values<A>& second_gemm) {
  using V = typename A::Value;
  const std::int64_t width = layer.config().hidden_size;
  const std::vector<std::int64_t> row_of_slot = rows_of_slots(layer);
  const auto slots = std::ssize(row_of_slot);
  Values<A> out(second_gemm.size());
#pragma omp parallel for schedule(static) if (worth_threads(out.size()))
  for (std::int64_t s = 0; s < slots; ++s) {
    const std::int64_t row = row_of_slot[static_cast<std::size_t>(s)];
    if (row >= 0)
      std::copy_n(second_gemm.data() + row * width, width, out.data() + s * width);
    else
      std::fill_n(out.data() + s * width, width, V{});
  }
  return out;
}

template <class A>
Values<A> merge(const Layer& layer, const Values<A>& unpermuted, const Values<A>& weights) {
  using V = typename A::Value;
  const PrecisionContract& contract = *layer.contract;
  const std::int64_t width = layer.config().hidden_size;
  const std::int64_t top_k = layer.config().top_k;
  const Fault& fault = layer.fault;
  const auto planted = [&](FaultKind kind) { return fault.hits(kind, Field::hidden_states); };
  const bool bf16_by_slot = planted(FaultKind::MergeBf16);
  const bool ignored = planted(FaultKind::NoWeights);
  const bool twice = planted(FaultKind::WeightTwice);
  const std::int64_t weighted_tokens =
      planted(FaultKind::WeightsModulo) ? std::min(fault.amount, layer.tokens()) : layer.tokens();
  const std::int64_t dropped = planted(FaultKind::DropSlot) ? fault.amount : -1;
  const std::int64_t repeated = planted(FaultKind::RepeatSlot) ? fault.amount : -1;
  const Store weighted = planted(FaultKind::WeightedUnrounded) ? Store::Unrounded : contract.weighted;
  const bool in_bf16 = bf16_by_slot || contract.combine != Combine::Fp32Sum;
  Values<A> out(static_cast<std::size_t>(layer.tokens() * width));
#pragma omp parallel for schedule(static) if (worth_threads(out.size() * 8))
  for (std::int64_t t = 0; t < layer.tokens(); ++t) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(top_k));
    std::iota(order.begin(), order.end(), 0);
    if (!bf16_by_slot)
      std::ranges::stable_sort(order, {}, [&](std::int32_t j) {
        return layer.routing.selected[static_cast<std::size_t>(t * top_k + j)];
      });
    const auto first_weight = weights.begin() + t % weighted_tokens * top_k;
    std::vector<V> weight(first_weight, first_weight + top_k);
    if (planted(FaultKind::SwapWeights) && top_k > 1) std::swap(weight[0], weight[1]);
    std::vector<V> terms(static_cast<std::size_t>(top_k));
    for (std::int64_t h = 0; h < width; ++h) {
      for (std::int64_t j = 0; j < top_k; ++j) {
        auto& term = terms[static_cast<std::size_t>(j)];
        const auto w = ignored ? A::exact(1.0) : weight[static_cast<std::size_t>(j)];
        term = stored(multiply(unpermuted[static_cast<std::size_t>((t * top_k + j) * width + h)], w,
                               contract.unit_roundoff),
                      weighted);
        if (twice) term = stored(multiply(term, w), weighted);
        if (j == dropped) term = {};
        if (j == repeated) term = add(term, term);
      }
      out[static_cast<std::size_t>(t * width + h)] =
          in_bf16 ? add_in_bf16<V>(terms, order, bf16_by_slot ? Combine::Bf16ByExpert : contract.combine)
                  : sum_slots(std::span<const V>(terms), contract, fault);
    }
  }
  return out;
}

template <class A>
Values<A> weighted_rows(const Layer& layer, const Values<A>& weights) {
  const std::int64_t width = layer.config().hidden_size;
  const std::int64_t top_k = layer.config().top_k;
  const std::span<const Bf16> d_output = given_left(ProductId::down_dx, layer).as<Bf16>();
  Values<A> out(layer.routing.gather.size() * static_cast<std::size_t>(width));
#pragma omp parallel for schedule(static) if (worth_threads(out.size()))
  for (std::size_t r = 0; r < layer.routing.gather.size(); ++r) {
    const std::int64_t slot = layer.routing.gather[r];
    const auto row =
        d_output.subspan(static_cast<std::size_t>(slot / top_k * width), static_cast<std::size_t>(width));
    for (std::size_t h = 0; h < row.size(); ++h)
      out[r * row.size() + h] = multiply(A::exact(to_float(row[h])), weights[static_cast<std::size_t>(slot)],
                                         layer.contract->unit_roundoff);
  }
  return out;
}

template <class A>
Values<A> times_weights(const Layer& layer, Values<A> rows, const Values<A>& weights) {
  const std::size_t width = rows.size() / std::max<std::size_t>(1, layer.routing.gather.size());
#pragma omp parallel for schedule(static) if (worth_threads(rows.size()))
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = multiply(rows[i], weights[static_cast<std::size_t>(layer.routing.gather[i / width])],
                       layer.contract->unit_roundoff);
  return rows;
}

namespace {

/// A row of H products among those that one kernel reduces.
struct ReducedRow {
  std::int64_t index = 0;
  std::int64_t rows = 0;
};

/// Of every slot [S]: all rows at once, in expert order, or those of one expert where experts are computed
/// one after the other.
std::vector<ReducedRow> reduced_rows(const Layer& layer) {
  const bool alone = layer.contract->weight_gradient_rows == RowOrder::BySlot;
  const auto& gather = layer.routing.gather;
  std::vector<ReducedRow> of_slot(gather.size());
  for (std::size_t r = 0; r < gather.size() && !alone; ++r)
    of_slot[static_cast<std::size_t>(gather[r])] = {static_cast<std::int64_t>(r), std::ssize(gather)};
  for (std::int64_t expert = 0; expert < layer.config().num_experts && alone; ++expert) {
    const auto rows = summed_rows(ProductId::down_dw, layer, expert);
    for (std::size_t i = 0; i < rows.size(); ++i)
      of_slot[static_cast<std::size_t>(gather[static_cast<std::size_t>(rows[i])])] = {
          static_cast<std::int64_t>(i), std::ssize(rows)};
  }
  return of_slot;
}

/// Any order of the H additions, on a tensor core too.
Interval sum_of_row(std::span<const Interval> terms, const PrecisionContract& contract, const ReducedRow&) {
  return sum_of_terms(terms, product_bound_constant(std::ssize(terms), contract.product_unit_roundoff()),
                      SummedBy::TensorCore, contract);
}
PredictedValue sum_of_row(std::span<const PredictedValue> terms, const PrecisionContract&,
                          const ReducedRow& row) {
  return row_sum_torch(terms, row.index, row.rows);
}

}  // namespace

template <class A>
Values<A> row_dots(const Layer& layer, const Values<A>& unpermuted) {
  const std::int64_t top_k = layer.config().top_k;
  const auto width = static_cast<std::size_t>(layer.config().hidden_size);
  const std::span<const Bf16> d_output = given_left(ProductId::down_dx, layer).as<Bf16>();
  const std::vector<ReducedRow> rows = reduced_rows(layer);
  Values<A> out(static_cast<std::size_t>(layer.tokens() * top_k));
#pragma omp parallel for schedule(static) if (worth_threads(unpermuted.size()))
  for (std::size_t slot = 0; slot < out.size(); ++slot) {
    const auto d_row = d_output.subspan(slot / static_cast<std::size_t>(top_k) * width, width);
    std::vector<typename A::Value> terms(width);
    for (std::size_t h = 0; h < width; ++h)
      terms[h] = stored(
          multiply(A::exact(to_float(d_row[h])), unpermuted[slot * width + h], layer.contract->unit_roundoff),
          layer.contract->d_weighted);
    out[slot] = sum_of_row(terms, *layer.contract, rows[slot]);
  }
  return out;
}

template Values<Bounded> unpermute<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> unpermute<Predicted>(const Layer&, const Values<Predicted>&);
template Values<Bounded> merge<Bounded>(const Layer&, const Values<Bounded>&, const Values<Bounded>&);
template Values<Predicted> merge<Predicted>(const Layer&, const Values<Predicted>&, const Values<Predicted>&);
template Values<Bounded> weighted_rows<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> weighted_rows<Predicted>(const Layer&, const Values<Predicted>&);
template Values<Bounded> times_weights<Bounded>(const Layer&, Values<Bounded>, const Values<Bounded>&);
template Values<Predicted> times_weights<Predicted>(const Layer&, Values<Predicted>,
                                                    const Values<Predicted>&);
template Values<Bounded> row_dots<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> row_dots<Predicted>(const Layer&, const Values<Predicted>&);

}  // namespace assay
