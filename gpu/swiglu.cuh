// silu as HuggingFace's CUDA kernel computes it from a bf16 argument.
#pragma once

#include <cuda_bf16.h>

namespace assay::gpu {

/// a / (1 + expf(-a)) in fp32, not rounded to bf16 yet.
__device__ inline float silu(float a) { return __fdiv_rn(a, __fadd_rn(1.0f, expf(-a))); }

/// The value a bf16 store would keep.
__device__ inline float through_bf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

/// The stored intermediate. kRoundInner: rb(rb(silu(rb(gate))) * rb(up)), the roundings memory would do; else one rounding.
template <bool kRoundInner>
__device__ inline __nv_bfloat16 swiglu(float gate, float up) {
  if constexpr (kRoundInner) return __float2bfloat16_rn(__fmul_rn(through_bf16(silu(through_bf16(gate))), through_bf16(up)));
  return __float2bfloat16_rn(__fmul_rn(silu(gate), up));
}

}  // namespace assay::gpu
