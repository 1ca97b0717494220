// The two grouped products of the layer, in two variants with one interface. Rows are those of the row tiles
// in `DeviceRouting`; the number of tiles is read on the device. Weights are in HuggingFace's layout. Shapes:
// see kernels.h.
#pragma once

#include "gpu/kernel_config_forward.h"
#include "gpu/kernels/kernels.h"

namespace assay::gpu {

/// intermediate = swiglu(rows of x times gate_up_proj[expert]^T).
struct GateUp {
  const bf16* x;             // [T, H] with `gather`, else rows already in expert order [S, H]
  const bf16* gate_up_proj;  // [E, 2I, H], gate rows first
  bf16* intermediate;        // [S, I]
  bf16* first_gemm;          // [S, 2I], or null: then it exists in registers only
  bool gather;
  Rounding rounding;  // of gate, up and silu
};

/// out = rows of intermediate times down_proj[expert]^T.
struct Down {
  const bf16* intermediate;     // [S, I]
  const bf16* down_proj;        // [E, H, I]
  bf16* out;                    // [S, H]
  bool scatter;                 // row r leaves as slot gather_indices[r]
  bool behind_gate_up = false;  // gate_up_wgmma_sm90 comes right before, with the same routing: experts that
                                // it has finished may begin
};

void gate_up_mma_sm80(const GateUp& product, const DeviceRouting& routing, const Sizes& sizes,
                      cudaStream_t stream);
void down_mma_sm80(const Down& product, const DeviceRouting& routing, const Sizes& sizes,
                   cudaStream_t stream);

/// Whether these two walk wide tiles for such sizes: what `routing` must have been ordered with.
bool wide_tiles_wgmma_sm90(const KernelConfigForward& config, const Sizes& sizes);

void gate_up_wgmma_sm90(const GateUp& product, const DeviceRouting& routing, const Sizes& sizes,
                        const KernelConfigForward& config, cudaStream_t stream);
void down_wgmma_sm90(const Down& product, const DeviceRouting& routing, const Sizes& sizes,
                     const KernelConfigForward& config, cudaStream_t stream);

/// Whether the wgmma kernels were compiled in (architecture 90a) and the current device has compute
/// capability 9.0.
bool has_wgmma_sm90();

}  // namespace assay::gpu
