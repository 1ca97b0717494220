// Hypotheses about how values are stored: another rounding, flushed or limited values, a constant factor.
#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

Bf16 truncated(float x) { return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16)}; }

Bf16 half_away(float x) {
  return std::isfinite(x)
             ? Bf16{static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(x) + 0x8000u) >> 16)}
             : round_to_bf16(x);
}

/// To 10 fraction bits first (tf32; fp16 has as many in its range).
Bf16 rounded_twice(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (!std::isfinite(x)) return round_to_bf16(x);
  return round_to_bf16(std::bit_cast<float>((bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu));
}

Bf16 through_fp16(float x) { return round_to_bf16(static_cast<float>(static_cast<_Float16>(x))); }

constexpr struct {
  std::string_view id;
  std::string_view sentence;
  Bf16 (*store)(float);
} kStores[] = {
    {"truncated", "stored values are truncated toward zero, not rounded", truncated},
    {"half_away", "ties are rounded away from zero, not to even", half_away},
    {"rounded_twice", "values are rounded to tf32 before they are rounded to bf16", rounded_twice},
    {"rounded_twice", "values are rounded to fp16 before they are rounded to bf16", through_fp16},
};

template <class Store>
Proposal elementwise(std::string_view id, std::string sentence, const Evidence& evidence, Store store) {
  return {id, std::move(sentence), [&evidence, store](const Window& window) {
            std::vector<Stored> elements;
            elements.reserve(window.size());
            for (const auto r : window.rows)
              for (const auto c : window.columns)
                elements.push_back(store(evidence.plain[index(evidence, r, c)].value));
            return elements;
          }};
}

template <class Visit>
void each(const Evidence& evidence, const Window& window, Visit visit) {
  for (const auto r : window.rows)
    for (const auto c : window.columns) {
      const auto at = static_cast<std::size_t>(r * evidence.width + c);
      visit(evidence.out[at], evidence.reference[at], evidence.plain[at].value);
    }
}

/// The largest value that came out zero, if every smaller one did as well.
std::optional<float> flush_limit(const Evidence& evidence, const Window& window) {
  float largest_zero = 0.0f;
  float smallest_kept = INFINITY;
  each(evidence, window, [&](Stored out, Stored reference, float plain) {
    if (ordinal(reference) == 0 || !std::isfinite(plain)) return;
    if (ordinal(out) == 0)
      largest_zero = std::max(largest_zero, std::fabs(plain));
    else
      smallest_kept = std::min(smallest_kept, std::fabs(plain));
  });
  if (largest_zero == 0.0f || largest_zero >= smallest_kept || std::isinf(smallest_kept)) return std::nullopt;
  return smallest_kept;
}

/// The largest magnitude that came out, where larger or non-finite ones were expected and it stands in their
/// place.
std::optional<float> clamp_limit(const Evidence& evidence, const Window& window) {
  float largest = 0.0f;
  std::int64_t beyond = 0;
  std::int64_t at_limit = 0;
  each(evidence, window, [&](Stored out, Stored, float) {
    if (is_finite(out)) largest = std::max(largest, std::fabs(to_float(out)));
  });
  each(evidence, window, [&](Stored out, Stored reference, float) {
    if (std::fabs(to_float(reference)) <= largest) return;  // NaN is not
    ++beyond;
    at_limit += std::fabs(to_float(out)) == largest;
  });
  return beyond > 0 && beyond == at_limit && largest > 0.0f ? std::optional(largest) : std::nullopt;
}

/// Least squares: out = factor * plain.
std::optional<double> fitted_factor(const Evidence& evidence, const Window& window) {
  double cross = 0.0;
  double square = 0.0;
  each(evidence, window, [&](Stored out, Stored, float plain) {
    if (!is_finite(out) || !std::isfinite(plain)) return;
    cross += static_cast<double>(to_float(out)) * plain;
    square += static_cast<double>(plain) * plain;
  });
  if (square == 0.0 || cross == 0.0) return std::nullopt;
  return cross / square;
}

std::string factor_in_words(double factor) {
  if (factor == -1.0) return "the sign is the opposite one";
  if (std::fabs(factor - 1.0) < 0.1)
    return fmt::format("results are {:.6g} times what they should be", factor);
  return fmt::format("results are {:.4g} times what they should be", factor);
}

}  // namespace

std::vector<double> likely_factors(double fitted) {
  const double away = std::log2(std::fabs(fitted - 1.0));
  const double power = std::log2(std::fabs(fitted));
  std::vector<double> factors = {fitted, std::copysign(std::exp2(std::round(power)), fitted),
                                 1.0 + std::copysign(std::exp2(std::round(away)), fitted - 1.0),
                                 std::round(fitted * 1e3) / 1e3};
  // Few elements leave the fit uncertain by some units of the fourth decimal.
  for (int step = -3; step <= 3; ++step) factors.push_back(std::round(fitted * 1e4 + step) / 1e4);
  std::erase_if(factors, [](double factor) { return !std::isfinite(factor) || factor == 1.0; });
  return factors;
}

std::vector<Proposal> propose_storing(const Evidence& evidence, const ErrorPlace& place) {
  std::vector<Proposal> all;
  for (const auto& [id, sentence, store] : kStores)
    all.push_back(elementwise(id, std::string(sentence), evidence, store));
  if (const auto limit = flush_limit(evidence, place.sample))
    all.push_back(elementwise(
        "subnormals_flushed", fmt::format("results below {:.3g} in magnitude are flushed to zero", *limit),
        evidence, [&evidence, limit](float x) { return evidence.stored(std::fabs(x) < *limit ? 0.0f : x); }));
  if (const auto limit = clamp_limit(evidence, place.sample))
    all.push_back(elementwise("clamped", fmt::format("results are limited to {:.4g} in magnitude", *limit),
                              evidence, [&evidence, limit](float x) {
                                return evidence.stored(std::isnan(x) ? *limit
                                                                     : std::clamp(x, -*limit, *limit));
                              }));
  if (const auto fitted = fitted_factor(evidence, place.sample))
    for (const double factor : likely_factors(*fitted))
      all.push_back(elementwise("scaled", factor_in_words(factor), evidence, [&evidence, factor](float x) {
        return evidence.stored(static_cast<float>(static_cast<double>(x) * factor));
      }));
  return all;
}

}  // namespace assay
