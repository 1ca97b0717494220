// The gradients of the layer's products: of their rows (dX: the weights read transposed) and of their weights
// (dW: sums over an expert's rows, or over the tokens). Rows are in expert order; sums ascend in steps of 16
// without a split, and each expert's begins anew. Shapes: see kernels.h.
#pragma once

#include "gpu/kernel_config_backward.h"
#include "gpu/kernels/gradient_store.h"
#include "gpu/kernels/kernels.h"

namespace assay::gpu {

/// d_intermediate = d_second_gemm down_proj[expert], and SwiGLU's gradient from what it was rounded to.
struct DownDx {
  const bf16* d_second_gemm;  // [S, H]
  const bf16* down_proj;      // [E, H, I]
  const bf16* first_gemm;     // [S, 2I], as the forward pass stored it
  bf16* d_intermediate;       // [S, I]; of the portable variant, or null: then it exists in registers only
  bf16* d_first_gemm;         // [S, 2I]
};

/// products = rows of the output's gradient times down_proj[expert], not rounded.
struct DownDxFp32 {
  const bf16* d_out;      // [S, H]
  const bf16* down_proj;  // [E, H, I]
  float* products;        // [S, I]
};

/// d_rows = d_first_gemm gate_up_proj[expert], gate half first.
struct GateUpDx {
  const bf16* d_first_gemm;  // [S, 2I]
  const bf16* gate_up_proj;  // [E, 2I, H]
  bf16* d_rows;              // [S, H]
};

/// d_down_proj[e] = the expert's d_second_gemm^T intermediate, stored or added (gradient_store.h).
struct DownDw {
  const bf16* d_second_gemm;   // [S, H]
  const bf16* intermediate;    // [S, I]
  WeightGradient d_down_proj;  // [E, H, I]
  bool beside_previous = false;
};

/// d_gate_up_proj[e] = the expert's d_first_gemm^T x, stored or added.
struct GateUpDw {
  const bf16* d_first_gemm;       // [S, 2I]
  const bf16* x;                  // [T, H] with `gather`, else rows already in expert order [S, H]
  WeightGradient d_gate_up_proj;  // [E, 2I, H]
  bool gather;
  bool beside_previous = false;
};
// beside_previous: the kernel before has waited, in every block, for all that this one reads, and then let it
// start, so that it takes what that one's last tiles leave. The portable variants wait all the same.

void down_dx_mma_sm80(const DownDx& product, const DeviceRouting& routing, const Sizes& sizes,
                      cudaStream_t stream);
void down_dx_fp32_mma_sm80(const DownDxFp32& product, const DeviceRouting& routing, const Sizes& sizes,
                           cudaStream_t stream);
void gate_up_dx_mma_sm80(const GateUpDx& product, const DeviceRouting& routing, const Sizes& sizes,
                         cudaStream_t stream);
void down_dw_mma_sm80(const DownDw& product, const DeviceRouting& routing, const Sizes& sizes,
                      cudaStream_t stream);
void gate_up_dw_mma_sm80(const GateUpDw& product, const DeviceRouting& routing, const Sizes& sizes,
                         cudaStream_t stream);

/// For Hopper. Gradients of rows walk the row tiles that `wide_tiles_wgmma_sm90` says for `config`; gradients
/// of weights need none.
void down_dx_wgmma_sm90(const DownDx& product, const DeviceRouting& routing, const Sizes& sizes,
                        const KernelConfigBackwardDx& config, cudaStream_t stream);
void down_dx_fp32_wgmma_sm90(const DownDxFp32& product, const DeviceRouting& routing, const Sizes& sizes,
                             const KernelConfigBackwardDx& config, cudaStream_t stream);
void gate_up_dx_wgmma_sm90(const GateUpDx& product, const DeviceRouting& routing, const Sizes& sizes,
                           const KernelConfigBackwardDx& config, cudaStream_t stream);
void down_dw_wgmma_sm90(const DownDw& product, const DeviceRouting& routing, const Sizes& sizes,
                        const KernelConfigBackwardDw& config, cudaStream_t stream);
void gate_up_dw_wgmma_sm90(const GateUpDw& product, const DeviceRouting& routing, const Sizes& sizes,
                           const KernelConfigBackwardDw& config, cudaStream_t stream);

}  // namespace assay::gpu
