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

/// Products of two neighbouring columns, under Hf as a bf16 store would keep them. A product of two bf16 is
/// exact in fp32, so that bf16 arithmetic rounds it to the same bf16; sm_90 rounds a pair at once, a single
/// one at a quarter of the speed.
template <Rounding kRounding>
__device__ float2 product_of_pair(__nv_bfloat162 a, __nv_bfloat162 b) {
  if constexpr (kRounding == Rounding::Hf) {
    return __bfloat1622float2(__hmul2_rn(a, b));
  } else {
    const float2 x = __bfloat1622float2(a);
    const float2 y = __bfloat1622float2(b);
    return {__fmul_rn(x.x, y.x), __fmul_rn(x.y, y.y)};
  }
}

// The terms of eight neighbouring columns. Vectors come by value: from shared memory whole, in one access.
template <Rounding kRounding>
__device__ void terms_of(const uint4 gradients, const uint4 values, float (&terms)[8]) {
  const auto* gradient = reinterpret_cast<const __nv_bfloat162*>(&gradients);
  const auto* value = reinterpret_cast<const __nv_bfloat162*>(&values);
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
    const float2 two = product_of_pair<kRounding>(gradient[pair], value[pair]);
    terms[2 * pair] = two.x;
    terms[2 * pair + 1] = two.y;
  }
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

// kStaged: a warp stands for the 32 threads of torch that share a row, as they do of 16 rows or more that
// come by vectors; rows pass through shared memory. Else `threads` of them share a row.
template <Rounding kRounding, bool kSlotOrder, bool kStaged>
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
  const auto fetch = [&](const uint4* value, int first) {
    if constexpr (!kStaged) return;
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
    const __nv_bfloat162 weight = __bfloat162bfloat162(grad.topk_weights[slot]);
    auto* d_row = reinterpret_cast<uint4*>(grad.d_rows) + row * vectors;
    for (int i = lane; i < vectors; i += 32) {
      const uint4 eight = gradient[i];
      const auto* value = reinterpret_cast<const __nv_bfloat162*>(&eight);
      uint4 packed;
#pragma unroll
      for (int pair = 0; pair < 4; ++pair)
        reinterpret_cast<__nv_bfloat162*>(&packed)[pair] = __hmul2_rn(value[pair], weight);
      d_row[i] = packed;
    }
    float sum;
    if constexpr (kStaged) {
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
      sum = row_sum(
          hidden, threads,
          [&](int column) {
            const auto element = [&](const uint4* of) {
              return __bfloat162float(reinterpret_cast<const bf16*>(of)[column]);
            };
            const float product = __fmul_rn(element(gradient), element(value));
            return kRounding == Rounding::Hf ? through_bf16(product) : product;
          },
          [&](int vector, float(&terms)[8]) { terms_of<kRounding>(gradient[vector], value[vector], terms); });
    }
    if (lane == 0) grad.d_topk_weights[slot] = __float2bfloat16_rn(sum);
  }
}

template <Rounding kRounding, bool kStaged>
auto kernel_of(bool slot_order) {
  return slot_order ? merge_grad_kernel<kRounding, true, kStaged>
                    : merge_grad_kernel<kRounding, false, kStaged>;
}
template <Rounding kRounding>
auto kernel_of(bool slot_order, bool staged) {
  return staged ? kernel_of<kRounding, true>(slot_order) : kernel_of<kRounding, false>(slot_order);
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
  const int threads = threads_of_row(hidden, sizes.slots());
  const bool staged = threads == 32 && hidden >= kWholeVectors;
  const auto kernel = rounding == Rounding::Hf ? kernel_of<Rounding::Hf>(slot_order, staged)
                                               : kernel_of<Rounding::FusedFp32>(slot_order, staged);
  launch_kernel(kernel, {static_cast<unsigned>(sizes.tokens), kThreads, static_cast<int>(bytes)}, stream,
                MergeGrad{d_out, values, row_of_slot, topk_weights, d_rows, d_topk_weights},
                sizes.config.top_k, hidden, threads);
}

}  // namespace assay::gpu
