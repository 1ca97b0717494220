// How the fused layer's gradients of the grouped products run.
#pragma once

#include <optional>
#include <string>

#include "gpu/kernel_config_forward.h"

namespace assay {

/// Gradients of rows walk tiles like the forward products, by the same kernel: its config has the same
/// members. Of the depths wide tiles take pipeline_depth_gate_up, others pipeline_depth_down.
using KernelConfigBackwardDx = KernelConfigForward;

/// How both gradients of the experts' weights run. Values outside `invalid`'s lists are refused.
struct KernelConfigBackwardDw {
  std::string variant = "auto";  // "wgmma_sm90", "mma_sm80", or the forward pass's
  // The rest is read by wgmma_sm90 alone.
  std::string tile_order = "height";  // which of a matrix's tiles run side by side: "height" or "width"
  int pipeline_depth = 3;             // shared-memory stages where rows are contiguous, 2 or 3
  int pipeline_depth_gathered = 4;    // where they are gathered, 2 to 4
  int persistent_blocks = 0;          // blocks that walk the tiles; 0 = one per multiprocessor
};

/// The reason why a config cannot run, or nothing.
std::optional<std::string> invalid(const KernelConfigBackwardDw& config);

}  // namespace assay
