// How the fused layer's grouped products run.
#pragma once

#include <optional>
#include <string>

namespace assay {

/// How the two grouped products of the forward pass run. Values outside `invalid`'s lists are refused, never
/// adjusted.
struct KernelConfigForward {
  std::string variant =
      "auto";  // "wgmma_sm90" (Hopper), "mma_sm80" (compute capability 8.0 and newer), or the better one
  // The rest is read by wgmma_sm90 alone.
  std::string tiles =
      "auto";  // weights by rows of an expert: "tall" (256 x 128), "wide" (256 x 144, computed in 8s),
               // "narrow" (128 x 16, for 16 tokens at most), or what suits the sizes
  int pipeline_depth_gate_up = 4;  // shared-memory stages of the first product, 2 to 4
  int pipeline_depth_down = 3;     // of the second, 2 or 3: its results take a stage's room
  int raster_rows = 4;             // row tiles that run side by side before the next column tile; 1 to 64
  int persistent_blocks = 0;  // blocks that walk the tiles, a multiple of cluster; 0 = one per multiprocessor
  int cluster =
      0;  // blocks that fetch an expert's weights together, 1 or 2; 0 = 2 where experts have two tiles or so
};

/// The reason why a config cannot run, or nothing.
std::optional<std::string> invalid(const KernelConfigForward& config);

}  // namespace assay
