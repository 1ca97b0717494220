// The gradient of the layer's input: a token's slots added up, then the router's part. A block per token, 8
// neighbouring columns per thread and turn; the result does not depend on the launch.
#include "gpu/kernels/combine.h"

#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

__device__ float element(const uint4& vector, int c) {
  return __bfloat162float(reinterpret_cast<const bf16*>(&vector)[c]);
}

/// rb(a + b) of 8 elements. bf16 arithmetic rounds the exact sum once; fp32, as HuggingFace's kernels have
/// it, rounds it before and gives the same bf16, for its 24 bits are more than twice the 8 of bf16 and two.
__device__ uint4 rounded_sum(const uint4 a, const uint4 b) {
  uint4 packed;
#pragma unroll
  for (int pair = 0; pair < 4; ++pair)
    reinterpret_cast<__nv_bfloat162*>(&packed)[pair] = __hadd2_rn(
        reinterpret_cast<const __nv_bfloat162*>(&a)[pair], reinterpret_cast<const __nv_bfloat162*>(&b)[pair]);
  return packed;
}

/// Of eight neighbouring columns of a token's rows. Under Hf the sum starts from 0 and is rounded to bf16
/// after every row; else it is fp32 in merge's order, slots ascending in each of four sums, and rounded once.
template <Rounding kRounding>
struct SlotSums {
  float sum[4][8] = {};
  __device__ void add(int slot, const uint4& row) {
#pragma unroll
    for (int c = 0; c < 8; ++c) sum[slot % 4][c] = __fadd_rn(sum[slot % 4][c], element(row, c));
  }
  __device__ uint4 rounded() {
    uint4 packed;
#pragma unroll
    for (int c = 0; c < 8; ++c)
      reinterpret_cast<bf16*>(&packed)[c] =
          __float2bfloat16_rn(__fadd_rn(__fadd_rn(__fadd_rn(sum[0][c], sum[1][c]), sum[2][c]), sum[3][c]));
    return packed;
  }
};
template <>
struct SlotSums<Rounding::Hf> {
  uint4 sum = {};
  __device__ void add(int, const uint4& row) { sum = rounded_sum(sum, row); }
  __device__ uint4 rounded() const { return sum; }
};

// Rows are in expert order, so that ascending rows are ascending experts: under Hf the order of the sum.
// `out` gets it unless it is null; with `router`, `with_router` gets what add_kernel makes of both.
template <Rounding kRounding>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(const bf16* rows, const std::int32_t* row_of_slot, const bf16* router, bf16* out,
                   bf16* with_router, int top_k, int vectors) {
  constexpr int kRowsInFlight = 8;
  __shared__ std::int32_t ordered[kMaxTopK];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t token = blockIdx.x;
  const std::int32_t* rows_of_token = row_of_slot + token * top_k;
  if (threadIdx.x < top_k) {
    const std::int32_t mine = rows_of_token[threadIdx.x];
    int place = threadIdx.x;
    if constexpr (kRounding == Rounding::Hf) {
      place = 0;
      for (int j = 0; j < top_k; ++j) place += rows_of_token[j] < mine;
    }
    ordered[place] = mine;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < vectors; i += kThreads) {
    SlotSums<kRounding> sums;
    for (int first = 0; first < top_k; first += kRowsInFlight) {
      uint4 loaded[kRowsInFlight];
#pragma unroll
      for (int j = 0; j < kRowsInFlight; ++j)
        if (first + j < top_k)
          loaded[j] = __ldcs(reinterpret_cast<const uint4*>(rows) +
                             static_cast<std::int64_t>(ordered[first + j]) * vectors + i);
#pragma unroll
      for (int j = 0; j < kRowsInFlight; ++j) {
        if (first + j >= top_k) break;
        sums.add(j, loaded[j]);
      }
    }
    const uint4 packed = sums.rounded();
    if (out != nullptr) reinterpret_cast<uint4*>(out)[token * vectors + i] = packed;
    if (router != nullptr)
      reinterpret_cast<uint4*>(with_router)[token * vectors + i] =
          rounded_sum(packed, reinterpret_cast<const uint4*>(router)[token * vectors + i]);
  }
}

__global__ void __launch_bounds__(kThreads)
    add_kernel(const bf16* a, const bf16* b, bf16* out, std::int64_t vectors) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  ptx::let_next_start();
  ptx::wait_for_previous();
  if (i < vectors)
    reinterpret_cast<uint4*>(out)[i] =
        rounded_sum(reinterpret_cast<const uint4*>(a)[i], reinterpret_cast<const uint4*>(b)[i]);
}

}  // namespace

void combine(const bf16* rows, const std::int32_t* row_of_slot, bf16* out, Rounding rounding,
             const Sizes& sizes, cudaStream_t stream) {
  combine_with_router(rows, row_of_slot, nullptr, out, nullptr, rounding, sizes, stream);
}

void combine_with_router(const bf16* rows, const std::int32_t* row_of_slot, const bf16* router, bf16* out,
                         bf16* with_router, Rounding rounding, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  ASSAY_CHECK(sizes.config.top_k <= kMaxTopK, "expected at most 32 experts per token");
  ASSAY_CHECK(sizes.tokens < (std::int64_t{1} << 31), "expected the tokens to fit one grid");
  ASSAY_CHECK((router == nullptr) == (with_router == nullptr),
              "expected both of the router's part or neither");
  if (sizes.tokens == 0) return;
  const auto kernel =
      rounding == Rounding::Hf ? combine_kernel<Rounding::Hf> : combine_kernel<Rounding::FusedFp32>;
  launch_kernel(kernel, {static_cast<unsigned>(sizes.tokens), kThreads}, stream, rows, row_of_slot, router,
                out, with_router, sizes.config.top_k, sizes.config.hidden_size / 8);
}

void add_router_part(const bf16* experts, const bf16* router, bf16* out, const Sizes& sizes,
                     cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  const std::int64_t vectors = sizes.tokens * (sizes.config.hidden_size / 8);
  ASSAY_CHECK(vectors < (std::int64_t{1} << 31) * kThreads, "expected the tokens to fit one grid");
  if (vectors == 0) return;
  launch_kernel(add_kernel, {static_cast<unsigned>((vectors + kThreads - 1) / kThreads), kThreads}, stream,
                experts, router, out, vectors);
}

}  // namespace assay::gpu
