// silu as HuggingFace's CUDA kernel computes it from a bf16 argument.
#pragma once

#include <cuda_bf16.h>

#include "gpu/kernels/rounding.h"

namespace assay::gpu {

/// a / (1 + expf(-a)) in fp32, not rounded to bf16 yet.
__device__ inline float silu(float a) { return __fdiv_rn(a, __fadd_rn(1.0f, expf(-a))); }

/// The same number after rounding to bf16 for every finite bf16 argument on sm_90 (the self-check compares
/// all of them), in 6 instructions: approximate exponential and reciprocal. Both are scaled by 2^6, so that
/// the reciprocal of a large 1 + exp(-a) does not fall among the subnormals, which it flushes.
__device__ inline float silu_sm90(float a) {
  float exponential;
  float reciprocal;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(exponential) : "f"(__fmul_rn(a, -1.4426950408889634f)));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(__fmaf_rn(exponential, 0x1p-6f, 0x1p-6f)));
  return __fmul_rn(__fmul_rn(a, 0x1p-6f), reciprocal);
}

/// silu(a), and the sigmoid of its gradient, 1 / (1 + expf(-a)).
struct SiluParts {
  float silu;
  float sigmoid;
};

__device__ inline SiluParts silu_parts_exact(float a) {
  return {silu(a), __fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-a)))};
}

/// Both to the last bit on sm_90, silu of every fp32 argument and the sigmoid of every bf16 one (the
/// self-check compares all of them), without the branch of a division. Markstein: the
/// approximate reciprocal after a step of Newton is the rounded one, and a quotient's remainder times it
/// rounds the quotient. The denominator is scaled by 2^-6, so that its reciprocal is no subnormal, which the
/// approximate one flushes. Where the remainder is no number, for a quotient that overflows before it is
/// scaled back or an infinite denominator, the first one is exact.
__device__ inline SiluParts silu_parts_sm90(float a) {
  const float y = __fmaf_rn(expf(-a), 0x1p-6f, 0x1p-6f);
  float near;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"(y));
  const float reciprocal = __fmaf_rn(near, __fmaf_rn(-y, near, 1.0f), near);
  const float quotient = __fmul_rn(a, reciprocal);
  const float rounded = __fmaf_rn(-__fmaf_rn(y, quotient, -a), reciprocal, quotient);
  return {rounded == rounded ? __fmul_rn(rounded, 0x1p-6f) : __fmul_rn(__fmul_rn(a, 0x1p-6f), near),
          __fmul_rn(reciprocal == reciprocal ? reciprocal : near, 0x1p-6f)};
}

/// The value a bf16 store would keep.
__device__ inline float through_bf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

/// The stored intermediate. Under Hf rb(rb(silu(rb(gate))) * rb(up)), the roundings memory would do; else one
/// rounding.
template <Rounding kRounding>
__device__ inline __nv_bfloat16 swiglu(float gate, float up) {
  if constexpr (kRounding == Rounding::Hf)
    return __float2bfloat16_rn(__fmul_rn(through_bf16(silu(through_bf16(gate))), through_bf16(up)));
  return __float2bfloat16_rn(__fmul_rn(silu(gate), up));
}

/// Gradients of the two halves, as memory keeps them.
struct SwigluGrad {
  __nv_bfloat16 gate;
  __nv_bfloat16 up;
};

/// From `d`, the gradient of the intermediate, the forward's halves as its contract left them, and the parts
/// of the gate's silu: up = rb(d silu), gate = rb(((d up) s) (1 + gate (1 - s))), s the sigmoid, all in fp32,
/// left to right. Under Hf silu and d up are rounded to bf16 first, for autograd stores both.
template <Rounding kRounding>
__device__ inline SwigluGrad swiglu_grad(float d, float gate, float up, SiluParts of_gate) {
  const auto stored = [](float x) { return kRounding == Rounding::Hf ? through_bf16(x) : x; };
  const float d_silu = stored(__fmul_rn(d, up));
  const float slope = __fadd_rn(1.0f, __fmul_rn(gate, __fsub_rn(1.0f, of_gate.sigmoid)));
  return {__float2bfloat16_rn(__fmul_rn(__fmul_rn(d_silu, of_gate.sigmoid), slope)),
          __float2bfloat16_rn(__fmul_rn(d, stored(of_gate.silu)))};
}

template <Rounding kRounding>
__device__ inline SwigluGrad swiglu_grad(float d, float gate, float up) {
  return swiglu_grad<kRounding>(d, gate, up, silu_parts_exact(gate));
}

inline constexpr float kLeastUsualGate = -87.0f;  // below it 1 + expf(-gate) nears the largest float

/// 1 / (1 + expf(-a)) to the last bit for every bf16 argument from kLeastUsualGate on, without a branch: what
/// a correctly rounded reciprocal does for usual arguments. Times `a` it rounds to the same bf16 as silu. The
/// self-check compares all of them.
__device__ inline float sigmoid_sm90(float a) {
  const float y = __fadd_rn(1.0f, expf(-a));
  float near;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"(y));
  return __fmaf_rn(near, __fmaf_rn(-y, near, 1.0f), near);
}

/// swiglu_grad<Rounding::Hf> of two neighbouring elements, to the last bit on sm_90 for gates from
/// kLeastUsualGate on: `gate` and `up` become their gradients. Products of two bf16 are rounded once, as fp32
/// would.
__device__ inline void swiglu_grad_pair_sm90(__nv_bfloat162 d, __nv_bfloat162& gate, __nv_bfloat162& up) {
  const float2 g = __bfloat1622float2(gate);
  const float2 s = {sigmoid_sm90(g.x), sigmoid_sm90(g.y)};
  const float2 d_silu = __bfloat1622float2(__hmul2_rn(d, up));
  const auto slope = [](float x, float sigmoid) {
    return __fadd_rn(1.0f, __fmul_rn(x, __fsub_rn(1.0f, sigmoid)));
  };
  up = __hmul2_rn(d, __floats2bfloat162_rn(__fmul_rn(g.x, s.x), __fmul_rn(g.y, s.y)));
  gate = __floats2bfloat162_rn(__fmul_rn(__fmul_rn(d_silu.x, s.x), slope(g.x, s.x)),
                               __fmul_rn(__fmul_rn(d_silu.y, s.y), slope(g.y, s.y)));
}

/// Two neighbouring elements under contract hf by silu_sm90. The bf16 product rounds the exact product once,
/// as fp32 would.
__device__ inline __nv_bfloat162 swiglu_pair_sm90(float gate0, float gate1, float up0, float up1) {
  const __nv_bfloat162 gate = __floats2bfloat162_rn(gate0, gate1);
  const __nv_bfloat162 up = __floats2bfloat162_rn(up0, up1);
  return __hmul2_rn(__floats2bfloat162_rn(silu_sm90(__low2float(gate)), silu_sm90(__high2float(gate))), up);
}

}  // namespace assay::gpu
