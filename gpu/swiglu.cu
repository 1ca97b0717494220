// SwiGLU as a step of its own: thread i of the grid owns one element of [S, I].
#include "gpu/swiglu.cuh"

#include "gpu/cuda_check.h"
#include "gpu/kernels.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

__global__ void swiglu_kernel(const bf16* first_gemm, bf16* intermediate, std::int64_t elements, int width) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= elements) return;
  const std::int64_t gate = i / width * 2 * width + i % width;
  intermediate[i] = swiglu<true>(__bfloat162float(first_gemm[gate]), __bfloat162float(first_gemm[gate + width]));
}

}  // namespace

void swiglu(const bf16* first_gemm, bf16* intermediate, const Sizes& sizes, cudaStream_t stream) {
  const std::int64_t elements = sizes.slots() * sizes.config.moe_intermediate_size;
  if (elements == 0) return;
  ASSAY_CHECK(elements < (std::int64_t{1} << 31) * kThreads, "expected the intermediate to fit one grid");
  swiglu_kernel<<<static_cast<unsigned>((elements + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      first_gemm, intermediate, elements, static_cast<int>(sizes.config.moe_intermediate_size));
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace assay::gpu
