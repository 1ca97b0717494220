#include "gpu/kernels/rounding.h"

#include <string>

#include "harness/contract/error.h"

namespace assay::gpu {

Rounding rounding_of(std::string_view contract, std::string_view pipeline) {
  if (contract == "hf") return Rounding::Hf;
  if (contract == "fused_fp32") return Rounding::FusedFp32;
  throw UsageError("expected contract hf or fused_fp32 for " + std::string(pipeline) + ", found " +
                   std::string(contract));
}

}  // namespace assay::gpu
