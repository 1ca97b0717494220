// The last step of the fused backward pass: kernels.h's combine and add_router_part in one.
#pragma once

#include "gpu/kernels/kernels.h"

namespace assay::gpu {

/// with_router[t] = rb(experts[t] + router[t]), where experts[t] is what combine makes of `rows`; `out` gets
/// that, or is null. `router` and `with_router` [T, H], or both null.
void combine_with_router(const bf16* rows, const std::int32_t* row_of_slot, const bf16* router, bf16* out,
                         bf16* with_router, Rounding rounding, const Sizes& sizes, cudaStream_t stream);

}  // namespace assay::gpu
