// The weighted sum over a token's slots. A thread owns 8 neighbouring columns of one token and adds its K
// rows as torch's sum does: four interleaved sums, slots ascending in each, then added in order. The result
// does not depend on the launch. Its gradients: of the rows, a block per row; of the weights, a warp per
// slot.
#include "gpu/cuda_check.h"
#include "gpu/kernels/interleaved_sums.cuh"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"
#include "gpu/kernels/row_sum.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kRowsInFlight = 8;  // a multiple of kInterleaved, so that row j of a batch belongs to sum j % 4

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
  InterleavedSums<8> sum;
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
        sum.sums[j % kInterleaved][c] =
            __fadd_rn(sum.sums[j % kInterleaved][c], weighted<kRounding>(value[c], weight[j]));
    }
  }
  uint4 packed;
  auto* rounded = reinterpret_cast<bf16*>(&packed);
#pragma unroll
  for (int c = 0; c < 8; ++c) rounded[c] = sum.rounded(c);
  reinterpret_cast<uint4*>(out)[token * vectors + vector] = packed;
}

// d_rows[r] = rb(d_out[t] w[s]) with s = gather_indices[r], t = s / K. One block per row, 8 columns at a
// time.
__global__ void __launch_bounds__(kThreads)
    weigh_rows_kernel(const bf16* d_out, const bf16* topk_weights, const std::int32_t* gather_indices,
                      bf16* d_rows, int top_k, int vectors) {
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const std::int64_t slot = gather_indices[row];
  const float weight = __bfloat162float(topk_weights[slot]);
  for (int i = threadIdx.x; i < vectors; i += kThreads) {
    const uint4 loaded = reinterpret_cast<const uint4*>(d_out)[slot / top_k * vectors + i];
    const auto* value = reinterpret_cast<const bf16*>(&loaded);
    uint4 packed;
    auto* rounded = reinterpret_cast<bf16*>(&packed);
#pragma unroll
    for (int c = 0; c < 8; ++c)
      rounded[c] = __float2bfloat16_rn(__fmul_rn(__bfloat162float(value[c]), weight));
    reinterpret_cast<uint4*>(d_rows)[row * vectors + i] = packed;
  }
}

// d_topk_weights[s] = rb(sum over H of d_out[t] times the slot's row). One warp per slot, in torch's order.
template <Rounding kRounding>
__global__ void __launch_bounds__(kThreads)
    dot_rows_kernel(const bf16* d_out, const bf16* values, const std::int32_t* row_of_slot,
                    bf16* d_topk_weights, std::int64_t slots, int top_k, int hidden, int threads) {
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t slot = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (slot >= slots) return;
  const bf16* gradient = d_out + slot / top_k * hidden;
  const bf16* value = values + (row_of_slot == nullptr ? slot : row_of_slot[slot]) * hidden;
  const auto term = [&](int column) {
    return weighted<kRounding>(gradient[column], __bfloat162float(value[column]));
  };
  const float sum = row_sum(hidden, threads, term, [&](int vector, float(&terms)[8]) {
#pragma unroll
    for (int c = 0; c < 8; ++c) terms[c] = term(vector * 8 + c);
  });
  if (threadIdx.x % 32 == 0) d_topk_weights[slot] = __float2bfloat16_rn(sum);
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

void merge_grad_rows(const bf16* d_out, const bf16* topk_weights, const std::int32_t* gather_indices,
                     bf16* d_rows, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  ASSAY_CHECK(sizes.slots() < (std::int64_t{1} << 31), "expected fewer than 2^31 routed rows");
  if (sizes.slots() == 0) return;
  launch_kernel(weigh_rows_kernel, {static_cast<unsigned>(sizes.slots()), kThreads}, stream, d_out,
                topk_weights, gather_indices, d_rows, sizes.config.top_k, sizes.config.hidden_size / 8);
}

void merge_grad_weights(const bf16* d_out, const bf16* values, const std::int32_t* row_of_slot,
                        bf16* d_topk_weights, Rounding rounding, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  ASSAY_CHECK(sizes.slots() < (std::int64_t{1} << 31), "expected fewer than 2^31 routed rows");
  if (sizes.slots() == 0) return;
  const auto kernel =
      rounding == Rounding::Hf ? dot_rows_kernel<Rounding::Hf> : dot_rows_kernel<Rounding::FusedFp32>;
  launch_kernel(kernel, {static_cast<unsigned>((sizes.slots() + kWarps - 1) / kWarps), kThreads}, stream,
                d_out, values, row_of_slot, d_topk_weights, sizes.slots(), sizes.config.top_k,
                sizes.config.hidden_size, threads_of_row(sizes.config.hidden_size, sizes.slots()));
}

}  // namespace assay::gpu
