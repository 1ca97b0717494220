// Sums of rounded terms that are no matrix product: a token's slots, a row's products.
#pragma once

#include <cstdint>
#include <span>

#include "reference_cpu/arithmetic.h"

namespace assay {

/// Who may form a sum: fp32 additions rounded to nearest, or a tensor core as well.
enum class SummedBy { Additions, TensorCore };

/// fp32 sum in any order: |error| <= gamma_n sum |v| for the n that `slot_sum_length` and
/// `product_bound_constant` derive; none where the terms are exact multiples of q and sum |v| < 2^24 q: every
/// partial sum fits 24 bits (NUMERICS 6). Noise: the terms' own, what shrinks all of them alike, and n - 1
/// roundings of partial sums, each of which is s^2 + q^2 / 4 or less in the mean over all orders (noise.h;
/// f <= 1, f (1 - f) <= 1/4), or a tensor core's truncation if that is more.
Interval sum_of_terms(std::span<const Interval> terms, double gamma_n, SummedBy by,
                      const PrecisionContract& contract);

/// fp32 as torch's sum over a strided axis adds it: four interleaved sums, ascending in each, then added in
/// order. Up to four terms that is ascending. Seen of an H200 at full size, where one element in 8,388,608
/// tells the two orders apart.
PredictedValue sum_interleaved(std::span<const PredictedValue> terms);

/// K bf16 additions starting from 0, in this order; the last one is rounded when the field is stored.
template <class V>
V add_in_bf16(std::span<const V> terms, std::span<const std::int32_t> order) {
  V sum{};
  for (const auto j : order) sum = add(stored(sum, Store::Bf16), terms[static_cast<std::size_t>(j)]);
  return sum;
}

/// The same in any order. Adding and rounding are monotone: the extreme sums of a set of slots end with one
/// of them, added to the rounded extreme of the others, so that 2^K sets stand for K! orders (NUMERICS 5).
/// Above kEverySet slots K - 1 roundings of the whole instead. The value is that of `order`; a prediction is
/// undetermined where the orders disagree once stored.
inline constexpr std::size_t kEverySet = 12;
Interval add_in_bf16_any_order(std::span<const Interval> terms, std::span<const std::int32_t> order);
PredictedValue add_in_bf16_any_order(std::span<const PredictedValue> terms,
                                     std::span<const std::int32_t> order);

/// As `combine` says, which is not Fp32Sum.
template <class V>
V add_in_bf16(std::span<const V> terms, std::span<const std::int32_t> order, Combine combine) {
  return combine == Combine::Bf16AnyOrder ? add_in_bf16_any_order(terms, order) : add_in_bf16(terms, order);
}

}  // namespace assay
