#include "reference_cpu/planted.h"
#include "reference_cpu/product.h"
#include "reference_cpu/stages.h"

#include <numeric>

namespace assay {
namespace {

/// One product over the routed rows, in expert order, on the weights of `field`.
template <class A>
Values<A> expert_product(const Layer& layer, Field result, Field weights, const Values<A>& left,
                         std::span<const std::int32_t> source, std::int64_t k, std::int64_t n, const Accumulator& accumulator) {
  GroupedProduct<typename A::Value> product;
  product.left = left;
  product.source = source;
  product.offsets = layer.routing.offsets;
  product.k = k;
  product.n = n;
  product.weights = [&layer, weights](std::int64_t expert) { return layer.problem->experts(weights, expert); };
  product.accumulator = accumulator;
  product.unit_roundoff = layer.contract->product_unit_roundoff();
  if (layer.fault.field == result) product.fault = layer.fault;
  return planted_product(product);
}

}  // namespace

template <class A>
Values<A> first_gemm(const Layer& layer) {
  const auto input = lift<A>(layer.problem->input);  // [T, H]
  std::vector<std::int32_t> token_of_row(layer.routing.gather.size());
  for (std::size_t r = 0; r < token_of_row.size(); ++r)
    token_of_row[r] = layer.routing.gather[r] / static_cast<std::int32_t>(layer.config().top_k);
  return expert_product<A>(layer, Field::first_gemm, Field::gate_up_proj, input, token_of_row, layer.config().hidden_size,
                           2 * layer.config().moe_intermediate_size, accumulators_for<A>(layer).gate_up);
}

template <class A>
Values<A> second_gemm(const Layer& layer, const Values<A>& intermediate) {
  std::vector<std::int32_t> every_row(layer.routing.gather.size());
  std::iota(every_row.begin(), every_row.end(), 0);
  return expert_product<A>(layer, Field::second_gemm, Field::down_proj, intermediate, every_row,
                           layer.config().moe_intermediate_size, layer.config().hidden_size, accumulators_for<A>(layer).down);
}

template Values<Bounded> first_gemm<Bounded>(const Layer&);
template Values<Predicted> first_gemm<Predicted>(const Layer&);
template Values<Bounded> second_gemm<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> second_gemm<Predicted>(const Layer&, const Values<Predicted>&);

}  // namespace assay
