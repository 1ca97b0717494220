// SwiGLU's gradient for Hopper: a thread owns eight neighbouring elements of [S, I].
#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"
#include "gpu/kernels/swiglu.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

/// Eight neighbouring elements: of d_intermediate, and of first_gemm's halves, which become their gradients.
__device__ inline void swiglu_grad_of_eight(const uint4& d_intermediate, uint4& gate, uint4& up) {
  const auto* d = reinterpret_cast<const __nv_bfloat162*>(&d_intermediate);
  auto* gates = reinterpret_cast<__nv_bfloat162*>(&gate);
  auto* ups = reinterpret_cast<__nv_bfloat162*>(&up);
  const __nv_bfloat162 least = __hmin2(__hmin2(gates[0], gates[1]), __hmin2(gates[2], gates[3]));
  if (fminf(__low2float(least), __high2float(least)) >= kLeastUsualGate) {
#pragma unroll
    for (int i = 0; i < 4; ++i) swiglu_grad_pair_sm90(d[i], gates[i], ups[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const SwigluGrad low =
        swiglu_grad<Rounding::Hf>(__low2float(d[i]), __low2float(gates[i]), __low2float(ups[i]));
    const SwigluGrad high =
        swiglu_grad<Rounding::Hf>(__high2float(d[i]), __high2float(gates[i]), __high2float(ups[i]));
    gates[i] = __nv_bfloat162(low.gate, high.gate);
    ups[i] = __nv_bfloat162(low.up, high.up);
  }
}

// vectors: of eight in all; width: of them in a row.
__global__ void __launch_bounds__(kThreads)
    swiglu_grad_kernel(const uint4* d_intermediate, const uint4* first_gemm, uint4* d_first_gemm,
                       unsigned vectors, unsigned width) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  ptx::wait_for_previous();
  ptx::let_next_start();  // down dW relies on the wait
  if (i >= vectors) return;
  const std::int64_t at = i + static_cast<std::int64_t>(i / width) * width;
  const uint4 d = d_intermediate[i];
  uint4 gate = __ldcs(first_gemm + at);
  uint4 up = __ldcs(first_gemm + at + width);
  swiglu_grad_of_eight(d, gate, up);
  d_first_gemm[at] = gate;
  d_first_gemm[at + width] = up;
}

}  // namespace

void swiglu_grad_sm90(const bf16* d_intermediate, const bf16* first_gemm, bf16* d_first_gemm,
                      const Sizes& sizes, cudaStream_t stream) {
  const std::int64_t width = sizes.config.moe_intermediate_size / 8;
  const std::int64_t vectors = sizes.slots() * width;
  ASSAY_CHECK(sizes.config.moe_intermediate_size % 8 == 0,
              "expected moe_intermediate_size to be a multiple of 8");
  ASSAY_CHECK(vectors < (std::int64_t{1} << 31), "expected fewer than 2^34 elements of the intermediate");
  if (vectors == 0) return;
  launch_kernel(swiglu_grad_kernel, {static_cast<unsigned>((vectors + kThreads - 1) / kThreads), kThreads},
                stream, reinterpret_cast<const uint4*>(d_intermediate),
                reinterpret_cast<const uint4*>(first_gemm), reinterpret_cast<uint4*>(d_first_gemm), vectors,
                width);
}

}  // namespace assay::gpu
