// The weighted sum over a token's slots. A thread owns 8 neighbouring columns of one token and adds its K
// rows as torch's sum does: four interleaved sums, slots ascending in each, then added in order. The result
// does not depend on the launch.
#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsInFlight = 8;  // a multiple of kInterleaved, so that row j of a batch belongs to sum j % 4
constexpr int kInterleaved = 4;

template <Rounding kRounding>
__device__ float weighted(bf16 value, float weight) {
  const float product = __fmul_rn(__bfloat162float(value), weight);
  if constexpr (kRounding == Rounding::Hf) return __bfloat162float(__float2bfloat16_rn(product));
  return product;
}

// The weights are bf16; grid: x = tokens, y = blocks of 256 * 8 columns.
template <Rounding kRounding>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(const bf16* values, const std::int32_t* row_of_slot, const bf16* topk_weights, bf16* out,
                 int top_k, int vectors) {
  const std::int64_t token = blockIdx.x;
  const int vector = blockIdx.y * kThreads + threadIdx.x;
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (vector >= vectors) return;
  float sum[kInterleaved][8] = {};
  for (int first = 0; first < top_k; first += kRowsInFlight) {
    uint4 loaded[kRowsInFlight];
    float weight[kRowsInFlight];
#pragma unroll
    for (int j = 0; j < kRowsInFlight; ++j) {
      if (first + j >= top_k) break;
      const std::int64_t slot = token * top_k + first + j;
      const std::int64_t row = row_of_slot == nullptr ? slot : row_of_slot[slot];
      loaded[j] = __ldcs(reinterpret_cast<const uint4*>(values) + row * vectors + vector);
      weight[j] = __bfloat162float(topk_weights[slot]);
    }
#pragma unroll
    for (int j = 0; j < kRowsInFlight; ++j) {
      if (first + j >= top_k) break;
      const auto* value = reinterpret_cast<const bf16*>(&loaded[j]);
#pragma unroll
      for (int c = 0; c < 8; ++c)
        sum[j % kInterleaved][c] =
            __fadd_rn(sum[j % kInterleaved][c], weighted<kRounding>(value[c], weight[j]));
    }
  }
  uint4 packed;
  auto* rounded = reinterpret_cast<bf16*>(&packed);
#pragma unroll
  for (int c = 0; c < 8; ++c)
    rounded[c] =
        __float2bfloat16_rn(__fadd_rn(__fadd_rn(__fadd_rn(sum[0][c], sum[1][c]), sum[2][c]), sum[3][c]));
  reinterpret_cast<uint4*>(out)[token * vectors + vector] = packed;
}

}  // namespace

void merge(const bf16* values, const std::int32_t* row_of_slot, const bf16* topk_weights, bf16* out,
           Rounding rounding, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  if (sizes.tokens == 0) return;
  const auto vectors = static_cast<unsigned>(sizes.config.hidden_size / 8);
  const dim3 grid(static_cast<unsigned>(sizes.tokens), (vectors + kThreads - 1) / kThreads);
  const auto kernel =
      rounding == Rounding::Hf ? merge_kernel<Rounding::Hf> : merge_kernel<Rounding::FusedFp32>;
  launch_kernel(kernel, {grid, kThreads}, stream, values, row_of_slot, topk_weights, out, sizes.config.top_k,
                vectors);
}

}  // namespace assay::gpu
