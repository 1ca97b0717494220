// Limits of the kernels, for host code with and without CUDA.
#pragma once

#include <cstdint>

namespace assay::gpu {

inline constexpr std::int64_t kMaxExperts = 1024;  // one warp holds a token's probabilities in registers
inline constexpr std::int64_t kMaxTopK = 32;       // one lane per selected expert
inline constexpr int kNarrowTileRows = 16;         // no expert has more where such tiles are used

}  // namespace assay::gpu
