// Token counts, the stable order of rows by expert, and the tiles of the grouped products; all on the device, no atomics.
// Two launches: one warp per expert scans its chunk counts; then one warp per chunk ranks its slots, 32 at a time. With few
// chunks each warp of the second launch adds up the chunk counts itself, and the first one is not needed.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/kernels.h"
#include "gpu/launch.h"
#include "gpu/ptx.cuh"

namespace assay::gpu {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kScanWarps = 4;
constexpr int kFewChunks = 16;  // 128 tokens

__device__ int inclusive_scan_of_lanes(int value) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int below = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += below;
  }
  return value;
}

// chunk_counts [E, chunks] become exclusive prefixes along the chunks; counts [E] the totals.
__global__ void scan_chunks_kernel(std::int32_t* chunk_counts, std::int32_t* counts, int experts, int chunks) {
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

// Calls visit(expert, units before it, its units) for every expert, one lane each, and returns the sum of units.
template <class Units, class Visit>
__device__ int scan_experts(int experts, Units units, Visit visit) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int first = 0; first < experts; first += 32) {
    const int expert = first + lane;
    const int value = expert < experts ? units(expert) : 0;
    const int inclusive = inclusive_scan_of_lanes(value);
    if (expert < experts) visit(expert, before + inclusive - value, value);
    before += __shfl_sync(kAllLanes, inclusive, 31);
  }
  return before;
}

// One warp per chunk; the warp behind the last chunk writes the tiles (and the counts, with kSumChunks).
template <bool kSumChunks>
__global__ void scatter_kernel(Routing routing, int experts, int chunks, std::int64_t slots_per_chunk, std::int64_t slots) {
  __shared__ int next_row[kMaxExperts];
  __shared__ int rows_of[kMaxExperts];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const int lane = threadIdx.x;
  const int chunk = blockIdx.x;
  const auto count_of = [&](int expert) {
    if constexpr (!kSumChunks) return routing.counts[expert];
    int sum = 0;
    for (int c = 0; c < chunks; ++c) sum += routing.chunk_counts[static_cast<std::int64_t>(expert) * chunks + c];
    return sum;
  };
  scan_experts(experts, count_of, [&](int expert, int first, int count) {
    next_row[expert] = first;
    rows_of[expert] = count;
  });
  __syncwarp();

  if (chunk == chunks) {
    const auto tiles_of = [&](int expert) { return (rows_of[expert] + kTileRows - 1) / kTileRows; };
    const int total = scan_experts(experts, tiles_of, [&](int expert, int first_tile, int tiles) {
      for (int i = 0; i < tiles; ++i)
        routing.tiles[first_tile + i] = {expert, next_row[expert] + i * kTileRows, min(kTileRows, rows_of[expert] - i * kTileRows), 0};
      if constexpr (kSumChunks) routing.counts[expert] = rows_of[expert];
    });
    if (lane < 5) routing.tile_count[lane] = lane == 0 ? total : 0;
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
  const std::int64_t end = min(first + slots_per_chunk, slots);
  for (std::int64_t base = first; base < end; base += 32) {
    const std::int64_t slot = base + lane;
    const bool valid = slot < end;
    const int expert = valid ? routing.selected_experts[slot] : -1;
    // Lanes of the same expert keep their order: rank = how many of them have a lower lane.
    const unsigned peers = __match_any_sync(kAllLanes, expert);
    const int rank = __popc(peers & ((1u << lane) - 1u));
    if (valid) {
      const int row = next_row[expert] + rank;
      routing.gather_indices[row] = static_cast<std::int32_t>(slot);
      routing.row_of_slot[slot] = row;
    }
    __syncwarp();
    if (valid && rank == 0) next_row[expert] += __popc(peers);
    __syncwarp();
  }
}

// One block per row of `columns` elements, 8 at a time.
template <bool kScatter>
__global__ void copy_rows_kernel(const uint4* from, const std::int32_t* gather_indices, uint4* to, int top_k, int vectors) {
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const std::int64_t slot = gather_indices[row];
  const std::int64_t source = kScatter ? row : slot / top_k;
  const std::int64_t target = kScatter ? slot : row;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) to[target * vectors + i] = from[source * vectors + i];
}

template <bool kScatter>
void copy_rows(const bf16* from, const std::int32_t* gather_indices, bf16* to, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  if (sizes.slots() == 0) return;
  launch_kernel(copy_rows_kernel<kScatter>, static_cast<unsigned>(sizes.slots()), 256, 0, stream, reinterpret_cast<const uint4*>(from),
                gather_indices, reinterpret_cast<uint4*>(to), sizes.config.top_k, sizes.config.hidden_size / 8);
}

}  // namespace

std::int64_t max_row_tiles(const Sizes& sizes) {
  // Every expert that has rows adds at most one tile that is not full.
  return sizes.slots() / kTileRows + std::min(sizes.config.num_experts, sizes.slots());
}

void order_by_expert(const Routing& routing, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.slots() < (std::int64_t{1} << 31), "expected fewer than 2^31 routed rows: indices are int32");
  const std::int64_t experts = sizes.config.num_experts;
  const Chunks chunks = chunks_of(sizes.tokens);
  const bool few = chunks.count <= kFewChunks;
  if (!few)
    launch_kernel(scan_chunks_kernel, static_cast<unsigned>((experts + kScanWarps - 1) / kScanWarps), kScanWarps * 32, 0, stream,
                  routing.chunk_counts, routing.counts, experts, chunks.count);
  launch_kernel(few ? scatter_kernel<true> : scatter_kernel<false>, static_cast<unsigned>(chunks.count) + 1, 32, 0, stream, routing, experts,
                chunks.count, chunks.tokens_per_chunk * sizes.config.top_k, sizes.slots());
}

void permute_rows(const bf16* x, const std::int32_t* gather_indices, bf16* permuted, const Sizes& sizes, cudaStream_t stream) {
  copy_rows<false>(x, gather_indices, permuted, sizes, stream);
}

void unpermute_rows(const bf16* rows, const std::int32_t* gather_indices, bf16* slots, const Sizes& sizes, cudaStream_t stream) {
  copy_rows<true>(rows, gather_indices, slots, sizes, stream);
}

}  // namespace assay::gpu
