// Operands of the engine's products as its kernels read them, made on the host.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "gpu/engine/engine_kernels.h"
#include "harness/contract/grouped_product.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/product_bound.h"
#include "harness/contract/summation.h"

namespace assay::gpu {

/// Partial sums one after the other, in whole steps of 16 products; false for any other order.
bool parts_of(const Summation& order, std::int64_t k, PartEnds& parts);

/// The right operand of values as a matrix [n, k]; nothing where one of them is no bf16 without an error.
std::optional<LargeVector<Bf16>> matrix_of_values(const GroupedProduct<Interval>& product);
std::optional<LargeVector<Bf16>> matrix_of_values(const GroupedProduct<PredictedValue>& product);

/// What the bounds need to know of the left operand's rows.
struct RowsExactness {
  std::vector<double> granularity;  // [left_rows]: 0 where the row is not exact
  std::vector<std::uint8_t> exact;  // [left_rows]: no operand has a width
  bool any = false;                 // of the rows

  explicit RowsExactness(const GroupedProduct<Interval>& product);
};

/// The left operand of a product with weights.
struct LeftTerms {
  RowsExactness rows;
  BoundShape shape;
  LargeVector<BoundedTerm> terms;  // [left_rows, k]

  explicit LeftTerms(const GroupedProduct<Interval>& product);
};

/// Both operands of a product of values.
struct TwoSidedTerms {
  BoundShape shape;
  LargeVector<TwoSidedLeft> left;    // [left_rows, k]
  LargeVector<TwoSidedRight> right;  // [k, n]
  bool exact_panel = false;  // columns that the CPU sums together have no errors: it does so in another way

  explicit TwoSidedTerms(const GroupedProduct<Interval>& product);
};

}  // namespace assay::gpu
