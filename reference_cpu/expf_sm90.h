// CUDA's expf on Hopper, bit for bit, from a recorded table of ex2.approx.
#pragma once

#include <cstddef>
#include <span>

#include "reference_cpu/arithmetic.h"

namespace assay {

/// expf(x) as an H200 computes it, for x up to about 88.7; NaN stays NaN, large x gives Inf.
/// k = floor(x log2 e); the result is ex2(x log2 e - k) 2^k. `undetermined` is set for results below 2^-126,
/// whose arguments of ex2 lie far below zero and were not recorded.
PredictedValue expf_sm90(float x);

/// ex2.approx.ftz of r in [-2^-16, 2): truncated toward zero to a multiple of 2^-24, integer part exact.
float ex2_sm90(float r);

/// The recorded differences from the correctly rounded 2^(i 2^-24), i in [0, 2^24): -1, 0 or +1 units in the
/// last place, stored plus one, four to a byte, lowest bits first.
std::span<const unsigned char> ex2_table();

}  // namespace assay
