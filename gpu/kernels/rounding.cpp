#include "gpu/kernels/rounding.h"

#include <string>

#include "harness/contract/error.h"

namespace assay::gpu {

Rounding rounding_of(std::string_view contract, std::string_view pipeline) {
  // They differ in how gradients of weights are kept (gpu/weight_gradient_buffer.h).
  constexpr std::string_view kLikeHf[] = {"hf", "hf_in_place_grads", "hf_added_main_grads", "hf_main_grads"};
  std::string names;
  for (const std::string_view name : kLikeHf) {
    if (contract == name) return Rounding::Hf;
    names += std::string(name) + (name == kLikeHf[3] ? "" : ", ");
  }
  if (contract == "fused_fp32") return Rounding::FusedFp32;
  throw UsageError("expected contract " + names + " or fused_fp32 for " + std::string(pipeline) + ", found " +
                   std::string(contract));
}

}  // namespace assay::gpu
