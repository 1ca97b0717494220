#include "reference_cpu/planted/planted.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/stages.h"

#include <numeric>

namespace assay {

template <class A>
Values<A> router_logits(const Layer& layer) {
  const auto input = lift<A>(layer.problem->input);  // [T, H]
  std::vector<std::int32_t> every_token(static_cast<std::size_t>(layer.tokens()));
  std::iota(every_token.begin(), every_token.end(), 0);
  const std::int64_t one_group[] = {0, layer.tokens()};
  GroupedProduct<typename A::Value> product;
  product.left = input;
  product.source = every_token;
  product.offsets = one_group;
  product.k = layer.config().hidden_size;
  product.n = layer.config().num_experts;
  product.weights = [&](std::int64_t) { return ExpertMatrix{layer.problem->gate.as<Bf16>(), nullptr}; };
  product.accumulator = accumulators_for<A>(layer).router;
  product.unit_roundoff = layer.contract->product_unit_roundoff();
  if (layer.fault.field == Field::router_logits) product.fault = layer.fault;
  return planted_product(product);
}

template Values<Bounded> router_logits<Bounded>(const Layer&);
template Values<Predicted> router_logits<Predicted>(const Layer&);

}  // namespace assay
