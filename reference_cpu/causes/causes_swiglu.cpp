// Hypotheses about SwiGLU: which columns are gate and up, which function is applied, and where it is rounded.
#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"
#include "reference_cpu/expf_sm90.h"

namespace assay {
namespace {

float sigmoid(float a) { return 1.0f / (1.0f + expf_sm90(-a).value); }
float silu(float a) { return a / (1.0f + expf_sm90(-a).value); }
float to_bf16(float x) { return to_float(round_to_bf16(x)); }

/// tanh.approx.f32 has a relative error of about 2^-11 (PTX ISA, tanh): 11 bits of it stand for its values.
float tanh_to_11_bits(float x) {
  const float exact = std::tanh(x);
  if (exact == 0.0f || !std::isfinite(exact)) return exact;
  const float unit = std::ldexp(1.0f, std::ilogb(exact) - 10);
  return std::nearbyint(exact / unit) * unit;
}

float silu_by_tanh(float a) { return a * (0.5f + 0.5f * tanh_to_11_bits(0.5f * a)); }
float silu_by_fp16_sigmoid(float a) { return a * static_cast<float>(static_cast<_Float16>(sigmoid(a))); }
float silu_by_bf16_sigmoid(float a) { return a * to_bf16(sigmoid(a)); }
float silu_by_bf16_exp(float a) { return a / (1.0f + to_bf16(expf_sm90(-a).value)); }
float quick_gelu(float a) { return a * sigmoid(1.702f * a); }
float gelu_erf(float a) { return 0.5f * a * (1.0f + std::erf(a * 0.70710678f)); }
float gelu_tanh(float a) { return 0.5f * a * (1.0f + std::tanh(0.79788456f * (a + 0.044715f * a * a * a))); }
float relu(float a) { return a > 0.0f ? a : 0.0f; }
float relu_squared(float a) { return relu(a) * relu(a); }
float identity(float a) { return a; }
float hard_swish(float a) { return a * std::clamp((a + 3.0f) / 6.0f, 0.0f, 1.0f); }

enum class Read { Halves, Swapped, Interleaved, InterleavedSwapped };
enum class Up { Multiplied, Left };

struct SwigluVariant {
  std::string_view id;
  std::string_view sentence;
  float (*activation)(float);
  Read read = Read::Halves;
  Up up = Up::Multiplied;
  // offsets of the rows read
  std::int64_t gate_row = 0;
  std::int64_t up_row = 0;
  std::int64_t block = 1;  // of interleaved columns
  // columns further on, within the half
  std::int64_t gate_away = 0;
  std::int64_t up_away = 0;
  // gate at most this and up within it; what is added to up
  float limit = INFINITY;
  float up_added = 0.0f;
};

// clang-format off
constexpr SwigluVariant kVariants[] = {
    {"copy_of_upstream",    "the gate half of first_gemm is copied",                        identity, Read::Halves, Up::Left},
    {"copy_of_upstream",    "the up half of first_gemm is copied",                          identity, Read::Swapped, Up::Left},
    {"gate_up_swapped",     "gate and up halves are exchanged",                             silu, Read::Swapped},
    {"gate_up_interleaved", "gate and up columns are read as interleaved pairs",            silu, Read::Interleaved},
    {"gate_up_interleaved", "up and gate columns are read as interleaved pairs",            silu, Read::InterleavedSwapped},
    {"up_not_multiplied",   "the product with the up half is missing",                      silu, Read::Halves, Up::Left},
    {"wrong_activation",    "the activation is missing: gate times up",                     identity},
    {"wrong_activation",    "the activation is sigmoid(a), not a sigmoid(a)",               sigmoid},
    {"wrong_activation",    "the activation is a sigmoid(1.702 a), not a sigmoid(a)",       quick_gelu},
    {"wrong_activation",    "the activation is gelu (erf)",                                 gelu_erf},
    {"wrong_activation",    "the activation is gelu (tanh)",                                gelu_tanh},
    {"wrong_activation",    "the activation is relu",                                       relu},
    {"wrong_activation",    "the activation is relu squared",                               relu_squared},
    {"wrong_activation",    "the activation is hard swish",                                 hard_swish},
    {"wrong_activation",    "the function is (up + 1) gate sigmoid(1.702 gate), as GPT-OSS has it", quick_gelu, Read::Halves, Up::Multiplied, 0, 0, 1, 0, 0, INFINITY, 1.0f},
    {"wrong_activation",    "the function is (up + 1) gate sigmoid(1.702 gate) with gate at most 7 and up within 7, as GPT-OSS has it", quick_gelu, Read::Halves, Up::Multiplied, 0, 0, 1, 0, 0, 7.0f, 1.0f},
    {"wrong_activation",    "the function is (up + 1) gate sigmoid(1.702 gate) of interleaved pairs, as GPT-OSS has it", quick_gelu, Read::Interleaved, Up::Multiplied, 0, 0, 1, 0, 0, 7.0f, 1.0f},
    {"wrong_activation",    "one is added to the up half",                                  silu, Read::Halves, Up::Multiplied, 0, 0, 1, 0, 0, INFINITY, 1.0f},
    {"approximate_sigmoid", "the sigmoid comes from a tanh of 11 bits",                     silu_by_tanh},
    {"approximate_sigmoid", "the sigmoid is rounded to fp16",                               silu_by_fp16_sigmoid},
    {"approximate_sigmoid", "the exponential in the sigmoid is rounded to bf16",            silu_by_bf16_exp},
    {"sigmoid_rounded",     "the sigmoid is rounded to bf16 before it is multiplied",       silu_by_bf16_sigmoid},
    {"wrong_token",         "the gate half is that of the row before",                      silu, Read::Halves, Up::Multiplied, -1, 0},
    {"wrong_token",         "the gate half is that of the row after",                       silu, Read::Halves, Up::Multiplied, 1, 0},
    {"wrong_token",         "the up half is that of the row before",                        silu, Read::Halves, Up::Multiplied, 0, -1},
    {"wrong_token",         "the up half is that of the row after",                         silu, Read::Halves, Up::Multiplied, 0, 1},
};
// clang-format on

struct GateAndUp {
  float gate;
  float up;
};

GateAndUp operands(const Evidence& evidence, const SwigluVariant& variant, std::int64_t r, std::int64_t i) {
  const std::int64_t width = evidence.width;
  const auto& first = evidence.input(Field::first_gemm);
  const auto at = [&](std::int64_t row, std::int64_t column) {
    return first[static_cast<std::size_t>(std::clamp<std::int64_t>(row, 0, evidence.rows - 1) * 2 * width +
                                          column)]
        .value;
  };
  std::int64_t gate = i;
  std::int64_t up = width + i;
  if (variant.read == Read::Swapped) std::swap(gate, up);
  if (variant.gate_away != 0) gate = (i + variant.gate_away) % width;
  if (variant.up_away != 0) up = width + (i + variant.up_away) % width;
  if (variant.read == Read::Interleaved || variant.read == Read::InterleavedSwapped) {
    gate = i / variant.block * 2 * variant.block + i % variant.block;
    up = gate + variant.block;
    if (variant.read == Read::InterleavedSwapped) std::swap(gate, up);
  }
  const float limited = std::clamp(at(r + variant.up_row, up), -variant.limit, variant.limit);
  return {std::min(at(r + variant.gate_row, gate), variant.limit),
          variant.up_added == 0.0f ? limited : limited + variant.up_added};  // -0 + 0 is another zero
}

/// SwiGLU with `activation` for silu and its rounding as given.
template <class Activation>
Synthesis swiglu(const Evidence& evidence, const SwigluVariant& variant, Store store, Activation activation) {
  return [&evidence, variant, store, activation](const Window& window) {
    std::vector<Bf16> bits(window.size());
#pragma omp parallel for schedule(static) if (window.size() > kWorthThreads)
    for (std::size_t i = 0; i < window.rows.size(); ++i)
      for (std::size_t c = 0; c < window.columns.size(); ++c) {
        const auto [gate, up] = operands(evidence, variant, window.rows[i], window.columns[c]);
        float value = activation(gate);
        if (store == Store::Bf16) value = to_bf16(value);
        bits[i * window.columns.size() + c] =
            round_to_bf16(variant.up == Up::Multiplied ? value * up : value);
      }
    return bits;
  };
}

/// Columns of gate and up that are paired otherwise: alternating blocks of any size, or one half against the
/// other, moved on. Only what the wrong elements' first ones agree with is offered.
void propose_pairings(const Evidence& evidence, const ErrorPlace& place, Store store,
                      std::vector<Proposal>& all) {
  const std::int64_t width = evidence.width;
  const auto try_variant = [&](std::string_view id, std::string sentence, const SwigluVariant& variant) {
    constexpr std::size_t kTried = 64;
    constexpr std::size_t kMostWrong = 8;
    const auto& rows = place.sample.rows;
    const auto& columns = place.sample.columns;
    const std::size_t size = rows.size() * columns.size();
    const std::size_t step = std::max<std::size_t>(1, size / kTried) | 1u;
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < size && wrong <= kMostWrong; i += step) {
      const auto r = rows[i / columns.size()];
      const auto c = columns[i % columns.size()];
      const auto [gate, up] = operands(evidence, variant, r, c);
      const float s = silu(gate);
      const float value = (store == Store::Bf16 ? to_bf16(s) : s) * up;
      const Stored out = evidence.out[index(evidence, r, c)];
      wrong += std::abs(ordinal(round_to_bf16(value)) - ordinal(out)) > 1;
    }
    if (wrong <= kMostWrong) all.push_back({id, std::move(sentence), swiglu(evidence, variant, store, silu)});
  };
  for (std::int64_t block = 2; block < width; ++block)
    if (width % block == 0) {
      try_variant("gate_up_interleaved",
                  fmt::format("gate and up columns are read as alternating blocks of {}", block),
                  {"", "", silu, Read::Interleaved, Up::Multiplied, 0, 0, block});
      try_variant("gate_up_interleaved",
                  fmt::format("up and gate columns are read as alternating blocks of {}", block),
                  {"", "", silu, Read::InterleavedSwapped, Up::Multiplied, 0, 0, block});
    }
  for (std::int64_t away = 1; away < width; ++away) {
    const auto how =
        2 * away == width ? std::string("of the other half of them") : fmt::format("{} further on", away);
    try_variant("gate_up_paired", fmt::format("gate columns meet the up columns {}", how),
                {"", "", silu, Read::Halves, Up::Multiplied, 0, 0, 1, 0, away});
    try_variant("gate_up_paired", fmt::format("up columns meet the gate columns {}", how),
                {"", "", silu, Read::Halves, Up::Multiplied, 0, 0, 1, away, 0});
  }
}

/// The gate value up to which silu came out zero, if it did so below and nowhere above.
std::optional<float> flush_limit(const Evidence& evidence, const Window& window) {
  float highest_zero = -INFINITY;
  float lowest_kept = INFINITY;
  for (const auto r : window.rows)
    for (const auto c : window.columns) {
      const auto at = static_cast<std::size_t>(r * evidence.width + c);
      if (ordinal(evidence.reference[at]) == 0) continue;
      const float gate = operands(evidence, kVariants[0], r, c).gate;
      if (ordinal(evidence.out[at]) == 0)
        highest_zero = std::max(highest_zero, gate);
      else
        lowest_kept = std::min(lowest_kept, gate);
    }
  if (std::isinf(highest_zero) || highest_zero >= lowest_kept) return std::nullopt;
  const float rounded = std::ceil(highest_zero);
  return rounded <= lowest_kept ? rounded : lowest_kept;
}

/// Gates limited from above and up halves from both sides, as DeepSeek's and GPT-OSS's swiglu_limit: the
/// limit of which all gates and ups beyond it are wrong, and none below.
std::vector<float> likely_limits(const Evidence& evidence, const Window& window) {
  float smallest_wrong = INFINITY;
  for (const auto r : window.rows)
    for (const auto c : window.columns) {
      const auto at = index(evidence, r, c);
      if (!evidence.significant[at]) continue;
      const auto [gate, up] = operands(evidence, kVariants[0], r, c);
      const float beyond = std::max(gate, std::fabs(up));
      if (std::isfinite(beyond)) smallest_wrong = std::min(smallest_wrong, beyond);
    }
  std::vector<float> limits;
  if (!std::isfinite(smallest_wrong) || smallest_wrong <= 0.0f) return limits;
  for (const float likely : {std::floor(smallest_wrong), std::floor(2.0f * smallest_wrong) / 2.0f})
    if (likely > 0.0f && std::ranges::find(limits, likely) == limits.end()) limits.push_back(likely);
  return limits;
}

/// out = factor * silu * up by least squares.
double fitted_factor(const Evidence& evidence, const Window& window) {
  double cross = 0.0;
  double square = 0.0;
  for (const auto r : window.rows)
    for (const auto c : window.columns) {
      const auto [gate, up] = operands(evidence, kVariants[0], r, c);
      const double exact = static_cast<double>(silu(gate)) * up;
      const double out = to_float(evidence.out[static_cast<std::size_t>(r * evidence.width + c)]);
      if (!std::isfinite(exact) || !std::isfinite(out)) continue;
      cross += out * exact;
      square += exact * exact;
    }
  return square > 0.0 ? cross / square : 1.0;
}

}  // namespace

std::vector<Proposal> propose_swiglu(const Evidence& evidence, const ErrorPlace& place) {
  const Store declared = evidence.layer->contract->silu;
  std::vector<Proposal> all;
  for (const auto& variant : kVariants)
    all.push_back(
        {variant.id, std::string(variant.sentence), swiglu(evidence, variant, declared, variant.activation)});
  propose_pairings(evidence, place, declared, all);
  constexpr SwigluVariant kAsIs = {"", "", silu};
  if (declared == Store::Bf16)
    all.push_back({"silu_unrounded", "silu is not rounded to bf16 before the product",
                   swiglu(evidence, kAsIs, Store::Unrounded, silu)});
  else
    all.push_back({"silu_rounded", "silu is rounded to bf16 before the product",
                   swiglu(evidence, kAsIs, Store::Bf16, silu)});
  if (const auto limit = flush_limit(evidence, place.sample))
    all.push_back(
        {"silu_flushed", fmt::format("silu is zero for gates below {:.4g}", *limit),
         swiglu(evidence, kAsIs, declared, [limit](float a) { return a < *limit ? 0.0f : silu(a); })});
  for (const float limit : likely_limits(evidence, place.sample)) {
    SwigluVariant limited = kAsIs;
    limited.limit = limit;
    all.push_back({"clamped", fmt::format("gate is limited to {0:.4g} and up to -{0:.4g} .. {0:.4g}", limit),
                   swiglu(evidence, limited, declared, silu)});
  }
  for (const double factor : likely_factors(fitted_factor(evidence, place.sample)))
    all.push_back({"scaled", fmt::format("silu is {:.6g} times what it should be", factor),
                   swiglu(evidence, kAsIs, declared,
                          [factor](float a) { return static_cast<float>(silu(a) * factor); })});
  return all;
}

}  // namespace assay
