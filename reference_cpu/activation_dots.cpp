#include "harness/contract/worth_threads.h"
#include "reference_cpu/row_sum_quad.h"
#include "reference_cpu/stages.h"
#include "reference_cpu/term_sums.h"

namespace assay {
namespace {

/// A term of the sum, fused with its addition or rounded by itself. `multiply` rounds the ends to fp32, by
/// u of them at most; the exact product then lies within 2u beyond.
Interval term(const Interval& a, const Interval& b, const PrecisionContract& contract) {
  const Interval product = multiply(a, b, contract.unit_roundoff);
  const bool exact = product.low == product.ref && product.high == product.ref;
  return exact ? product : widen(product, 2.0 * contract.unit_roundoff, 0x1p-149);
}

/// Any order of the I additions, on a tensor core too.
Interval dot(std::span<const Interval> a, std::span<const Interval> b, const PrecisionContract& contract) {
  std::vector<Interval> terms(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) terms[i] = term(a[i], b[i], contract);
  return sum_of_terms(terms, product_bound_constant(std::ssize(terms), contract.product_unit_roundoff()),
                      SummedBy::TensorCore, contract);
}
PredictedValue dot(std::span<const PredictedValue> a, std::span<const PredictedValue> b,
                   const PrecisionContract&) {
  return row_sum_quad(a, b);
}

}  // namespace

template <class A>
Values<A> activation_dots(const Layer& layer, const Values<A>& products, const Values<A>& first_gemm) {
  using V = typename A::Value;
  const Values<A> activation = recomputed_activation<A>(layer, first_gemm);
  const auto width = static_cast<std::size_t>(layer.config().moe_intermediate_size);
  const std::vector<std::int64_t> row_of_slot = rows_of_slots(layer);
  Values<A> out(row_of_slot.size());
#pragma omp parallel for schedule(static) if (worth_threads(activation.size()))
  for (std::size_t slot = 0; slot < out.size(); ++slot) {
    if (row_of_slot[slot] < 0) {
      out[slot] = V{};
      continue;
    }
    const auto first = static_cast<std::size_t>(row_of_slot[slot]) * width;
    out[slot] = dot(std::span<const V>(activation).subspan(first, width),
                    std::span<const V>(products).subspan(first, width), *layer.contract);
  }
  return out;
}

template Values<Bounded> activation_dots<Bounded>(const Layer&, const Values<Bounded>&,
                                                  const Values<Bounded>&);
template Values<Predicted> activation_dots<Predicted>(const Layer&, const Values<Predicted>&,
                                                      const Values<Predicted>&);

}  // namespace assay
