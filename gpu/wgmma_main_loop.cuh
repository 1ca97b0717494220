// The main loop of the Hopper grouped products: warpgroup 0 produces stages, warpgroups 1 and 2 multiply them.
#pragma once

#include <type_traits>

#include "gpu/planted.h"
#include "gpu/wgmma_epilogue.cuh"
#include "gpu/wgmma_tiles.cuh"

namespace assay::gpu::wgmma {


__device__ inline int expert_of(const Tile& tile) {
  return kPlanted == Planted::NeighbourExpert && tile.rows < kTileRows && tile.expert > 0 ? tile.expert - 1 : tile.expert;
}

// The weights' tensor map, and one of boxes half as wide for what blocks fetch for one another.
struct WeightMaps {
  const CUtensorMap& whole;
  const CUtensorMap& half;
};

// A stage's weights. Of a pair each block fetches the half of its rank for both, and waits for the other's. `first` is the tile's
// first index along the axis of the columns: a group of 16 or a column.
template <Product kProduct, bool kPaired>
__device__ void load_weights(std::uint32_t stage, const WeightMaps& maps, std::uint32_t barrier, int step, int rank, int first, int expert) {
  constexpr std::uint16_t kBoth = 0b11;
  const std::uint32_t shared = stage + kBytesA + (kPaired ? rank * (kBytesB / 2) : 0);
  if constexpr (kProduct == Product::GateUp && kPaired)
    ptx::tensor_multicast_5d(shared, &maps.half, barrier, kBoth, step * kBoxDepth, 0, 0, first + rank * (kColumns / 32), expert);
  else if constexpr (kProduct == Product::GateUp)
    ptx::tensor_load_5d(shared, &maps.whole, barrier, step * kBoxDepth, 0, 0, first, expert);
  else if constexpr (kPaired)
    ptx::tensor_multicast_3d(shared, &maps.half, barrier, kBoth, step * kBoxDepth, first + rank * (kColumns / 2), expert);
  else
    ptx::tensor_load_3d(shared, &maps.whole, barrier, step * kBoxDepth, first, expert);
}

template <Product kProduct>
__device__ int first_of(const Tile& tile) {
  return tile.column_tile * (kProduct == Product::GateUp ? kColumns / 16 : kColumns);
}

// How a consumer's warp frees stages: one arrival in its own block, by lane 0, and one in the other block of the cluster, by lane 1,
// since the next weights may come from there. All that can be known before is: the release is on the critical path.
struct Release {
  std::uint32_t own;    // address of the first stage's barrier
  std::uint32_t other;  // the same in the other block
  bool in_own;          // whether this lane arrives there
  bool in_other;

  __device__ Release(std::uint32_t empty, int cluster)
      : own(empty),
        other(cluster == 1 ? empty : ptx::in_block(empty, ptx::cluster_rank() ^ 1)),
        in_own(threadIdx.x % 32 == 0),
        in_other(cluster != 1 && threadIdx.x % 32 == 1) {}
  __device__ void free(int stage) const {
    if (in_own) ptx::mbarrier_arrive(own + stage * 8);
    if (in_other) ptx::mbarrier_arrive_cluster(other + stage * 8);
  }
};

// 16-byte chunks from the start of x to a token's row: fits 32 bits up to 64 GiB.
__device__ inline std::uint32_t first_chunk(const Arguments& arguments, int token) {
  const auto chunk = static_cast<std::uint32_t>(token) * static_cast<std::uint32_t>(arguments.depth / 8);
  return kPlanted == Planted::ByteOffset32 ? chunk % (1u << 28) : chunk;
}

// All 128 threads: thread t copies chunk t mod 8 of rows t / 8, t / 8 + 16, ...
template <Product kProduct>
__device__ void produce_gathered(const Arguments& arguments, TileFeeder feeder, const WeightMaps& weights, std::uint32_t base,
                                 Control* control) {
  constexpr int kCopies = kTileRows / 16;
  const int thread = threadIdx.x;
  const int chunk = thread % 8;
  const auto* chunks_of_x = reinterpret_cast<const uint4*>(arguments.x);
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    std::uint32_t from[kCopies];  // this thread's chunk of each row at K = 0
    unsigned valid_rows = 0;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = thread / 8 + i * 16;
      const bool valid = row < tile.rows;
      valid_rows |= static_cast<unsigned>(valid) << i;
      from[i] = chunk + (valid ? first_chunk(arguments, arguments.routing.gather_indices[tile.first + row] / arguments.top_k) : 0);
    }
    const int rank = tile.paired ? ptx::cluster_rank() : 0;
    const int first = first_of<kProduct>(tile);
    const int expert = expert_of(tile);
    const auto load_stages = [&]<bool kPaired>(std::bool_constant<kPaired>) {  // decided once: this is the critical path of a refill
      for (int step = 0; step < steps; ++step, ring.advance()) {
        const std::uint32_t stage = base + ring.stage * kStageBytes;
        const std::uint32_t arrived = full + ring.stage * 8;
        ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
        if (thread == 0) {
          ptx::mbarrier_arrive_expect(arrived, kBytesB);
          load_weights<kProduct, kPaired>(stage, weights, arrived, step, rank, first, expert);
        }
        // A copy that is not valid reads nothing, wherever it points. Rows 16 apart have the same swizzle.
        const unsigned valid = step * kBoxDepth + chunk * 8 < arguments.depth ? valid_rows : 0;
        const std::uint32_t to = stage + swizzled(thread / 8, chunk);
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
          if (i == kCopies / 2 && tile.rows <= kConsumerRows) break;  // the second consumer has nothing to read
          ptx::cp_async_16(to + i * 16 * 128, chunks_of_x + (from[i] + static_cast<std::uint32_t>(step) * (kBoxDepth / 8)), valid >> i & 1);
        }
        ptx::cp_async_arrive(arrived);
        if (step < 3 && thread == 0) feeder.step(step);
      }
    };
    if (tile.paired)
      load_stages(std::true_type{});
    else
      load_stages(std::false_type{});
    if (thread == 0)
      for (int step = steps; step < 3; ++step) feeder.step(step);
  }
  if (thread == 0) feeder.finish();
}

// One warp, of which one lane copies.
template <Product kProduct>
__device__ void produce_contiguous(const Arguments& arguments, TileFeeder feeder, const CUtensorMap* rows_map, const WeightMaps& weights,
                                   std::uint32_t base, Control* control) {
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    const bool second = tile.rows > kConsumerRows;
    if (threadIdx.x == 0) {
      const int rank = tile.paired ? ptx::cluster_rank() : 0;
      const int first = first_of<kProduct>(tile);
      const int expert = expert_of(tile);
      const auto load_stages = [&]<bool kPaired>(std::bool_constant<kPaired>) {
        for (int step = 0; step < steps; ++step, ring.advance()) {
          const std::uint32_t stage = base + ring.stage * kStageBytes;
          const std::uint32_t arrived = full + ring.stage * 8;
          ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
          ptx::mbarrier_arrive_expect(arrived, kBytesB + (second ? 2 : 1) * kBytesA64);
          load_weights<kProduct, kPaired>(stage, weights, arrived, step, rank, first, expert);
          // Rows behind the expert's last are the next expert's, or zeros: computed at most, never stored.
          ptx::tensor_load_2d(stage, rows_map, arrived, step * kBoxDepth, tile.first);
          if (second) ptx::tensor_load_2d(stage + kBytesA64, rows_map, arrived, step * kBoxDepth, tile.first + kConsumerRows);
          if (step < 3) feeder.step(step);
        }
      };
      if (tile.paired)
        load_stages(std::true_type{});
      else
        load_stages(std::false_type{});
      for (int step = steps; step < 3; ++step) feeder.step(step);
    }
    __syncwarp();
  }
  if (threadIdx.x == 0) feeder.finish();
}

// One consumer's 64 x 256 sums over all stages of a tile. kWaitEach: a stage is freed as soon as its own products are done, which
// suits tiles that wait for memory; else one group of products stays in flight, which suits tiles that wait for the tensor core.
template <bool kGather, bool kWaitEach>
__device__ void sum_tile(float (&d)[128], Ring& ring, int steps, const Release& release, std::uint32_t base, int consumer, std::uint32_t full) {
  int previous = 0;
#pragma unroll 4
  for (int step = 0; step < steps; ++step, ring.advance()) {
    const bool late = kPlanted == Planted::MissingWait && step == 3;
    if (!late) ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
    if constexpr (kGather) ptx::fence_proxy_async();  // cp.async wrote what wgmma is about to read
    const bool stale = kPlanted == Planted::StaleStage && step == 2;
    const std::uint32_t stage = base + (stale ? (ring.stage + ring.stages - 1) % ring.stages : ring.stage) * kStageBytes;
    const std::uint64_t a = ptx::tile_descriptor(stage + consumer * kBytesA64);
    const std::uint64_t b = ptx::tile_descriptor(stage + kBytesA);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBoxDepth / 16; ++k)
      if (kPlanted != Planted::DroppedLastK || step == 0 || step + 1 < steps) ptx::wgmma_m64n256k16(d, a + 2 * k, b + 2 * k, step != 0 || k != 0);
    ptx::wgmma_commit();
    if (late) ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
    ptx::wgmma_wait<kWaitEach ? 0 : 1>();
    if (kWaitEach || step != 0) release.free(kWaitEach ? ring.stage : previous);
    previous = ring.stage;
  }
  if constexpr (!kWaitEach) {
    ptx::wgmma_wait<0>();
    release.free(previous);
  }
}

template <Product kProduct, bool kGather, bool kFlag>
__device__ void consume(const Arguments& arguments, const CUtensorMap* out_map, std::uint32_t base, char* staging, Control* control) {
  const int consumer = threadIdx.x / 128 - 1;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const Release release(ptx::shared_address(control->empty), arguments.cluster);
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    if (tile.rows <= consumer * kConsumerRows) {  // nothing of this tile is ours
      for (int step = 0; step < steps; ++step, ring.advance()) {
        ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
        release.free(ring.stage);
      }
      continue;
    }
    float d[128];
    if (tile.rows > kConsumerRows)
      sum_tile<kGather, false>(d, ring, steps, release, base, consumer, full);
    else
      sum_tile<kGather, true>(d, ring, steps, release, base, consumer, full);
    write_tile<kProduct, kFlag>(arguments, out_map, d, staging, tile, consumer);
  }
  if (threadIdx.x % 128 == 0) ptx::bulk_wait_read();  // shared memory outlives the last store's reads
}

}  // namespace assay::gpu::wgmma
