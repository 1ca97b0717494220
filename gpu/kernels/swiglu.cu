// SwiGLU and its gradient as steps of their own: thread i of the grid owns one element of [S, I].
#include "gpu/kernels/swiglu.cuh"

#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

__global__ void swiglu_kernel(const bf16* first_gemm, bf16* intermediate, std::int64_t elements, int width) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (i >= elements) return;
  const std::int64_t gate = i / width * 2 * width + i % width;
  intermediate[i] =
      swiglu<Rounding::Hf>(__bfloat162float(first_gemm[gate]), __bfloat162float(first_gemm[gate + width]));
}

__global__ void swiglu_grad_kernel(const bf16* d_intermediate, const bf16* first_gemm, bf16* d_first_gemm,
                                   std::int64_t elements, int width) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (i >= elements) return;
  const std::int64_t gate = i / width * 2 * width + i % width;
  const SwigluGrad gradient =
      swiglu_grad<Rounding::Hf>(__bfloat162float(d_intermediate[i]), __bfloat162float(first_gemm[gate]),
                                __bfloat162float(first_gemm[gate + width]));
  d_first_gemm[gate] = gradient.gate;
  d_first_gemm[gate + width] = gradient.up;
}

__device__ bool bf16_argument_differs(float a) {
  if (!isfinite(a)) return false;
  const auto bits = [](float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); };
  const SiluParts exact = silu_parts_exact(a);
  bool differs = bits(silu_sm90(a)) != bits(exact.silu);
  if (a >= kLeastUsualGate) {
    const float quick = sigmoid_sm90(a);
    differs |= __float_as_uint(quick) != __float_as_uint(exact.sigmoid);
    differs |= bits(__fmul_rn(a, quick)) != bits(exact.silu);
  }
  return differs || __float_as_uint(silu_parts_sm90(a).sigmoid) != __float_as_uint(exact.sigmoid);
}

/// Each thread has 2^16 arguments, those of one bf16: all its fp32 neighbours away from 0.
__global__ void compare_silu_kernel(unsigned long long* differing) {
  const unsigned upper = (blockIdx.x * kThreads + threadIdx.x) << 16;
  unsigned count = bf16_argument_differs(__uint_as_float(upper)) ? 1 : 0;
  for (unsigned lower = 0; lower < 1u << 16; ++lower) {
    const float a = __uint_as_float(upper | lower);
    const float quick = silu_parts_sm90(a).silu;
    const float exact = silu(a);
    const bool both_nan = isnan(quick) && isnan(exact);
    if (!both_nan && __float_as_uint(quick) != __float_as_uint(exact)) ++count;
  }
  if (count > 0) atomicAdd(differing, static_cast<unsigned long long>(count));
}

unsigned grid_of(std::int64_t elements) {
  ASSAY_CHECK(elements < (std::int64_t{1} << 31) * kThreads, "expected the intermediate to fit one grid");
  return static_cast<unsigned>((elements + kThreads - 1) / kThreads);
}

}  // namespace

std::int64_t count_silu_differences() {
  unsigned long long* differing = nullptr;
  unsigned long long count = 0;
  ASSAY_CUDA(cudaMalloc(&differing, sizeof *differing));
  ASSAY_CUDA(cudaMemset(differing, 0, sizeof *differing));
  compare_silu_kernel<<<65536 / kThreads, kThreads>>>(differing);
  ASSAY_CUDA(cudaGetLastError());
  ASSAY_CUDA(cudaMemcpy(&count, differing, sizeof count, cudaMemcpyDeviceToHost));
  ASSAY_CUDA(cudaFree(differing));
  return static_cast<std::int64_t>(count);
}

void swiglu(const bf16* first_gemm, bf16* intermediate, const Sizes& sizes, cudaStream_t stream) {
  const std::int64_t elements = sizes.slots() * sizes.config.moe_intermediate_size;
  if (elements == 0) return;
  launch_kernel(swiglu_kernel, {grid_of(elements), kThreads}, stream, first_gemm, intermediate, elements,
                sizes.config.moe_intermediate_size);
}

void swiglu_grad(const bf16* d_intermediate, const bf16* first_gemm, bf16* d_first_gemm, const Sizes& sizes,
                 cudaStream_t stream) {
  const std::int64_t elements = sizes.slots() * sizes.config.moe_intermediate_size;
  if (elements == 0) return;
  launch_kernel(swiglu_grad_kernel, {grid_of(elements), kThreads}, stream, d_intermediate, first_gemm,
                d_first_gemm, elements, sizes.config.moe_intermediate_size);
}

}  // namespace assay::gpu
