// A weight's gradient on its way from the product to the stored sum: rounded where the contract rounds it,
// and added to what was there before.
#include "reference_cpu/explain/explain.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/stored.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

/// The product alone, of the row's own part.
template <class A>
typename A::Value product_of_element(ProductId id, const ElementLayer& at, std::int64_t row_of_field,
                                     const Values<A>* left, const Values<A>* right) {
  return weight_gradient<A>(id, *at.layer, {row_of_field, row_of_field + 1}, left, right)[index(at.col)];
}

}  // namespace

void derive_addition(const ElementLayer& at, Derivation& derivation) {
  const Field field = derivation.field;
  const ProductRow& product = row(*product_of(field));
  const PrecisionContract& contract = *at.layer->contract;
  const Problem& problem = *at.layer->problem;
  const bool added = problem.previous.has(field);
  const bool rounds = contract.weight_products == Store::Bf16;
  if (!added && (!rounds || contract.weight_gradients == Store::Bf16)) return;
  const Sizes sizes = problem.sizes();
  const bool by_matrix = row(field).rows == RowsAre::ExpertMatrix;
  const std::int64_t own = by_matrix ? at.expert * matrix_rows_of(field, sizes) + at.row : at.expert;
  const Interval sum = product_of_element<Bounded>(product.id, at, own, at.bounded_of(product.left),
                                                   at.bounded_of(product.right));
  const Interval kept = stored(sum, contract.weight_products);
  std::optional<float> predicted;
  std::optional<float> predicted_kept;
  if (at.predict) {
    const auto foreseen = product_of_element<Predicted>(product.id, at, own, at.predicted_of(product.left),
                                                        at.predicted_of(product.right));
    predicted = foreseen.value;
    predicted_kept = stored(foreseen, contract.weight_products).value;
  }
  auto& steps = derivation.steps;
  steps.push_back({"p: this pass's gradient", "the sum above", sum, predicted});
  if (rounds) {
    steps.push_back({"p, rounded to bf16", "a declared rounding", kept, predicted_kept});
    derivation.bound = {{"the product, C(n) sum |a||b|, after its declared rounding to bf16", radius(kept)}};
    derivation.running.clear();  // of the product before its rounding
    derivation.running_words.clear();
  }
  if (!added) return;
  const float before = StoredSpan(problem.previous.at(field), DType::Float32)
                           .value(index(own * width_of(field, sizes) + at.col));
  steps.push_back({fmt::format("before: {} of before", name(field)), "given by the problem",
                   Bounded::exact(before), at.predict ? std::optional(before) : std::nullopt});
  steps.push_back({"p + before", "added in fp32, before the last rounding", derivation.value,
                   predicted_kept ? std::optional(*predicted_kept + before) : std::nullopt});
  derivation.bound.push_back({"the addition in fp32, a declared rounding: what it adds to the ends",
                              std::max(0.0, radius(derivation.value) - radius(kept))});
}

}  // namespace assay
