// Both gradients of the merge in one pass over a token's rows: a block per token, whose gradient it keeps in
// shared memory, a warp per slot and turn. The same sums in the same order as merge.cu's two kernels.
#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/lanes.cuh"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"
#include "gpu/kernels/swiglu.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTogether = 16;  // elements of a row that a lane asks for before it adds them

// What a launch works on; shapes as in kernels.h.
struct MergeGrad {
  const bf16* d_out;
  const bf16* values;
  const std::int32_t* row_of_slot;
  const bf16* topk_weights;
  bf16* d_rows;
  bf16* d_topk_weights;
};

template <Rounding kRounding>
__device__ float term(bf16 gradient, bf16 value) {
  const float product = __fmul_rn(__bfloat162float(gradient), __bfloat162float(value));
  return kRounding == Rounding::Hf ? through_bf16(product) : product;
}

// One warp: lane l adds columns l, l + 32, ... of a row.
template <Rounding kRounding>
__device__ float dot(const bf16* gradient, const bf16* value, int hidden) {
  float sum = 0.0f;
  int h = threadIdx.x % 32;
  for (; h + (kTogether - 1) * 32 < hidden; h += kTogether * 32) {
    bf16 values[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) values[i] = __ldcs(value + h + i * 32);
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      sum = __fadd_rn(sum, term<kRounding>(gradient[h + i * 32], values[i]));
  }
  for (; h < hidden; h += 32) sum = __fadd_rn(sum, term<kRounding>(gradient[h], value[h]));
  return sum_of_lanes(sum);
}

template <Rounding kRounding, bool kSlotOrder>
__global__ void __launch_bounds__(kThreads) merge_grad_kernel(MergeGrad grad, int top_k, int hidden) {
  extern __shared__ uint4 gradient[];  // of the token, [H]
  ptx::let_next_start();
  ptx::wait_for_previous();
  const int vectors = hidden / 8;
  const std::int64_t token = blockIdx.x;
  const auto* d_out = reinterpret_cast<const uint4*>(grad.d_out) + token * vectors;
  for (int i = threadIdx.x; i < vectors; i += kThreads) gradient[i] = d_out[i];
  __syncthreads();
  for (int j = threadIdx.x / 32; j < top_k; j += kWarps) {
    const std::int64_t slot = token * top_k + j;
    const std::int64_t row = grad.row_of_slot[slot];
    const float weight = __bfloat162float(grad.topk_weights[slot]);
    auto* d_row = reinterpret_cast<uint4*>(grad.d_rows) + row * vectors;
    for (int i = threadIdx.x % 32; i < vectors; i += 32) {
      const auto* value = reinterpret_cast<const bf16*>(&gradient[i]);
      uint4 packed;
#pragma unroll
      for (int c = 0; c < 8; ++c)
        reinterpret_cast<bf16*>(&packed)[c] =
            __float2bfloat16_rn(__fmul_rn(__bfloat162float(value[c]), weight));
      d_row[i] = packed;
    }
    const float sum = dot<kRounding>(reinterpret_cast<const bf16*>(gradient),
                                     grad.values + (kSlotOrder ? slot : row) * hidden, hidden);
    if (threadIdx.x % 32 == 0) grad.d_topk_weights[slot] = __float2bfloat16_rn(sum);
  }
}

template <Rounding kRounding>
auto kernel_of(bool slot_order) {
  return slot_order ? merge_grad_kernel<kRounding, true> : merge_grad_kernel<kRounding, false>;
}

}  // namespace

void merge_grad(const bf16* d_out, const bf16* values, bool slot_order, const std::int32_t* row_of_slot,
                const bf16* topk_weights, bf16* d_rows, bf16* d_topk_weights, Rounding rounding,
                const Sizes& sizes, cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t bytes = hidden * static_cast<std::int64_t>(sizeof(bf16));
  ASSAY_CHECK(hidden % 8 == 0, "expected hidden_size to be a multiple of 8");
  ASSAY_CHECK(bytes <= device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
              "expected a token's row to fit shared memory");
  ASSAY_CHECK(sizes.slots() < (std::int64_t{1} << 31), "expected fewer than 2^31 routed rows");
  if (sizes.slots() == 0) return;
  const auto kernel = rounding == Rounding::Hf ? kernel_of<Rounding::Hf>(slot_order)
                                               : kernel_of<Rounding::FusedFp32>(slot_order);
  launch_kernel(kernel, {static_cast<unsigned>(sizes.tokens), kThreads, static_cast<int>(bytes)}, stream,
                MergeGrad{d_out, values, row_of_slot, topk_weights, d_rows, d_topk_weights},
                sizes.config.top_k, hidden);
}

}  // namespace assay::gpu
