// Products that sum over rows: the gradients of weights (kProducts: down_dw, gate_up_dw, router_dw). Rows of
// the result are computed as asked for, so that nobody holds all experts' matrices.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "reference_cpu/product/layer_product.h"

namespace assay {

/// Whether the product is a weight gradient.
constexpr bool sums_over_rows(const ProductRow& product) {
  return product.summed == Dim::S || product.summed == Dim::T;
}

/// The rows that one matrix of the gradient is summed over, in the order of the sum: an expert's rows in
/// expert order, ascending, for a product over Dim::S, all tokens for one over Dim::T (`expert` is then 0).
/// Under RowOrder::BySlot (HuggingFace's eager loop) an expert's rows come slot by slot: all its tokens of
/// slot 0, then those of slot 1, ...
std::vector<std::int64_t> summed_rows(ProductId id, const Layer& layer, std::int64_t expert);

/// Rows `rows` of the matrix of `expert`: out[i][n] = sum over r of left[r][rows.begin + i] right[r][n], one
/// group. `left` [rows of its field, its width]; `right` likewise. Null where the problem gives
/// the tokens' rows, which are gathered where the sum goes over rows in expert order (`given_left`; right is
/// the layer's input). No rows: exactly +0. Every expert's sum
/// starts a tensor-core step of its own. Planted faults do not reach these products.
template <class A>
PreparedProduct<A> prepare_weight_gradient(ProductId id, const Layer& layer, std::int64_t expert,
                                           RowRange rows, const Values<A>* left, const Values<A>* right);

/// Rows [rows.begin, rows.end) of the field that the product makes, all experts' matrices counted through,
/// before the rounding of the stored value. Errors of both operands are carried on.
template <class A>
Values<A> weight_gradient(ProductId id, const Layer& layer, RowRange rows, const Values<A>* left,
                          const Values<A>* right);

/// The same rows, all of one expert's matrix, as intervals that the layer's engine made and keeps;
/// `above_underflow`: with_noise_above_underflow of each. Null where it keeps none.
std::shared_ptr<const KeptIntervals> kept_weight_gradient(ProductId id, const Layer& layer, RowRange rows,
                                                          const Values<Bounded>* left,
                                                          const Values<Bounded>* right, bool above_underflow);

/// The same rows rounded to bf16, as nothing but their words; nothing where `product_words` (product.h) has
/// none.
std::optional<LargeVector<std::uint16_t>> weight_gradient_words(ProductId id, const Layer& layer,
                                                                RowRange rows, const Values<Predicted>* left,
                                                                const Values<Predicted>* right);

}  // namespace assay
