// Grouped matrix products: rows in expert order against one weight matrix per expert, in either arithmetic.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "harness/accumulator.h"
#include "harness/fault.h"
#include "harness/problem.h"
#include "reference_cpu/arithmetic.h"

namespace assay {

/// out[r, n] = sum_k left[source[r], k] * W_g[n, k] for the rows r of group g.
template <class Value>
struct GroupedProduct {
  std::span<const Value> left;            // [left_rows, k]
  std::span<const std::int32_t> source;   // [rows]: row of `left` that row r reads
  std::span<const std::int64_t> offsets;  // [groups + 1]
  std::int64_t k = 0;
  std::int64_t n = 0;
  std::function<ExpertMatrix(std::int64_t group)> weights;  // [n, k]
  Accumulator accumulator;                // used by the predicted arithmetic only
  double unit_roundoff = kFp32UnitRoundoff;  // bounded arithmetic only
  Fault fault;                            // predicted arithmetic only; its `field` has been matched by the caller
};

/// C(n) = n u / (1 - n u), safe for any order of summation and for truncating tensor cores (0.625 n u32 on Hopper; numerics 3.2).
double product_bound_constant(std::int64_t n, double unit_roundoff = kFp32UnitRoundoff);

/// [rows, n], before the rounding of the stored field. Bounded: ref +- (C(k) sum|a||b| + carried width + k 2^-149).
std::vector<Interval> grouped_product(const GroupedProduct<Interval>& product);
std::vector<PredictedValue> grouped_product(const GroupedProduct<PredictedValue>& product);

/// Selects the kernel set for tests ("baseline", "avx2", "avx512"; "" = widest). Returns false if this CPU cannot run it.
bool use_product_kernels(const char* name);

}  // namespace assay
