// The layer's products (harness/contract/layer.h) with their operands as grouped products take them.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "reference_cpu/product/product.h"
#include "reference_cpu/stages.h"

namespace assay {

/// A product ready to be computed. Owns what `product` points to, so it can be moved and not copied.
template <class A>
struct PreparedProduct {
  Values<A> lifted;                   // the left operand, where it is not somebody else's as it is
  Values<A> right;                    // the right operand of a product that sums over rows
  std::vector<std::int32_t> source;   // [rows]: row of the left operand
  std::vector<std::int64_t> offsets;  // [groups + 1]
  GroupedProduct<typename A::Value> product;

  PreparedProduct() = default;
  PreparedProduct(PreparedProduct&&) = default;
  PreparedProduct& operator=(PreparedProduct&&) = default;
};

/// `left`: the stored values of the product's left operand, null where the problem gives it (`given_left`). A
/// field in expert order has one group per expert, its rows gathered where the operand's are tokens; other
/// fields have one group. The right operand is a weight; products that sum over rows: weight_gradient.h.
template <class A>
PreparedProduct<A> prepare_product(ProductId id, const Layer& layer, const Values<A>* left);

/// What sums the product: of predictions its accumulator; of bounds the one on whose order they may rely.
/// They rely on none where an operand is float32: its products are rounded, or cut, before they are added.
/// The running bound counts no such error; C(n) = gamma_n has it, for n - 1 additions are gamma_(n-1).
template <class A>
Accumulator accumulator_of(ProductId id, const Layer& layer) {
  const bool wide = dtype_of(row(id).left, *layer.contract) == DType::Float32;
  return std::is_same_v<A, Bounded> && wide ? Accumulator{} : accumulators_for<A>(layer)[id];
}

/// The tokens' rows [T, width] that are the product's left operand where no computed field is: the layer's
/// input, or under WeightSide::AfterProduct the output's gradient.
const Tensor& given_left(ProductId id, const Layer& layer);

/// Only these rows (ascending) of a prepared product.
template <class A>
void keep_rows(PreparedProduct<A>& prepared, std::span<const std::int64_t> rows);

/// Errors of operands that shrink (or grow) all of them alike do not average out: by how much those of each
/// row and column do, and the same added to the noise of the product's values.
CommonErrors common_errors(const GroupedProduct<Interval>& product);
void add_common_error(const GroupedProduct<Interval>& product, Values<Bounded>& values);
inline void add_common_error(const GroupedProduct<PredictedValue>&, Values<Predicted>&) {}

/// The matrix on the right of a product's group: an expert's, or the one there is.
ExpertMatrix right_operand(ProductId id, const Problem& problem, std::int64_t group);

/// The right operand's factors of every term of column `col`: [k].
std::vector<Bf16> right_column(ProductId id, const ExpertMatrix& matrix, std::int64_t k, std::int64_t n,
                               std::int64_t col);

/// [rows, n] of the field that the product makes, before the rounding of the stored value. Errors that the
/// left operand carries are carried on.
template <class A>
Values<A> product_values(ProductId id, const Layer& layer, const Values<A>* left);

}  // namespace assay
