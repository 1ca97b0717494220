// Token counts, the stable order of rows by expert, and the tiles of the grouped products; all on the device,
// no atomics. Two launches: one warp per expert scans its chunk counts; then one warp per chunk ranks its
// slots, 32 at a time. With few chunks each warp of the second launch adds up the chunk counts itself, and
// the first one is not needed; a single chunk is ordered by the block that selected its experts.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/order.cuh"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {
namespace {

constexpr int kScanWarps = 4;
constexpr int kFewChunks = 16;  // 128 tokens

// chunk_counts [E, chunks] become exclusive prefixes along the chunks; counts [E] the totals.
__global__ void scan_chunks_kernel(std::int32_t* chunk_counts, std::int32_t* counts, int experts,
                                   int chunks) {
  ptx::let_next_start();
  ptx::wait_for_previous();
  const int expert = blockIdx.x * kScanWarps + threadIdx.x / 32;
  if (expert >= experts) return;
  const int lane = threadIdx.x % 32;
  std::int32_t* mine = chunk_counts + static_cast<std::int64_t>(expert) * chunks;
  int before = 0;
  for (int first = 0; first < chunks; first += 32) {
    const int value = first + lane < chunks ? mine[first + lane] : 0;
    const int inclusive = inclusive_scan_of_lanes(value);
    if (first + lane < chunks) mine[first + lane] = before + inclusive - value;
    before += __shfl_sync(kAllLanes, inclusive, 31);
  }
  if (lane == 0) counts[expert] = before;
}

// One warp per chunk; the warp behind the last chunk writes the tiles (and the counts, with kSumChunks).
template <bool kSumChunks>
__global__ void scatter_kernel(DeviceRouting routing, int experts, int chunks, std::int64_t slots_per_chunk,
                               std::int64_t slots) {
  __shared__ int next_row[kMaxExperts];
  __shared__ int rows_of[kMaxExperts];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const int lane = threadIdx.x;
  const int chunk = blockIdx.x;
  const auto count_of = [&](int expert) {
    if constexpr (!kSumChunks) return routing.counts[expert];
    int sum = 0;
    for (int c = 0; c < chunks; ++c)
      sum += routing.chunk_counts[static_cast<std::int64_t>(expert) * chunks + c];
    return sum;
  };
  scan_experts(experts, count_of, [&](int expert, int first, int count) {
    next_row[expert] = first;
    rows_of[expert] = count;
  });
  __syncwarp();

  if (chunk == chunks) {
    write_tiles(routing, experts, next_row, rows_of);
    if constexpr (kSumChunks)
      for (int e = lane; e < experts; e += 32) routing.counts[e] = rows_of[e];
    return;
  }

  for (int e = lane; e < experts; e += 32) {
    const std::int32_t* counts = routing.chunk_counts + static_cast<std::int64_t>(e) * chunks;
    if constexpr (kSumChunks)
      for (int c = 0; c < chunk; ++c) next_row[e] += counts[c];
    else
      next_row[e] += counts[chunk];
  }
  __syncwarp();
  const std::int64_t first = chunk * slots_per_chunk;
  place_slots(routing, first, min(first + slots_per_chunk, slots), next_row);
}

// One warp: the row tiles once more, from the counts.
__global__ void row_tiles_kernel(DeviceRouting routing, int experts) {
  __shared__ int first_row[kMaxExperts];
  __shared__ int rows_of[kMaxExperts];
  ptx::let_next_start();
  ptx::wait_for_previous();
  scan_experts(
      experts, [&](int expert) { return routing.counts[expert]; },
      [&](int expert, int first, int count) {
        first_row[expert] = first;
        rows_of[expert] = count;
      });
  __syncwarp();
  write_tiles(routing, experts, first_row, rows_of);
}

// One block per row of `columns` elements, 8 at a time.
template <bool kScatter>
__global__ void copy_rows_kernel(const uint4* from, const std::int32_t* gather_indices, uint4* to, int top_k,
                                 int vectors) {
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const std::int64_t slot = gather_indices[row];
  const std::int64_t source = kScatter ? row : slot / top_k;
  const std::int64_t target = kScatter ? slot : row;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x)
    to[target * vectors + i] = from[source * vectors + i];
}

template <bool kScatter>
void copy_rows(const bf16* from, const std::int32_t* gather_indices, bf16* to, const Sizes& sizes,
               cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  if (sizes.slots() == 0) return;
  launch_kernel(copy_rows_kernel<kScatter>, {static_cast<unsigned>(sizes.slots()), 256}, stream,
                reinterpret_cast<const uint4*>(from), gather_indices, reinterpret_cast<uint4*>(to),
                sizes.config.top_k, sizes.config.hidden_size / 8);
}

}  // namespace

std::int64_t max_row_tiles(const Sizes& sizes) {
  // Every expert that has rows adds at most one tile that is not full.
  return sizes.slots() / kTileRows + std::min(sizes.config.num_experts, sizes.slots());
}

void order_by_expert(const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.slots() < (std::int64_t{1} << 31),
              "expected fewer than 2^31 routed rows: indices are int32");
  const std::int64_t experts = sizes.config.num_experts;
  const Chunks chunks = chunks_of(sizes.tokens);
  if (chunks.count == 1) return;  // softmax_topk's only block has done it
  const bool few = chunks.count <= kFewChunks;
  if (!few)
    launch_kernel(scan_chunks_kernel,
                  {static_cast<unsigned>((experts + kScanWarps - 1) / kScanWarps), kScanWarps * 32}, stream,
                  routing.chunk_counts, routing.counts, experts, chunks.count);
  launch_kernel(few ? scatter_kernel<true> : scatter_kernel<false>,
                {static_cast<unsigned>(chunks.count) + 1, 32}, stream, routing, experts, chunks.count,
                chunks.tokens_per_chunk * sizes.config.top_k, sizes.slots());
}

void order_row_tiles(const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.num_experts <= kMaxExperts, "expected at most 1024 experts");
  launch_kernel(row_tiles_kernel, {1, 32}, stream, routing, sizes.config.num_experts);
}

void permute_rows(const bf16* x, const std::int32_t* gather_indices, bf16* permuted, const Sizes& sizes,
                  cudaStream_t stream) {
  copy_rows<false>(x, gather_indices, permuted, sizes, stream);
}

void unpermute_rows(const bf16* rows, const std::int32_t* gather_indices, bf16* slots, const Sizes& sizes,
                    cudaStream_t stream) {
  copy_rows<true>(rows, gather_indices, slots, sizes, stream);
}

}  // namespace assay::gpu
