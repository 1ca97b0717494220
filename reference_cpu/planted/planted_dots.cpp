#include <algorithm>
#include <numeric>

#include "harness/contract/layer.h"
#include "reference_cpu/planted/planted_gradients.h"
#include "reference_cpu/product/layer_product.h"

namespace assay {
namespace {

using Gradients = Values<Predicted>;

float bf16(float x) { return to_float(round_to_bf16(x)); }

/// d_topk_weights on wrong operands, or summed wrongly.
class PlantedDots : PlantedLayer {
 public:
  PlantedDots(const Fault& fault, const Layer& right, const FieldReader& read)
      : PlantedLayer(fault, right, read) {}

  Gradients run() {
    Gradients out = weights_from_activation(contract_) ? of_activation() : of_rows();
    if (fault_.kind == FaultKind::SwapWeights)
      return with_slots_swapped(std::move(out), static_cast<std::int64_t>(top_k_));
    if (fault_.kind == FaultKind::NoRenormalisation) return of_probabilities(std::move(out));
    for (std::size_t s = 0; s < out.size(); ++s) {
      if (fault_.kind == FaultKind::WeightTwice) out[s].value *= read_(Field::topk_weights)[s].value;
      if (fault_.kind == FaultKind::DropSlot && s % top_k_ + 1 == top_k_) out[s] = {};
    }
    return out;
  }

 private:
  std::size_t slot_of(std::size_t row) const { return static_cast<std::size_t>(layer_.routing.gather[row]); }

  Gradients of_rows() {
    Gradients slots = read_(Field::hidden_states_unpermute);
    switch (fault_.kind) {
      case FaultKind::WeightedUnrounded: contract_.d_weighted = Store::Unrounded; break;
      case FaultKind::DropLastK: {
        const auto d_output = problem_.output_gradient.as<Bf16>();
        for (std::size_t i = 0; i < d_output.size(); ++i)
          if (i % hidden_ + static_cast<std::size_t>(fault_.amount) >= hidden_) d_output[i] = {};
        break;
      }
      case FaultKind::RowsInExpertOrder:
        for (std::size_t i = 0; i < slots.size(); ++i)
          slots[i] = read_(Field::hidden_states_unpermute)[slot_of(i / hidden_) * hidden_ + i % hidden_];
        break;
      case FaultKind::SlotForToken: problem_ = tokens_of_slots(problem_); break;
      case FaultKind::AccumulateBf16: return rows_in_bf16(slots);
      case FaultKind::DividedByWeight: return over_weight();
      default: break;
    }
    return row_dots<Predicted>(layer_, slots);
  }

  Gradients of_activation() {
    Gradients products = read_(Field::d_intermediate);
    switch (fault_.kind) {
      case FaultKind::DropLastK:
        for (std::size_t i = 0; i < products.size(); ++i)
          if (i % width_ + static_cast<std::size_t>(fault_.amount) >= width_) products[i] = {};
        break;
      case FaultKind::RowsInExpertOrder:
        std::iota(layer_.routing.gather.begin(), layer_.routing.gather.end(), 0);
        break;
      case FaultKind::SlotForToken:
        problem_ = tokens_of_slots(problem_);
        products = product_values<Predicted>(ProductId::down_dx, layer_, nullptr);
        break;
      case FaultKind::AccumulateBf16: return activation_in_bf16(products);
      case FaultKind::DividedByWeight: return over_weight();
      default: break;
    }
    return activation_dots<Predicted>(layer_, products, read_(Field::first_gemm));
  }

  /// The gradients of the chosen probabilities themselves; with an amount, without the sum's own part.
  Gradients of_probabilities(Gradients d_weights) const {
    const Gradients& logits = read_(Field::router_logits);
    for (std::size_t t = 0; t * experts_ < logits.size(); ++t) {
      const auto p = probabilities(std::span(logits).subspan(t * experts_, experts_));
      const auto chosen = [&](std::size_t s) {
        return p[static_cast<std::size_t>(layer_.routing.selected[s])].value;
      };
      float sum = 0.0f;
      float dot = 0.0f;
      for (std::size_t s = t * top_k_; s < (t + 1) * top_k_; ++s) {
        sum += chosen(s);
        dot += d_weights[s].value * chosen(s);
      }
      for (std::size_t s = t * top_k_; s < (t + 1) * top_k_; ++s)
        d_weights[s].value = (d_weights[s].value - (fault_.amount == 0 ? dot / sum : 0.0f)) / sum;
    }
    return d_weights;
  }

  Gradients rows_in_bf16(const Gradients& slots) const {
    Gradients out(slots.size() / hidden_, PredictedValue{});
    const auto d_output = problem_.output_gradient.as<Bf16>();
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const std::size_t slot = i / hidden_;
      const float term = bf16(to_float(d_output[slot / top_k_ * hidden_ + i % hidden_]) * slots[i].value);
      out[slot].value = bf16(out[slot].value + term);
    }
    return out;
  }

  Gradients activation_in_bf16(const Gradients& products) const {
    const Gradients a = recomputed_activation<Predicted>(layer_, read_(Field::first_gemm));
    Gradients out(layer_.routing.gather.size(), PredictedValue{});
    for (std::size_t i = 0; i < a.size(); ++i) {
      float& sum = out[slot_of(i / width_)].value;
      sum = bf16(sum + bf16(a[i].value * products[i].value));
    }
    return out;
  }

  /// sum over I of a dA, over the weight.
  Gradients over_weight() const {
    const Gradients& a = read_(Field::intermediate);
    const Gradients& d_a = read_(Field::d_intermediate);
    Gradients out(read_(Field::topk_weights).size(), PredictedValue{});
    for (std::size_t i = 0; i < a.size(); ++i) out[slot_of(i / width_)].value += a[i].value * d_a[i].value;
    for (std::size_t s = 0; s < out.size(); ++s) out[s].value /= read_(Field::topk_weights)[s].value;
    return out;
  }
};

}  // namespace

Values<Predicted> with_slots_swapped(Values<Predicted> weights, std::int64_t top_k) {
  for (std::size_t t = 0; top_k > 1 && t < weights.size(); t += static_cast<std::size_t>(top_k))
    std::swap(weights[t], weights[t + 1]);
  return weights;
}

Problem tokens_of_slots(const Problem& problem) {
  Problem slots = problem;
  const Sizes sizes = problem.sizes();
  const auto width = static_cast<std::size_t>(sizes.config.hidden_size);
  const auto tokens = static_cast<std::size_t>(sizes.tokens);
  Tensor rows(DType::BFloat16, {sizes.slots(), sizes.config.hidden_size});
  const auto from = problem.output_gradient.as<Bf16>();
  for (std::size_t i = 0; i < rows.as<Bf16>().size(); ++i)
    rows.as<Bf16>()[i] = from[i / width % tokens * width + i % width];
  slots.batch = 1;
  slots.sequence = sizes.slots();
  slots.config.top_k = 1;
  slots.output_gradient = std::move(rows);
  slots.input = Tensor(DType::BFloat16, slots.output_gradient.shape());
  return slots;
}

Values<Predicted> planted_dots(const Fault& fault, const Layer& right, const FieldReader& read) {
  return PlantedDots(fault, right, read).run();
}

}  // namespace assay
