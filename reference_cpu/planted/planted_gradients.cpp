#include "reference_cpu/planted/planted_gradients.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "reference_cpu/planted/planted.h"
#include "reference_cpu/previous_gradients.h"
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
using Field::router_logits;
using Field::topk_weights;
using Gradients = Values<Predicted>;

float bf16(float x) { return to_float(round_to_bf16(x)); }

class PlantedStep : PlantedLayer {
 public:
  PlantedStep(const Fault& fault, const Layer& right, const FieldReader& read)
      : PlantedLayer(fault, right, read) {}

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
      case FaultKind::SlotForToken: problem_ = tokens_of_slots(problem_); break;
      case FaultKind::RowsInExpertOrder:  // of the weights, or with an amount of the tokens
        for (std::size_t r = 0; r < weights.size(); ++r) {
          if (fault_.amount == 0) weights[slot_of(r)] = read_(topk_weights)[r];
          if (fault_.amount != 0) weights[r] = read_(topk_weights)[slot_of(r)];
        }
        if (fault_.amount != 0) std::iota(layer_.routing.gather.begin(), layer_.routing.gather.end(), 0);
        break;
      default: break;
    }
    Gradients out = weighted_rows<Predicted>(layer_, weights);
    if (fault_.kind == FaultKind::WeightTwice)
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i].value = bf16(out[i].value) * weights[slot_of(i / hidden_)].value;
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
    const Gradients right = act_and_mul_grad<Predicted>(layer_, d_activation(), first);
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
          if (left_out(static_cast<std::int64_t>(s % top_k_))) given[s] = {};
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
      const auto of_division = through_division(given, p, t);
      for (std::size_t j = 0; j < top_k_; ++j) {
        const auto e = static_cast<std::size_t>(layer_.routing.selected[t * top_k_ + j]);
        const float g = given[t * top_k_ + j].value;
        if (fault_.kind == FaultKind::JacobianOfChosen) token[e] = out[t * experts_ + e];
        if (fault_.kind == FaultKind::SumNotSubtracted) token[e].value = g * p[e].value;
        if (fault_.kind == FaultKind::NoSoftmaxGradient)
          token[e].value = fault_.amount == 0 ? g : of_division[j];
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
      if (fault_.kind == FaultKind::DropSlot && left_out(j)) rows[i] = {};
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

  /// Gradients of a token's chosen probabilities, from those of the weights that are made by their sum.
  std::vector<float> through_division(const Gradients& d_weights, std::span<const PredictedValue> p,
                                      std::size_t token) const {
    float sum = 0.0f;
    float dot = 0.0f;
    std::vector<float> out(top_k_);
    const auto chosen = [&](std::size_t j) {
      return p[static_cast<std::size_t>(layer_.routing.selected[token * top_k_ + j])].value;
    };
    for (std::size_t j = 0; j < top_k_; ++j) {
      sum += chosen(j);
      dot += d_weights[token * top_k_ + j].value * chosen(j);
    }
    for (std::size_t j = 0; j < top_k_; ++j) out[j] = (d_weights[token * top_k_ + j].value - dot / sum) / sum;
    return out;
  }

  /// DropSlot: slot `amount`, or all from `amount` to `first`.
  bool left_out(std::int64_t slot) const {
    return fault_.amount <= slot && slot <= std::max(fault_.amount, fault_.first);
  }

  /// The gradient of the activation, the weight in it.
  Gradients d_activation() const {
    const Gradients& of = read_(Field::d_intermediate);
    if (!weight_after_product(contract_) || fault_.kind == FaultKind::NoWeights) return of;
    Gradients out = times_weights<Predicted>(layer_, of, read_(topk_weights));
    if (fault_.kind != FaultKind::WeightTwice) return out;
    return times_weights<Predicted>(layer_, std::move(out), read_(topk_weights));
  }

  /// Slope of another activation; where the activation itself is another, so is the up half's gradient.
  Gradients other_activation(const Gradients& first) const {
    const Gradients d_hidden = d_activation();
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
};

}  // namespace

bool replaces_step(const Fault& fault, Field field) {
  if (fault.field != field || row(field).group != Group::Backward) return false;
  if (fault.kind == FaultKind::None || planted_when_stored(fault.kind)) return false;
  if (adds_wrongly(fault.kind)) return false;
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
    case d_topk_weights: return planted_dots(fault, right, read);
    case d_first_gemm: return step.swiglu();
    case d_permuted_hidden_states: return step.rows_of_input();
    case d_router_logits: return step.logits();
    case d_experts_hidden_states: return step.slots();
    case d_input_hidden_states: return step.both_parts();
    default: throw InputError(fmt::format("no fault of {} is planted in its step", name(field)));
  }
}

}  // namespace assay
