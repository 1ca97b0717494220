// --kernel-config and its two for the backward pass: how gpu_fused runs its grouped products, as typed or as
// tuned.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "gpu/pipeline.h"
#include "harness/contract/problem.h"

namespace assay::cli {

inline constexpr std::string_view kAutotune = "autotune";
inline constexpr std::string_view kOptionForward = "--kernel-config";
inline constexpr std::string_view kOptionDx = "--kernel-config-bwd-dx";
inline constexpr std::string_view kOptionDw = "--kernel-config-bwd-dw";

/// "key=value,...": members of a config; those not named keep their defaults. Throws UsageError naming the
/// option, with the valid keys or the reason why a value cannot run. Of KernelConfigForward, which gradients
/// of rows have as well, and KernelConfigBackwardDw.
template <class Config = KernelConfigForward>
Config parse_kernel_config(std::string_view text, std::string_view option = kOptionForward);

/// As typed: key=value,... or autotune; empty is the default, of gradients of rows the forward pass's config.
struct KernelConfigTexts {
  std::string forward = {};
  std::string backward_dX = {};
  std::string backward_dW = {};
};

/// The configs that a pipeline's name says behind '#': "tiles=tall,cluster=1" for both products' kernels, of
/// their gradients' rows too, or "dW:tile_order=width" for the gradients of the experts' weights.
KernelConfigTexts kernel_config_of_name(std::string_view config);

/// Those of the spaces that autotune searches, as kernel_config_of_name takes them: members other than the
/// default's. The default first; those of gradients of weights with `backward`.
std::vector<std::string> kernel_config_names(bool backward);

/// Throws like parse_kernel_config.
void check(const KernelConfigTexts& texts);

/// Sets the configs that the texts mean for this problem: typed, or for "autotune" the cached or measured
/// ones, each beside those before it. Those of the backward pass where the problem has one. What it did goes
/// to stderr.
void set_kernel_configs(GpuOptions& options, const KernelConfigTexts& texts, const Problem& problem);

}  // namespace assay::cli
