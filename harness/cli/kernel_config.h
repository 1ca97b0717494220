// --kernel-config: how gpu_fused runs its grouped products, as typed or as tuned.
#pragma once

#include <string>
#include <string_view>

#include "gpu/pipeline.h"
#include "harness/contract/problem.h"

namespace assay::cli {

inline constexpr std::string_view kAutotune = "autotune";

/// "key=value,...": members of KernelConfigForward; those not named keep their defaults. Throws UsageError
/// with the valid keys or the reason why a value cannot run.
KernelConfigForward parse_kernel_config(std::string_view text);

/// The config `text` means for this problem: typed, or for "autotune" the cached or measured one. What it did
/// goes to stderr.
KernelConfigForward kernel_config(std::string_view text, const Problem& problem, const GpuOptions& options);

}  // namespace assay::cli
