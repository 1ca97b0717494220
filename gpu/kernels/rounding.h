// Where the kernels round: the contracts they can follow, as the one value that host code hands to them.
#pragma once

#include <string_view>

namespace assay::gpu {

/// Hf: whatever HuggingFace's layer stores is rounded to bf16, in memory or in a register.
/// FusedFp32: what a fused kernel keeps in registers stays fp32: the inside of SwiGLU and the terms of the
/// merge.
enum class Rounding { Hf, FusedFp32 };

/// The rounding of the contract of that name. Throws UsageError naming `pipeline` for a contract without
/// kernels.
Rounding rounding_of(std::string_view contract, std::string_view pipeline);

}  // namespace assay::gpu
