// The portable kernels' way out for gradients of weights.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "gpu/kernels/gradient_store.h"
#include "gpu/kernels/swiglu.cuh"

namespace assay::gpu {

/// Element `at` and the next one; `at` is even.
__device__ inline void store_gradient_pair(const WeightGradient& to, std::int64_t at, float first,
                                           float second) {
  if (to.product_rounded) {
    first = through_bf16(first);
    second = through_bf16(second);
  }
  if (is_fp32(to.store)) {
    auto* const pair = reinterpret_cast<float2*>(static_cast<float*>(to.values) + at);
    const float2 before = adds(to.store) ? *pair : float2{};
    *pair = adds(to.store) ? float2{__fadd_rn(first, before.x), __fadd_rn(second, before.y)}
                           : float2{first, second};
    return;
  }
  auto* const pair = reinterpret_cast<__nv_bfloat162*>(static_cast<__nv_bfloat16*>(to.values) + at);
  if (adds(to.store)) {
    const float2 before = __bfloat1622float2(*pair);
    first = __fadd_rn(first, before.x);
    second = __fadd_rn(second, before.y);
  }
  *pair = __floats2bfloat162_rn(first, second);
}

}  // namespace assay::gpu
