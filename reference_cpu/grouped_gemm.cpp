#include "reference_cpu/planted/planted.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/stages.h"

#include <numeric>

namespace assay {
namespace {

/// One product over the routed rows, in expert order, on the weights of `field`.
template <class A>
Values<A> expert_product(const Layer& layer, Field result, Field weights, const Values<A>& left,
                         std::span<const std::int32_t> source, std::int64_t k, std::int64_t n,
                         const Accumulator& accumulator) {
  GroupedProduct<typename A::Value> product;
  product.left = left;
  product.source = source;
  product.offsets = layer.routing.offsets;
  product.k = k;
  product.n = n;
  product.weights = [&layer, weights](std::int64_t expert) {
    return layer.problem->experts(weights, expert);
  };
  product.accumulator = accumulator;
  product.unit_roundoff = layer.contract->product_unit_roundoff();
  if (layer.fault.field == result) product.fault = layer.fault;
  return planted_product(product);
}

/// Errors of the operands that shrink (or grow) all of them alike do not average out in the sum: they shrink
/// the result by the same share, at most that of the row's mean errors in its magnitudes. Stored values of a
/// truncating product err like that. The rest is a sum of many errors that have nothing to do with each
/// other: normal, or a mixture of normal ones where few of them are large.
void add_common_error(std::span<const Interval> left, std::int64_t k, std::int64_t n,
                      Values<Bounded>& product) {
#pragma omp parallel for schedule(static)
  for (std::int64_t r = 0; r < (k == 0 ? 0 : static_cast<std::int64_t>(left.size()) / k); ++r) {
    double errors = 0.0, magnitudes = 0.0;
    for (const Interval& x : left.subspan(static_cast<std::size_t>(r * k), static_cast<std::size_t>(k))) {
      errors += x.mean;
      magnitudes += std::fabs(x.ref);
    }
    if (!(errors > 0.0)) continue;
    for (Interval& x :
         std::span(product).subspan(static_cast<std::size_t>(r * n), static_cast<std::size_t>(n))) {
      const double common = errors / magnitudes * std::fabs(x.ref), other = x.noise;
      x = with_noise(x, std::hypot(other, common), kMeanOfNormal * other + common);
    }
  }
}
void add_common_error(std::span<const PredictedValue>, std::int64_t, std::int64_t, Values<Predicted>&) {}

}  // namespace

template <class A>
Values<A> first_gemm(const Layer& layer) {
  const auto input = lift<A>(layer.problem->input);  // [T, H]
  std::vector<std::int32_t> token_of_row(layer.routing.gather.size());
  for (std::size_t r = 0; r < token_of_row.size(); ++r)
    token_of_row[r] = layer.routing.gather[r] / static_cast<std::int32_t>(layer.config().top_k);
  return expert_product<A>(layer, Field::first_gemm, Field::gate_up_proj, input, token_of_row,
                           layer.config().hidden_size, 2 * layer.config().moe_intermediate_size,
                           accumulators_for<A>(layer).gate_up);
}

template <class A>
Values<A> second_gemm(const Layer& layer, const Values<A>& intermediate) {
  std::vector<std::int32_t> every_row(layer.routing.gather.size());
  std::iota(every_row.begin(), every_row.end(), 0);
  const std::int64_t k = layer.config().moe_intermediate_size, n = layer.config().hidden_size;
  auto product = expert_product<A>(layer, Field::second_gemm, Field::down_proj, intermediate, every_row, k, n,
                                   accumulators_for<A>(layer).down);
  add_common_error(intermediate, k, n, product);
  return product;
}

template Values<Bounded> first_gemm<Bounded>(const Layer&);
template Values<Predicted> first_gemm<Predicted>(const Layer&);
template Values<Bounded> second_gemm<Bounded>(const Layer&, const Values<Bounded>&);
template Values<Predicted> second_gemm<Predicted>(const Layer&, const Values<Predicted>&);

}  // namespace assay
