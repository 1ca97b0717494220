// Both gradients of the merge in one pass over a token's rows: a block per token, whose gradient it keeps in
// shared memory, a warp per slot and turn. The same sums in the same order as merge.cu's two kernels:
// torch's.
#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"
#include "gpu/kernels/row_sum.cuh"
#include "gpu/kernels/swiglu.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kStretchVectors = 256;  // of a row, of 8 elements each, in shared memory at a time

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

// The terms of eight neighbouring columns.
template <Rounding kRounding>
__device__ void terms_of(const uint4& gradients, const uint4& values, float (&terms)[8]) {
  const auto* gradient = reinterpret_cast<const bf16*>(&gradients);
  const auto* value = reinterpret_cast<const bf16*>(&values);
#pragma unroll
  for (int c = 0; c < 8; ++c) terms[c] = term<kRounding>(gradient[c], value[c]);
}

// Vectors of a stretch, added to the partial sums of the 32 threads that share a row.
template <Rounding kRounding>
__device__ void add_stretch(float (&partial)[8], const uint4* gradient, const uint4* value, int vectors) {
#pragma unroll 4
  for (int i = threadIdx.x % 32; i < vectors; i += 32) {
    float terms[8];
    terms_of<kRounding>(gradient[i], value[i], terms);
#pragma unroll
    for (int c = 0; c < 8; ++c) partial[c] = __fadd_rn(partial[c], terms[c]);
  }
}

template <Rounding kRounding, bool kSlotOrder>
__global__ void __launch_bounds__(kThreads)
    merge_grad_kernel(MergeGrad grad, int top_k, int hidden, int threads) {
  extern __shared__ uint4 shared[];  // a stretch of a row for every warp; the token's gradient, [H]
  ptx::let_next_start();
  ptx::wait_for_previous();
  const int vectors = hidden / 8;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const std::int64_t token = blockIdx.x;
  uint4* const stretch = shared + warp * kStretchVectors;
  uint4* const gradient = shared + kWarps * kStretchVectors;
  const auto* d_out = reinterpret_cast<const uint4*>(grad.d_out) + token * vectors;
  // A warp stands for torch's threads where there are 32 of them, which is for 16 rows or more.
  const bool staged = threads == 32 && hidden >= kWholeVectors;
  const auto fetch = [&](const uint4* value, int first) {
    if (!staged) return;
    const int end = min(vectors - first, kStretchVectors);
    for (int i = lane; i < end; i += 32)
      ptx::cp_async_16(ptx::shared_address(stretch + i), value + first + i, true);
  };
  const auto value_of = [&](std::int64_t slot, std::int64_t row) {
    return reinterpret_cast<const uint4*>(grad.values) + (kSlotOrder ? slot : row) * vectors;
  };
  std::int64_t row = warp < top_k ? grad.row_of_slot[token * top_k + warp] : 0;
  if (warp < top_k) fetch(value_of(token * top_k + warp, row), 0);
  for (int i = threadIdx.x; i < vectors; i += kThreads) gradient[i] = __ldcs(d_out + i);
  __syncthreads();
  for (int j = warp; j < top_k; j += kWarps) {
    const std::int64_t slot = token * top_k + j;
    if (j != warp) {
      row = grad.row_of_slot[slot];
      fetch(value_of(slot, row), 0);
    }
    const float weight = __bfloat162float(grad.topk_weights[slot]);
    auto* d_row = reinterpret_cast<uint4*>(grad.d_rows) + row * vectors;
    for (int i = lane; i < vectors; i += 32) {
      const uint4 eight = gradient[i];
      const auto* value = reinterpret_cast<const bf16*>(&eight);
      uint4 packed;
#pragma unroll
      for (int c = 0; c < 8; ++c)
        reinterpret_cast<bf16*>(&packed)[c] =
            __float2bfloat16_rn(__fmul_rn(__bfloat162float(value[c]), weight));
      d_row[i] = packed;
    }
    float sum;
    if (staged) {
      float partial[8] = {};
      for (int first = 0; first < vectors; first += kStretchVectors) {
        if (first > 0) fetch(value_of(slot, row), first);
        ptx::cp_async_commit();
        ptx::cp_async_wait<0>();
        __syncwarp();
        add_stretch<kRounding>(partial, gradient + first, stretch, min(vectors - first, kStretchVectors));
        __syncwarp();  // the stretch may be overwritten
      }
      sum = sum_of_lanes(sum_of_partials(partial));
    } else {
      const uint4* const value = value_of(slot, row);
      sum = row_sum(hidden, threads, [&](int vector, float(&terms)[8]) {
        terms_of<kRounding>(gradient[vector], value[vector], terms);
      });
    }
    if (lane == 0) grad.d_topk_weights[slot] = __float2bfloat16_rn(sum);
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
  const std::int64_t bytes = kWarps * kStretchVectors * static_cast<std::int64_t>(sizeof(uint4)) +
                             hidden * static_cast<std::int64_t>(sizeof(bf16));
  ASSAY_CHECK(hidden % 8 == 0, "expected hidden_size to be a multiple of 8");
  ASSAY_CHECK(bytes <= device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
              "expected a token's row to fit shared memory");
  ASSAY_CHECK(sizes.slots() < (std::int64_t{1} << 31), "expected fewer than 2^31 routed rows");
  if (sizes.slots() == 0) return;
  const auto kernel = rounding == Rounding::Hf ? kernel_of<Rounding::Hf>(slot_order)
                                               : kernel_of<Rounding::FusedFp32>(slot_order);
  launch_kernel(kernel, {static_cast<unsigned>(sizes.tokens), kThreads, static_cast<int>(bytes)}, stream,
                MergeGrad{d_out, values, row_of_slot, topk_weights, d_rows, d_topk_weights},
                sizes.config.top_k, hidden, threads_of_row(hidden, sizes.slots()));
}

}  // namespace assay::gpu
