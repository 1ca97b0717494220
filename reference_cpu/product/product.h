// Grouped matrix products (harness/contract/grouped_product.h) in either arithmetic.
#pragma once

#include <cstdint>

#include "harness/contract/grouped_product.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/product_bound.h"

namespace assay {

/// [rows, n], before the rounding of the stored field. Bounds: harness/contract/product_bound.h.
LargeVector<Interval> grouped_product(const GroupedProduct<Interval>& product);
LargeVector<PredictedValue> grouped_product(const GroupedProduct<PredictedValue>& product);

/// Selects the kernel set for tests ("baseline", "avx2", "avx512"; "" = widest). Returns false if this CPU
/// cannot run it.
bool use_product_kernels(const char* name);

}  // namespace assay
