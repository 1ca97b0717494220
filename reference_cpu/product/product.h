// Grouped matrix products (harness/contract/grouped_product.h) in either arithmetic.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "harness/contract/engine.h"
#include "harness/contract/grouped_product.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/product_bound.h"

namespace assay {

/// [rows, n], before the rounding of the stored field. Bounds: harness/contract/product_bound.h.
LargeVector<Interval> grouped_product(const GroupedProduct<Interval>& product);
LargeVector<PredictedValue> grouped_product(const GroupedProduct<PredictedValue>& product);

/// Bounds of one group's product, complete as `errors` say, that the engine it names made and keeps; null
/// where there is none, or where it keeps none.
std::shared_ptr<const KeptIntervals> kept_product(const GroupedProduct<Interval>& product,
                                                  const CommonErrors& errors);

/// Writes the predicted product of one group with a right operand of values, rounded to bf16, as nothing but
/// its words: a fraction of the memory and time. False, `words` being anything, where a word is undetermined,
/// where the sum is not one pass over K on a tensor core, or where n is no multiple of a panel's columns.
bool product_words(const GroupedProduct<PredictedValue>& product, std::span<std::uint16_t> words);

/// Selects the kernel set for tests ("baseline", "avx2", "avx512"; "" = widest). Returns false if this CPU
/// cannot run it.
bool use_product_kernels(const char* name);

}  // namespace assay
