// Token counts, the stable order of rows by expert, and the tiles of the grouped products; all on the device,
// no atomics in device memory. One launch: every block adds up the chunks' counts, for all experts, and gives
// the slots of its own chunks their rows, 32 to a warp; one more block writes the tiles. A single chunk is
// ordered by the block that selected its experts.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/order.cuh"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {
namespace {

constexpr int kWarps = 16;  // with 1024 experts their counts take 72 of the 99 KiB of sm_86 and sm_89
constexpr int kThreads = kWarps * 32;
constexpr int kMostBlocks = 128;  // that place slots: each reads all counts

// What a block keeps in shared memory, [E] each.
struct OrderRoom {
  int* rows;      // of the expert
  int* next_row;  // where the expert goes on, in this block
  int* of_warps;  // [kWarps, E] the same in each warp; first how many slots of the expert it has
  __device__ OrderRoom(int* shared, int experts)
      : rows(shared), next_row(shared + experts), of_warps(shared + 2 * experts) {}
  static int bytes(std::int64_t experts) { return static_cast<int>((2 + kWarps) * experts * sizeof(int)); }
};

// rows: the experts' totals; next_row: how many of them stand in chunks before `first_chunk`.
__device__ void add_up_chunks(const DeviceRouting& routing, const OrderRoom& room, int experts, int chunks,
                              int first_chunk) {
  const int vectors = static_cast<int>(padded_counts(experts) / 4);
  const int together = kThreads / vectors;  // threads that share the chunks of four experts
  const int mine = threadIdx.x / vectors;
  const int vector = threadIdx.x % vectors;
  if (mine >= together) return;
  const auto* counts = reinterpret_cast<const int4*>(routing.chunk_counts) + vector;
  int4 total{};
  int4 before{};
#pragma unroll 8
  for (int chunk = mine; chunk < chunks; chunk += together) {
    const int4 of_chunk = __ldcg(counts + static_cast<std::int64_t>(chunk) * vectors);
    const int is_before = chunk < first_chunk ? -1 : 0;
    total = {total.x + of_chunk.x, total.y + of_chunk.y, total.z + of_chunk.z, total.w + of_chunk.w};
    before = {before.x + (of_chunk.x & is_before), before.y + (of_chunk.y & is_before),
              before.z + (of_chunk.z & is_before), before.w + (of_chunk.w & is_before)};
  }
  const int totals[4] = {total.x, total.y, total.z, total.w};
  const int befores[4] = {before.x, before.y, before.z, before.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (vector * 4 + i >= experts) break;
    atomicAdd(&room.rows[vector * 4 + i], totals[i]);
    atomicAdd(&room.next_row[vector * 4 + i], befores[i]);
  }
}

// Gives slots [first, end) their rows, in ascending order; `expert` is that of this thread's first slot.
__device__ void place_slots_of_block(const DeviceRouting& routing, const OrderRoom& room, int experts,
                                     std::int64_t first, std::int64_t end, int expert) {
  const int lane = threadIdx.x % 32;
  int* const mine = room.of_warps + threadIdx.x / 32 * experts;
  for (std::int64_t base = first; base < end; base += kThreads) {
    for (int i = threadIdx.x; i < kWarps * experts; i += kThreads) room.of_warps[i] = 0;
    __syncthreads();
    const std::int64_t slot = base + threadIdx.x;
    const bool valid = slot < end;
    // Lanes of the same expert keep their order: rank = how many of them have a lower lane.
    const unsigned peers = __match_any_sync(kAllLanes, expert);
    const int rank = __popc(peers & ((1u << lane) - 1u));
    if (valid && rank == 0) mine[expert] = __popc(peers);
    __syncthreads();
    for (int e = threadIdx.x; e < experts; e += kThreads) {
      int slots[kWarps];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) slots[w] = room.of_warps[w * experts + e];
      int next = room.next_row[e];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        room.of_warps[w * experts + e] = next;
        next += slots[w];
      }
      room.next_row[e] = next;
    }
    __syncthreads();
    if (valid) {
      const int row = mine[expert] + rank;
      routing.gather_indices[row] = static_cast<std::int32_t>(slot);
      routing.row_of_slot[slot] = row;
    }
    const std::int64_t later = slot + kThreads;
    expert = later < end ? routing.selected_experts[later] : -1;
    __syncthreads();
  }
}

// Grid: blocks of `chunks_per_block` chunks; the block behind them writes the tiles and the counts.
__global__ void __launch_bounds__(kThreads)
    order_kernel(DeviceRouting routing, int experts, int chunks, int chunks_per_block,
                 std::int64_t slots_per_chunk, std::int64_t slots) {
  extern __shared__ int shared[];
  const OrderRoom room(shared, experts);
  const bool places = blockIdx.x + 1 < gridDim.x;
  const int first_chunk = places ? blockIdx.x * chunks_per_block : 0;
  const std::int64_t first = first_chunk * slots_per_chunk;
  const std::int64_t end = places ? min(first + chunks_per_block * slots_per_chunk, slots) : 0;
  for (int i = threadIdx.x; i < 2 * experts; i += kThreads) shared[i] = 0;
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t slot = first + threadIdx.x;
  const int expert = slot < end ? routing.selected_experts[slot] : -1;
  __syncthreads();
  add_up_chunks(routing, room, experts, chunks, first_chunk);
  __syncthreads();
  if (threadIdx.x < 32)
    scan_experts(
        experts, [&](int e) { return room.rows[e]; },
        [&](int e, int first_row, int) { room.next_row[e] += first_row; });
  __syncthreads();
  if (places) return place_slots_of_block(routing, room, experts, first, end, expert);
  for (int e = threadIdx.x; e < experts; e += kThreads) routing.counts[e] = room.rows[e];
  if (threadIdx.x < 32) write_tiles(routing, experts, room.next_row, room.rows);
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

// One block per token: its row is read once, for all its slots; 8 elements of `vectors` at a time.
__global__ void permute_kernel(const uint4* __restrict__ x, const std::int32_t* __restrict__ row_of_slot,
                               uint4* __restrict__ permuted, int top_k, int vectors) {
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t token = blockIdx.x;
  const std::int32_t* const rows = row_of_slot + token * top_k;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    const uint4 value = x[token * vectors + i];
#pragma unroll 8
    for (int j = 0; j < top_k; ++j) permuted[std::int64_t{rows[j]} * vectors + i] = value;
  }
}

// One block per row.
__global__ void unpermute_kernel(const uint4* rows, const std::int32_t* gather_indices, uint4* slots,
                                 int vectors) {
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const std::int64_t slot = gather_indices[row];
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) slots[slot * vectors + i] = rows[row * vectors + i];
}

int vectors_of_row(const Sizes& sizes) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0, "expected hidden_size to be a multiple of 8");
  return static_cast<int>(sizes.config.hidden_size / 8);
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
  ASSAY_CHECK(experts <= kMaxExperts, "expected at most 1024 experts");
  const std::int64_t wanted =
      std::clamp<std::int64_t>((sizes.slots() + kThreads - 1) / kThreads, 1, kMostBlocks);
  const std::int64_t chunks_per_block = std::max<std::int64_t>(1, (chunks.count + wanted - 1) / wanted);
  const std::int64_t blocks = (chunks.count + chunks_per_block - 1) / chunks_per_block;
  launch_kernel(order_kernel, {static_cast<unsigned>(blocks) + 1, kThreads, OrderRoom::bytes(experts)},
                stream, routing, experts, chunks.count, chunks_per_block,
                chunks.tokens_per_chunk * sizes.config.top_k, sizes.slots());
}

void order_row_tiles(const DeviceRouting& routing, const Sizes& sizes, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.num_experts <= kMaxExperts, "expected at most 1024 experts");
  launch_kernel(row_tiles_kernel, {1, 32}, stream, routing, sizes.config.num_experts);
}

void permute_rows(const bf16* x, const std::int32_t* row_of_slot, bf16* permuted, const Sizes& sizes,
                  cudaStream_t stream) {
  const int vectors = vectors_of_row(sizes);
  if (sizes.slots() == 0) return;
  launch_kernel(permute_kernel, {static_cast<unsigned>(sizes.tokens), 256}, stream,
                reinterpret_cast<const uint4*>(x), row_of_slot, reinterpret_cast<uint4*>(permuted),
                sizes.config.top_k, vectors);
}

void unpermute_rows(const bf16* rows, const std::int32_t* gather_indices, bf16* slots, const Sizes& sizes,
                    cudaStream_t stream) {
  const int vectors = vectors_of_row(sizes);
  if (sizes.slots() == 0) return;
  launch_kernel(unpermute_kernel, {static_cast<unsigned>(sizes.slots()), 256}, stream,
                reinterpret_cast<const uint4*>(rows), gather_indices, reinterpret_cast<uint4*>(slots),
                vectors);
}

}  // namespace assay::gpu
