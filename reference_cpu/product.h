// Grouped matrix products (harness/grouped_product.h) in either arithmetic.
#pragma once

#include <cstdint>

#include "harness/grouped_product.h"
#include "harness/large_vector.h"

namespace assay {

/// C(n) = n u / (1 - n u), safe for any order of summation and for truncating tensor cores (0.625 n u32 on Hopper; numerics 3.2).
double product_bound_constant(std::int64_t n, double unit_roundoff = kFp32UnitRoundoff);

/// [rows, n], before the rounding of the stored field. Bounded: ref +- (C(k) sum|a||b| + carried width + k 2^-149).
LargeVector<Interval> grouped_product(const GroupedProduct<Interval>& product);
LargeVector<PredictedValue> grouped_product(const GroupedProduct<PredictedValue>& product);

/// Selects the kernel set for tests ("baseline", "avx2", "avx512"; "" = widest). Returns false if this CPU cannot run it.
bool use_product_kernels(const char* name);

}  // namespace assay
