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

__global__ void compare_silu_kernel(int* differing) {
  const auto argument =
      __ushort_as_bfloat16(static_cast<unsigned short>(blockIdx.x * kThreads + threadIdx.x));
  const float a = __bfloat162float(argument);
  if (!isfinite(a)) return;
  const auto bits = [](float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); };
  bool differs = bits(silu_sm90(a)) != bits(silu(a));
  if (a >= kLeastUsualGate) {
    const float quick = sigmoid_sm90(a);
    differs |= __float_as_uint(quick) != __float_as_uint(__fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-a))));
    differs |= bits(__fmul_rn(a, quick)) != bits(silu(a));
  }
  if (differs) atomicAdd(differing, 1);
}

unsigned grid_of(std::int64_t elements) {
  ASSAY_CHECK(elements < (std::int64_t{1} << 31) * kThreads, "expected the intermediate to fit one grid");
  return static_cast<unsigned>((elements + kThreads - 1) / kThreads);
}

}  // namespace

int count_silu_differences() {
  int* differing = nullptr;
  int count = 0;
  ASSAY_CUDA(cudaMalloc(&differing, sizeof *differing));
  ASSAY_CUDA(cudaMemset(differing, 0, sizeof *differing));
  compare_silu_kernel<<<65536 / kThreads, kThreads>>>(differing);
  ASSAY_CUDA(cudaGetLastError());
  ASSAY_CUDA(cudaMemcpy(&count, differing, sizeof count, cudaMemcpyDeviceToHost));
  ASSAY_CUDA(cudaFree(differing));
  return count;
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
