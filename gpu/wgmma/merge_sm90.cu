// The weighted sum over a token's slots on Hopper, bit for bit that of merge.cu: persistent blocks, in each
// of which one warp has the copy engine bring a token's K rows, several tokens ahead, and 256 threads add up
// 8 neighbouring columns each. Products are rounded to bf16, as pairs, before they are added.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/kernels/interleaved_sums.cuh"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/wgmma/ptx_sm90a.cuh"

namespace assay::gpu {
namespace {

constexpr int kConsumers = 256;
constexpr int kThreads = kConsumers + 32;
constexpr int kColumns = kConsumers * 8;  // of a stage
constexpr int kMostStages = 8;
constexpr int kBlocks = 3;        // per multiprocessor
constexpr int kRoom = 72 * 1024;  // for a block's stages
constexpr std::int64_t kFewTokens = 1024;

struct MergeArguments {
  const bf16* values;  // [S, H]
  const std::int32_t* row_of_slot;
  const bf16* topk_weights;
  bf16* out;
  std::int64_t tokens;
  int hidden;
  int top_k;
  int slices;  // of kColumns columns
  int stages;
};

// What a thread adds to its sums: 8 columns of a row.
__device__ void add_weighted(float (&sum)[8], const uint4& loaded, bf16 weight) {
  const unsigned words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 products = __bfloat1622float2(
        __hmul2_rn(*reinterpret_cast<const __nv_bfloat162*>(&words[i]), __nv_bfloat162{weight, weight}));
    sum[2 * i] = __fadd_rn(sum[2 * i], products.x);
    sum[2 * i + 1] = __fadd_rn(sum[2 * i + 1], products.y);
  }
}

__global__ void __launch_bounds__(kThreads, kBlocks) merge_sm90_kernel(const MergeArguments merge) {
  extern __shared__ __align__(128) char shared[];
  __shared__ std::uint64_t full_barriers[kMostStages];
  __shared__ std::uint64_t empty_barriers[kMostStages];
  __shared__ bf16 weights[kMostStages][32];
  // Who writes or reads a stage says so itself: one lane for its warp is not what racecheck can follow.
  const std::uint32_t base = ptx::shared_address(shared);
  const std::uint32_t full = ptx::shared_address(full_barriers);
  const std::uint32_t empty = ptx::shared_address(empty_barriers);
  const int lane = threadIdx.x % 32;
  const int row_bytes = min(merge.hidden, kColumns) * 2;
  const int stage_bytes = merge.top_k * row_bytes;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < merge.stages; ++stage) {
      ptx::mbarrier_init(full + stage * 8, 32);
      ptx::mbarrier_init(empty + stage * 8, kConsumers);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  ptx::let_next_start();
  ptx::wait_for_previous();

  const std::int64_t work = merge.tokens * merge.slices;
  int stage = 0;
  int parity = 0;
  const auto advance = [&] {
    if (++stage == merge.stages) {
      stage = 0;
      parity ^= 1;
    }
  };
  if (threadIdx.x >= kConsumers) {
    // Lane j brings the row of slot j; where it is, is asked for one token ahead.
    const auto row_at = [&](std::int64_t item) {
      if (item >= work || lane >= merge.top_k) return std::int64_t{0};
      const std::int64_t slot = item / merge.slices * merge.top_k + lane;
      return merge.row_of_slot == nullptr ? slot : std::int64_t{merge.row_of_slot[slot]};
    };
    const auto weight_at = [&](std::int64_t item) {
      if (item >= work || lane >= merge.top_k) return bf16{};
      return merge.topk_weights[item / merge.slices * merge.top_k + lane];
    };
    std::int64_t row = row_at(blockIdx.x);
    bf16 weight = weight_at(blockIdx.x);
    for (std::int64_t item = blockIdx.x; item < work; item += gridDim.x) {
      const std::int64_t next_row = row_at(item + gridDim.x);
      const bf16 next_weight = weight_at(item + gridDim.x);
      const int first = static_cast<int>(item % merge.slices) * kColumns;
      const int bytes = min(merge.hidden - first, kColumns) * 2;
      ptx::mbarrier_wait(empty + stage * 8, parity ^ 1);
      weights[stage][lane] = weight;
      if (lane == 0)
        ptx::mbarrier_arrive_expect(full + stage * 8, bytes * merge.top_k);
      else
        ptx::mbarrier_arrive(full + stage * 8);
      __syncwarp();
      if (lane < merge.top_k)
        ptx::bulk_load(base + stage * stage_bytes + lane * row_bytes,
                       merge.values + row * merge.hidden + first, bytes, full + stage * 8);
      row = next_row;
      weight = next_weight;
      advance();
    }
    return;
  }
  for (std::int64_t item = blockIdx.x; item < work; item += gridDim.x) {
    const int column = static_cast<int>(item % merge.slices) * kColumns + threadIdx.x * 8;
    ptx::mbarrier_wait(full + stage * 8, parity);
    InterleavedSums<8> sum;
    const char* const rows = shared + stage * stage_bytes + threadIdx.x * 16;
    if (column < merge.hidden)
      for (int first = 0; first < merge.top_k; first += kInterleaved)
#pragma unroll
        for (int j = 0; j < kInterleaved; ++j)
          if (first + j < merge.top_k)
            add_weighted(sum.sums[j], *reinterpret_cast<const uint4*>(rows + (first + j) * row_bytes),
                         weights[stage][first + j]);
    ptx::mbarrier_arrive(empty + stage * 8);
    advance();
    if (column >= merge.hidden) continue;
    uint4 packed;
    auto* rounded = reinterpret_cast<bf16*>(&packed);
#pragma unroll
    for (int c = 0; c < 8; ++c) rounded[c] = sum.rounded(c);
    *reinterpret_cast<uint4*>(merge.out + item / merge.slices * merge.hidden + column) = packed;
  }
}

}  // namespace

void merge_sm90(const bf16* values, const std::int32_t* row_of_slot, const bf16* topk_weights, bf16* out,
                Rounding rounding, const Sizes& sizes, cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t top_k = sizes.config.top_k;
  ASSAY_CHECK(hidden % 8 == 0, "expected hidden_size to be a multiple of 8");
  // Few tokens take longer this way, and products that are not rounded.
  if (rounding != Rounding::Hf || sizes.tokens < kFewTokens)
    return merge(values, row_of_slot, topk_weights, out, rounding, sizes, stream);
  const std::int64_t stage_bytes = top_k * std::min<std::int64_t>(hidden, kColumns) * 2;
  const auto stages = static_cast<int>(std::clamp<std::int64_t>(kRoom / stage_bytes, 1, kMostStages));
  const MergeArguments arguments{values,
                                 row_of_slot,
                                 topk_weights,
                                 out,
                                 sizes.tokens,
                                 static_cast<int>(hidden),
                                 static_cast<int>(top_k),
                                 static_cast<int>((hidden + kColumns - 1) / kColumns),
                                 stages};
  const std::int64_t blocks =
      std::min<std::int64_t>(sizes.tokens * arguments.slices,
                             std::int64_t{kBlocks} * device_attribute(cudaDevAttrMultiProcessorCount));
  launch_kernel(merge_sm90_kernel,
                {static_cast<unsigned>(blocks), kThreads, static_cast<int>(stages * stage_bytes)}, stream,
                arguments);
}

}  // namespace assay::gpu
