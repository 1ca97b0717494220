// The router's products on Hopper's tensor cores, and the choice that follows the first. Bits are those of
// the portable kernels.
#pragma once

#include "gpu/kernels/kernels.h"

namespace assay::gpu {

struct RouterProduct {
  const bf16* x;     // [T, H]
  const bf16* gate;  // [E, H]
  bf16* logits;      // [T, E]
};

/// What router_product does.
void router_wgmma_sm90(const RouterProduct& router, const Sizes& sizes, cudaStream_t stream);

/// Whether one kernel does what router_product and softmax_topk do.
bool router_chooses_wgmma_sm90(const Sizes& sizes);
void router_topk_wgmma_sm90(const RouterProduct& router, const DeviceRouting& routing, const Sizes& sizes,
                            cudaStream_t stream);

/// What router_dx and router_dw do.
void router_dx_wgmma_sm90(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream);
void router_dw_wgmma_sm90(const RouterGrad& product, const Sizes& sizes, cudaStream_t stream);

}  // namespace assay::gpu
