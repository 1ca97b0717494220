// Grouped matrix products: rows in groups against one matrix per group, or against one matrix of values, as
// stages describe them to whoever computes them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "harness/contract/accumulator.h"
#include "harness/contract/fault.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/problem.h"
#include "harness/contract/reference.h"

namespace assay {

struct Engine;

/// fp32 value as computed on the GPU; `undetermined` outside what was measured.
struct PredictedValue {
  float value = 0.0f;
  bool undetermined = false;
};

/// out[r, n] = sum_k left[source[r], k] * W_g[n, k] for the rows r of group g. The right operand W is exact
/// bf16 `weights`, one matrix per group, or where there are none `right`: values of any kind, the same for
/// all groups. No terms (k = 0) sum to +0 exactly.
template <class Value>
struct GroupedProduct {
  std::span<const Value> left;            // [left_rows, k]
  std::span<const std::int32_t> source;   // [rows]: row of `left` that row r reads
  std::span<const std::int64_t> offsets;  // [groups + 1]
  std::int64_t k = 0;
  std::int64_t n = 0;
  std::function<ExpertMatrix(std::int64_t group)> weights;  // [n, k], or [k, n]
  std::span<const Value> right;                             // instead of `weights`: [n, k], or [k, n]
  Lies right_lies = Lies::AlongColumns;                     // AlongRows: the right operand is [k, n]
  Accumulator accumulator;  // predicted: how it sums; bounded: the running bound, where declared
  double unit_roundoff = kFp32UnitRoundoff;  // bounded arithmetic only
  bool a_priori_only = false;                // bounded: neither the running bound nor proofs of exactness
  Fault fault;                     // predicted arithmetic only; its `field` has been matched by the caller
  const Engine* engine = nullptr;  // that the product is offered to (engine.h); null: the CPU computes it
  std::int64_t whole =
      0;  // multiply-adds of all that this is a part of: an expert's gradient, of all experts'
};

}  // namespace assay
