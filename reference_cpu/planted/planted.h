// Planted faults of the predicted arithmetic. The bounded arithmetic has none: its overloads do nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/contract/fault.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/reference.h"
#include "reference_cpu/arithmetic.h"
#include "reference_cpu/product/product.h"

namespace assay {

/// A field's elements as rows and columns, to find the ones that a fault touches.
struct PlantedRegion {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::span<const std::int64_t> offsets;  // [groups + 1]: first row of each expert
  std::span<const std::int32_t> counts;   // [groups]: rows in expert order of each; empty where none matter
};

/// Whether the fault touches element (row, column).
bool touches(const Fault& fault, const PlantedRegion& region, std::int64_t row, std::int64_t column);

/// The product with its fault, if it has one.
inline LargeVector<Interval> planted_product(const GroupedProduct<Interval>& product) {
  return grouped_product(product);
}
LargeVector<PredictedValue> planted_product(const GroupedProduct<PredictedValue>& product);

/// Faults of a field's values before they are stored. `input` [tokens, columns] is the layer's.
inline void plant_values(const Fault&, const PlantedRegion&, const Tensor&, LargeVector<Interval>&) {}
void plant_values(const Fault& fault, const PlantedRegion& region, const Tensor& input,
                  LargeVector<PredictedValue>& values);

/// Rounds to `bits` significant bits, to nearest even; the exponent's range stays.
float keep_bits(float x, int bits);

/// One value stored by a faulty rounding; `index` seeds the random one.
bool rounds_wrongly(FaultKind kind);
float round_wrongly(FaultKind kind, float value, std::int64_t index);

/// silu under a fault of its own, not yet rounded.
bool changes_silu(FaultKind kind);
float planted_silu(const Fault& fault, float gate, float silu);

/// Faults of one token's probabilities [E] before the choice, and of its choice [K] after it; `token` of
/// `tokens`.
void plant_probabilities(const Fault& fault, std::span<float> probabilities);
void plant_selection(const Fault& fault, std::span<const float> probabilities, std::int64_t token,
                     std::int64_t tokens, std::span<std::int32_t> selected);

/// Scores [E] in place of the softmax of token `token` of `logits` [T, E]; empty where the fault changes
/// none.
std::vector<float> planted_scores(const Fault& fault, std::span<const PredictedValue> logits,
                                  std::int64_t experts, std::int64_t token,
                                  std::span<const std::int32_t> selected);

/// Faults of the rows' order; counts are planted in what is stored only.
void plant_gather(const Fault& fault, Routing& routing);
std::vector<std::int32_t> planted_counts(const Fault& fault, std::vector<std::int32_t> counts);

}  // namespace assay
