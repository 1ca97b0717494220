// A weight's gradient from a product that stands in memory as fp32: thread i owns elements 2 i and 2 i + 1.
#include "gpu/cuda_check.h"
#include "gpu/kernels/gradient_store.cuh"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    keep_gradient_kernel(const float2* product, WeightGradient out, std::int64_t first, std::int64_t pairs) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (i < pairs) store_gradient_pair(out, first + 2 * i, product[i].x, product[i].y);
}

}  // namespace

void keep_gradient(const float* product, const WeightGradient& out, std::int64_t first, std::int64_t elements,
                   cudaStream_t stream) {
  ASSAY_CHECK(first % 2 == 0 && elements % 2 == 0, "expected an even number of elements");
  ASSAY_CHECK(elements < (std::int64_t{1} << 31) * kThreads, "expected a matrix that fits one grid");
  if (elements == 0) return;
  const std::int64_t pairs = elements / 2;
  launch_kernel(keep_gradient_kernel, {static_cast<unsigned>((pairs + kThreads - 1) / kThreads), kThreads},
                stream, reinterpret_cast<const float2*>(product), out, first, pairs);
}

}  // namespace assay::gpu
