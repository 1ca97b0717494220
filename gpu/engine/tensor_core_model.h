// What a Hopper tensor core adds up, element by element on the host: the self-check's own copy of the model.
// Source: bit-accurate models of arXiv 2511.10909 and 2512.07004 (16 products a step, 25 fractional bits,
// truncation).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "harness/contract/bf16.h"

namespace assay::gpu {

/// fp32 sum of a[k] b[k], K ascending in steps of 16: addends aligned to the largest exponent, truncated,
/// summed exactly, the result truncated to fp32. Finite operands of moderate size only.
inline float tensor_core_dot(std::span<const Bf16> a, std::span<const Bf16> b) {
  double accumulator = 0.0;
  for (std::size_t first = 0; first < a.size(); first += 16) {
    const std::size_t end = std::min(first + 16, a.size());
    int top = -10000;
    if (accumulator != 0.0) top = std::ilogb(accumulator);
    for (std::size_t k = first; k < end; ++k) {
      const float x = to_float(a[k]);
      const float y = to_float(b[k]);
      if (x != 0.0f && y != 0.0f) top = std::max(top, std::ilogb(x) + std::ilogb(y));  // not normalised
    }
    if (top == -10000) continue;
    double sum = std::trunc(std::ldexp(accumulator, 25 - top));
    for (std::size_t k = first; k < end; ++k)
      sum += std::trunc(
          std::ldexp(static_cast<double>(to_float(a[k])) * static_cast<double>(to_float(b[k])), 25 - top));
    accumulator = std::ldexp(sum, top - 25);
    if (accumulator == 0.0) continue;
    const int unit = std::ilogb(accumulator) - 23;
    accumulator = std::ldexp(std::trunc(std::ldexp(accumulator, -unit)), unit);
  }
  return static_cast<float>(accumulator);
}

}  // namespace assay::gpu
