// The sign test: whether a hypothesis improves more elements than a coin would.
#pragma once

#include <cmath>
#include <cstdint>

namespace assay {

/// Logarithm of the largest chance that of closer + farther tosses, each at most even, so many come out
/// closer: the Chernoff bound exp(-n KL(p, 1/2)), which is 2^-n where all do. 0 (certainty) unless most do.
inline double log_chance_of_signs(std::int64_t closer, std::int64_t farther) {
  if (closer <= farther) return 0.0;
  const auto n = static_cast<double>(closer + farther);
  const double p = static_cast<double>(closer) / n;
  return -n * (std::log(2.0) + p * std::log(p) + (p < 1.0 ? (1.0 - p) * std::log1p(-p) : 0.0));
}

}  // namespace assay
