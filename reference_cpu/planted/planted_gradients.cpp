#include "reference_cpu/planted/planted_gradients.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "reference_cpu/planted/planted.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

using Field::d_experts_hidden_states;
using Field::d_first_gemm;
using Field::d_input_hidden_states;
using Field::d_permuted_hidden_states;
using Field::d_router_logits;
using Field::d_second_gemm;
using Field::d_topk_weights;
using Field::first_gemm;
using Field::hidden_states_unpermute;
using Field::router_logits;
using Field::topk_weights;
using Gradients = Values<Predicted>;

float bf16(float x) { return to_float(round_to_bf16(x)); }

/// Slots j and 1 - j of every token, [T, K].
Gradients with_slots_swapped(Gradients weights, std::int64_t top_k) {
  for (std::size_t t = 0; top_k > 1 && t < weights.size(); t += static_cast<std::size_t>(top_k))
    std::swap(weights[t], weights[t + 1]);
  return weights;
}

class PlantedStep {
 public:
  PlantedStep(const Fault& fault, const Layer& right, const FieldReader& read)
      : fault_(fault),
        layer_(right),
        problem_(*right.problem),
        contract_(*right.contract),
        read_(read),
        hidden_(static_cast<std::size_t>(right.config().hidden_size)),
        width_(static_cast<std::size_t>(right.config().moe_intermediate_size)),
        top_k_(static_cast<std::size_t>(right.config().top_k)),
        experts_(static_cast<std::size_t>(right.config().num_experts)) {
    layer_.problem = &problem_;
    layer_.contract = &contract_;
  }

  /// The weighted rows.
  Gradients rows() {
    Gradients weights = read_(topk_weights);
    switch (fault_.kind) {
      case FaultKind::NoWeights: std::ranges::fill(weights, PredictedValue{1.0f, false}); break;
      case FaultKind::SwapWeights:
        weights = with_slots_swapped(std::move(weights), layer_.config().top_k);
        break;
      case FaultKind::WeightsModulo:
        for (std::size_t i = 0; i < weights.size(); ++i)
          weights[i] = read_(topk_weights)[i % (static_cast<std::size_t>(fault_.amount) * top_k_)];
        break;
      case FaultKind::SlotForToken: permute_output_gradient(); break;
      default: break;
    }
    Gradients out = weighted_rows<Predicted>(layer_, weights);
    if (fault_.kind == FaultKind::WeightTwice)
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i].value = bf16(out[i].value) * weights[slot_of(i / hidden_)].value;
    return out;
  }

  /// The dot products.
  Gradients dots() {
    Gradients slots = read_(hidden_states_unpermute);
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
          slots[i] = read_(hidden_states_unpermute)[slot_of(i / hidden_) * hidden_ + i % hidden_];
        break;
      case FaultKind::SlotForToken: permute_output_gradient(); break;
      case FaultKind::AccumulateBf16: return dots_in_bf16(slots);
      case FaultKind::DividedByWeight: return dots_over_weight();
      default: break;
    }
    Gradients out = row_dots<Predicted>(layer_, slots);
    if (fault_.kind == FaultKind::SwapWeights)
      return with_slots_swapped(std::move(out), layer_.config().top_k);
    for (std::size_t s = 0; s < out.size(); ++s) {
      if (fault_.kind == FaultKind::WeightTwice) out[s].value *= read_(topk_weights)[s].value;
      if (fault_.kind == FaultKind::DropSlot && s % top_k_ + 1 == top_k_) out[s] = {};
    }
    return out;
  }

  /// SwiGLU's gradient.
  Gradients swiglu() {
    Gradients first = read_(first_gemm);
    switch (fault_.kind) {
      case FaultKind::DSiluUnrounded: contract_.d_silu = Store::Unrounded; break;
      case FaultKind::SiluUnrounded: contract_.silu = Store::Unrounded; break;
      case FaultKind::UpIgnored:
        for (std::size_t i = 0; i < first.size(); ++i)
          if (i % (2 * width_) >= width_) first[i].value = 1.0f;
        break;
      case FaultKind::UpOfNextRow:
        for (std::size_t i = 0; i < first.size(); ++i)
          if (i % (2 * width_) >= width_) first[i] = read_(first_gemm)[(i + 2 * width_) % first.size()];
        break;
      default: break;
    }
    if (changes_silu(fault_.kind) || fault_.kind == FaultKind::SlopeOfSigmoid) return other_activation(first);
    const Gradients right = act_and_mul_grad<Predicted>(layer_, read_(Field::d_intermediate), first);
    Gradients out = right;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t row = i / (2 * width_) * 2 * width_;
      const std::size_t c = i % (2 * width_);
      if (fault_.kind == FaultKind::SwapGateUp) out[i] = right[row + (c + width_) % (2 * width_)];
      if (fault_.kind == FaultKind::InterleavedGateUp) out[i] = right[row + c / 2 + c % 2 * width_];
      if (fault_.kind == FaultKind::HalfZero && c / width_ == static_cast<std::size_t>(fault_.amount))
        out[i] = {};
    }
    return out;
  }

  /// dX of the first product on a wrong left operand.
  Gradients rows_of_input() {
    const Gradients& right = read_(d_first_gemm);
    Gradients left = right;
    for (std::size_t i = 0; i < left.size(); ++i) {
      const std::size_t row = i / (2 * width_) * 2 * width_;
      const std::size_t c = i % (2 * width_);
      if (fault_.kind == FaultKind::SwapGateUp) left[i] = right[row + (c + width_) % (2 * width_)];
      if (fault_.kind == FaultKind::HalfZero && c / width_ == static_cast<std::size_t>(fault_.amount))
        left[i] = {};
    }
    return product_values<Predicted>(ProductId::gate_up_dx, layer_, &left);
  }

  /// The gradient of the logits.
  Gradients logits() {
    Gradients given = read_(d_topk_weights);
    switch (fault_.kind) {
      case FaultKind::NoRenormalisation: problem_.config.norm_topk_prob = false; break;
      case FaultKind::AlwaysRenormalised: problem_.config.norm_topk_prob = true; break;
      case FaultKind::SwapWeights: given = with_slots_swapped(std::move(given), layer_.config().top_k); break;
      case FaultKind::DropSlot:
        for (std::size_t s = 0; s < given.size(); ++s)
          if (s % top_k_ == static_cast<std::size_t>(fault_.amount)) given[s] = {};
        break;
      default: break;
    }
    Gradients out = router_grad<Predicted>(layer_, given, read_(router_logits));
    const bool formula = fault_.kind == FaultKind::JacobianOfChosen ||
                         fault_.kind == FaultKind::SumNotSubtracted ||
                         fault_.kind == FaultKind::NoSoftmaxGradient;
    for (std::size_t t = 0; formula && t * top_k_ < given.size(); ++t) {
      const auto p = probabilities(std::span(read_(router_logits)).subspan(t * experts_, experts_));
      Gradients token(experts_, PredictedValue{});
      for (std::size_t j = 0; j < top_k_; ++j) {
        const auto e = static_cast<std::size_t>(layer_.routing.selected[t * top_k_ + j]);
        const float g = given[t * top_k_ + j].value;
        if (fault_.kind == FaultKind::JacobianOfChosen) token[e] = out[t * experts_ + e];
        if (fault_.kind == FaultKind::SumNotSubtracted) token[e].value = g * p[e].value;
        if (fault_.kind == FaultKind::NoSoftmaxGradient) token[e].value = g;
      }
      std::ranges::copy(token, out.begin() + static_cast<std::ptrdiff_t>(t * experts_));
    }
    return out;
  }

  /// A token's slots added up.
  Gradients slots() {
    Gradients rows = read_(d_permuted_hidden_states);
    const auto top_k = static_cast<std::int64_t>(top_k_);
    const auto by_slot = [&] {  // slots in place of experts: those are added in their order
      for (std::size_t s = 0; s < layer_.routing.selected.size(); ++s)
        layer_.routing.selected[s] = static_cast<std::int32_t>(s % top_k_);
    };
    switch (fault_.kind) {
      case FaultKind::RowsInExpertOrder:
        std::iota(layer_.routing.gather.begin(), layer_.routing.gather.end(), 0);
        break;
      case FaultKind::MergeBf16:
        contract_.d_input_combine = Combine::Bf16ByExpert;
        by_slot();
        break;
      case FaultKind::ExpertsReversed:
        if (contract_.d_input_combine != Combine::Fp32Sum)
          contract_.d_input_combine = contract_.d_input_combine == Combine::Bf16ByExpert
                                          ? Combine::Bf16ByExpertDescending
                                          : Combine::Bf16ByExpert;
        break;
      case FaultKind::CombineFp32: contract_.d_input_combine = Combine::Fp32Sum; break;
      default: break;
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto slot = static_cast<std::int64_t>(slot_of(i / hidden_));
      const auto j = slot % top_k;
      if (fault_.kind == FaultKind::DropSlot && j == fault_.amount) rows[i] = {};
      if (fault_.kind == FaultKind::RepeatSlot && j == fault_.amount) rows[i].value *= 2.0f;
      if (fault_.kind == FaultKind::LastSlotWins && j + 1 != top_k) rows[i] = {};
      if (fault_.kind == FaultKind::WeightTwice)
        rows[i].value = bf16(rows[i].value * read_(topk_weights)[static_cast<std::size_t>(slot)].value);
    }
    return combine_slots<Predicted>(layer_, rows);
  }

  /// Both parts of the input's gradient.
  Gradients both_parts() {
    Gradients out = product_values<Predicted>(ProductId::router_dx, layer_, &read_(d_router_logits));
    const Gradients& of_experts = read_(d_experts_hidden_states);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const float router = fault_.kind == FaultKind::RouterUnrounded ? out[i].value : bf16(out[i].value);
      float times = 1.0f;
      if (fault_.kind == FaultKind::RouterIgnored) times = 0.0f;
      if (fault_.kind == FaultKind::RouterTwice) times = 2.0f;
      out[i].value = (fault_.kind == FaultKind::ExpertsIgnored ? 0.0f : of_experts[i].value) + times * router;
    }
    return out;
  }

 private:
  std::size_t slot_of(std::size_t row) const { return static_cast<std::size_t>(layer_.routing.gather[row]); }

  /// Every slot a token of its own, which reads the gradient of the token numbered as the slot.
  void permute_output_gradient() {
    const auto tokens = static_cast<std::size_t>(layer_.tokens());
    Tensor rows(DType::BFloat16, {layer_.tokens() * layer_.config().top_k, layer_.config().hidden_size});
    const auto from = problem_.output_gradient.as<Bf16>();
    for (std::size_t i = 0; i < rows.as<Bf16>().size(); ++i)
      rows.as<Bf16>()[i] = from[i / hidden_ % tokens * hidden_ + i % hidden_];
    problem_.batch = 1;
    problem_.sequence = rows.shape()[0];
    problem_.config.top_k = 1;
    problem_.output_gradient = std::move(rows);
    problem_.input = Tensor(DType::BFloat16, problem_.output_gradient.shape());
  }

  Gradients dots_in_bf16(const Gradients& slots) const {
    Gradients out(slots.size() / hidden_, PredictedValue{});
    const auto d_output = problem_.output_gradient.as<Bf16>();
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const std::size_t slot = i / hidden_;
      const float term = bf16(to_float(d_output[slot / top_k_ * hidden_ + i % hidden_]) * slots[i].value);
      out[slot].value = bf16(out[slot].value + term);
    }
    return out;
  }

  /// sum over I of a dA, over the weight.
  Gradients dots_over_weight() const {
    const Gradients& a = read_(Field::intermediate);
    const Gradients& d_a = read_(Field::d_intermediate);
    Gradients out(read_(topk_weights).size(), PredictedValue{});
    for (std::size_t i = 0; i < a.size(); ++i) out[slot_of(i / width_)].value += a[i].value * d_a[i].value;
    for (std::size_t s = 0; s < out.size(); ++s) out[s].value /= read_(topk_weights)[s].value;
    return out;
  }

  /// Slope of another activation; where the activation itself is another, so is the up half's gradient.
  Gradients other_activation(const Gradients& first) const {
    const Gradients& d_hidden = read_(Field::d_intermediate);
    Gradients out(first.size(), PredictedValue{});
    const auto sigmoid = [&](double a) {
      if (fault_.kind == FaultKind::TanhApprox)
        return 0.5f + 0.5f * keep_bits(static_cast<float>(std::tanh(0.5 * a)), 11);
      if (fault_.kind == FaultKind::SiluOverflows) {
        const float e = std::exp(static_cast<float>(a));
        return e / (1.0f + e);
      }
      return static_cast<float>(1.0 / (1.0 + std::exp(-a)));
    };
    for (std::size_t i = 0; i < d_hidden.size(); ++i) {
      const std::size_t gate = i / width_ * 2 * width_ + i % width_;
      const float a = first[gate].value;
      const float b = first[gate + width_].value;
      const float s = sigmoid(a);
      float silu = a * s;
      float slope = s * (1.0f + a * (1.0f - s));
      if (fault_.kind == FaultKind::SlopeOfSigmoid) slope = s;
      if (fault_.kind == FaultKind::Relu) {
        silu = std::max(a, 0.0f);
        slope = a > 0.0f ? 1.0f : 0.0f;
      }
      if (fault_.kind == FaultKind::Gelu) {
        const float normal = 0.5f * (1.0f + std::erf(a * 0.70710678f));
        silu = a * normal;
        slope = normal + a * 0.39894228f * std::exp(-0.5f * a * a);
      }
      const auto d_silu = stored(PredictedValue{d_hidden[i].value * b, false}, contract_.d_silu);
      out[gate].value = d_silu.value * slope;
      out[gate + width_].value =
          d_hidden[i].value * stored(PredictedValue{silu, false}, contract_.silu).value;
    }
    return out;
  }

  const Fault& fault_;
  Layer layer_;
  Problem problem_;
  PrecisionContract contract_;
  const FieldReader& read_;
  std::size_t hidden_;
  std::size_t width_;
  std::size_t top_k_;
  std::size_t experts_;
};

}  // namespace

bool replaces_step(const Fault& fault, Field field) {
  if (fault.field != field || row(field).group != Group::Backward) return false;
  if (fault.kind == FaultKind::None || planted_when_stored(fault.kind)) return false;
  const auto product = product_of(field);
  if (!product || sums_over_rows(row(*product))) return true;
  return fault.kind == FaultKind::HalfZero || fault.kind == FaultKind::SwapGateUp;
}

Values<Predicted> planted_gradient(Field field, const Fault& fault, const Layer& right,
                                   const FieldReader& read) {
  if (const auto product = product_of(field); product && sums_over_rows(row(*product)))
    return planted_weight_gradient(*product, fault, right, read);
  PlantedStep step(fault, right, read);
  switch (field) {
    case d_second_gemm: return step.rows();
    case d_topk_weights: return step.dots();
    case d_first_gemm: return step.swiglu();
    case d_permuted_hidden_states: return step.rows_of_input();
    case d_router_logits: return step.logits();
    case d_experts_hidden_states: return step.slots();
    case d_input_hidden_states: return step.both_parts();
    default: throw InputError(fmt::format("no fault of {} is planted in its step", name(field)));
  }
}

}  // namespace assay
