// The main loop of the Hopper grouped products: warpgroup 0 produces stages, warpgroups 1 and 2 multiply them.
#pragma once

#include <type_traits>

#include "gpu/planted.h"
#include "gpu/ptx_wgmma.cuh"
#include "gpu/wgmma_epilogue.cuh"
#include "gpu/wgmma_tiles.cuh"

namespace assay::gpu::wgmma {


__device__ inline int expert_of(const Tile& tile) {
  return kPlanted == Planted::NeighbourExpert && tile.rows < kTileRows && tile.expert > 0 ? tile.expert - 1 : tile.expert;
}

// A stage's weights. Of a pair each block fetches the half of its rank for both, and waits for the other's. `first` is the tile's
// first index along the axis of the columns: a group of 16 or a column.
template <Product kProduct, Layout kLayout, bool kPaired>
__device__ void load_weights(std::uint32_t stage, const Maps& maps, std::uint32_t barrier, int step, int rank, int first, int expert) {
  constexpr std::uint16_t kBoth = 0b11;
  constexpr int kColumns = Shape<kLayout>::kColumns;
  const std::uint32_t shared = stage + (kPaired ? rank * (Shape<kLayout>::kWeightBytes / 2) : 0);
  if constexpr (kProduct == Product::GateUp && kPaired)
    ptx::tensor_multicast_5d(shared, &maps.half_weights, barrier, kBoth, step * kBoxDepth, 0, 0, first + rank * (kColumns / 32), expert);
  else if constexpr (kProduct == Product::GateUp)
    ptx::tensor_load_5d(shared, &maps.weights, barrier, step * kBoxDepth, 0, 0, first, expert);
  else if constexpr (kPaired)
    ptx::tensor_multicast_3d(shared, &maps.half_weights, barrier, kBoth, step * kBoxDepth, first + rank * (kColumns / 2), expert);
  else
    ptx::tensor_load_3d(shared, &maps.weights, barrier, step * kBoxDepth, first, expert);
}

template <Product kProduct, Layout kLayout>
__device__ int first_of(const Tile& tile) {
  return tile.column_tile * (kProduct == Product::GateUp ? Shape<kLayout>::kColumns / 16 : Shape<kLayout>::kColumns);
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
template <Product kProduct, Layout kLayout>
__device__ void produce_gathered(const Arguments& arguments, TileFeeder feeder, const Maps& maps, std::uint32_t base, Control* control) {
  using Shape = Shape<kLayout>;
  constexpr int kCopies = Shape::kRows / 16;
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
    const int first = first_of<kProduct, kLayout>(tile);
    const int expert = expert_of(tile);
    const auto load_stages = [&]<bool kPaired>(std::bool_constant<kPaired>) {  // decided once: this is the critical path of a refill
      for (int step = 0; step < steps; ++step, ring.advance()) {
        const std::uint32_t stage = base + ring.stage * Shape::kStageBytes;
        const std::uint32_t arrived = full + ring.stage * 8;
        ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
        if (thread == 0) {
          ptx::mbarrier_arrive_expect(arrived, Shape::kWeightBytes);
          load_weights<kProduct, kLayout, kPaired>(stage, maps, arrived, step, rank, first, expert);
        }
        // A copy that is not valid reads nothing, wherever it points. Rows 16 apart have the same swizzle.
        const unsigned valid = step * kBoxDepth + chunk * 8 < arguments.depth ? valid_rows : 0;
        const std::uint32_t to = stage + Shape::kWeightBytes + swizzled(thread / 8, chunk);
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
          if (i == 4 && tile.rows <= 64) break;  // the second half of a short tile
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

// A stage's contiguous rows: large boxes, small ones for a short rest. Rows behind the expert's last are the next expert's, or zeros:
// computed at most, never stored. Gives the rows that come, or brings them.
template <Layout kLayout>
struct RowLoads {
  static constexpr int kBoxRows = Shape<kLayout>::kBoxRows;
  static constexpr int kMostSmall = kLayout == Layout::Tall ? 0 : 3;
  static constexpr int kMostLarge = Shape<kLayout>::kRows / kBoxRows;
  int large;
  int small;

  __device__ explicit RowLoads(int rows) {
    const int rest = rows % kBoxRows;
    const bool rounded_up = rest > kMostSmall * kGranule;
    large = rows / kBoxRows + rounded_up;
    small = rounded_up ? 0 : (rest + kGranule - 1) / kGranule;
  }
  __device__ int rows() const { return large * kBoxRows + small * kGranule; }
  __device__ void load(std::uint32_t to, const Maps& maps, std::uint32_t barrier, int step, int first) const {
#pragma unroll
    for (int i = 0; i < kMostLarge; ++i)
      if (i < large) ptx::tensor_load_2d(to + i * kBoxRows * 128, &maps.rows, barrier, step * kBoxDepth, first + i * kBoxRows);
#pragma unroll
    for (int i = 0; i < kMostSmall; ++i) {
      const int row = large * kBoxRows + i * kGranule;
      if (i < small) ptx::tensor_load_2d(to + row * 128, &maps.few_rows, barrier, step * kBoxDepth, first + row);
    }
  }
};

// One thread. The second product's first weights need nothing of the first one: they are fetched before it ends. Its blocks have all
// waited for the routing before this kernel could start.
template <Product kProduct, Layout kLayout>
__device__ void produce_contiguous(const Arguments& arguments, TileFeeder feeder, const Maps& maps, std::uint32_t base, Control* control) {
  using Shape = Shape<kLayout>;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  bool begun = kProduct == Product::GateUp;
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    if (threadIdx.x == 0) {
      const int rank = tile.paired ? ptx::cluster_rank() : 0;
      const int first = first_of<kProduct, kLayout>(tile);
      const int expert = expert_of(tile);
      const RowLoads<kLayout> rows(tile.rows);
      const int bytes = Shape::kWeightBytes + rows.rows() * 128;
      const auto load_stages = [&]<bool kPaired>(std::bool_constant<kPaired>) {
        const auto begin = [&](int step, int stage) {
          ptx::mbarrier_arrive_expect(full + stage * 8, bytes);
          load_weights<kProduct, kLayout, kPaired>(base + stage * Shape::kStageBytes, maps, full + stage * 8, step, rank, first, expert);
        };
        int ahead = 0;
        if (!begun) {
          for (; ahead < min(steps, arguments.stages); ++ahead) begin(ahead, ahead);
          ptx::wait_for_previous();
          begun = true;
        }
        for (int step = 0; step < steps; ++step, ring.advance()) {
          if (step >= ahead) {
            ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
            begin(step, ring.stage);
          }
          rows.load(base + ring.stage * Shape::kStageBytes + Shape::kWeightBytes, maps, full + ring.stage * 8, step, tile.first);
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
  if (threadIdx.x == 0) {
    ptx::wait_for_previous();  // a block without tiles: the next kernel relies on this one having waited
    feeder.finish();
  }
}

// One consumer's sums over all stages of a tile; kN columns of wgmma. kWaitEach: a stage is freed as soon as its own products are done,
// which suits tiles that wait for memory and wide ones; else the next stage's products are queued before, if they have arrived.
template <bool kGather, Layout kLayout, int kN, bool kWaitEach>
__device__ void sum_tile(Sums<kLayout>& d, Ring& ring, int steps, const Release& release, std::uint32_t base, int consumer, std::uint32_t full) {
  using Shape = Shape<kLayout>;
  constexpr bool kTall = kLayout == Layout::Tall;
  constexpr unsigned kAllLanes = 0xffffffffu;
  int held = -1;  // the stage whose products may be in flight
#pragma unroll kTall ? 4 : 1
  for (int step = 0; step < steps; ++step, ring.advance()) {
    const std::uint32_t arrived = full + ring.stage * 8;
    const bool late = kPlanted == Planted::MissingWait && step == 3;
    if (!kWaitEach && held >= 0 && !__all_sync(kAllLanes, ptx::mbarrier_done(arrived, ring.parity))) {
      ptx::wgmma_wait<0>();
      release.free(held);
      held = -1;
    }
    if (!late) ptx::mbarrier_wait(arrived, ring.parity);
    if constexpr (kGather) ptx::fence_proxy_async();  // cp.async wrote what wgmma is about to read
    const bool stale = kPlanted == Planted::StaleStage && step == 2;
    const std::uint32_t stage = base + (stale ? (ring.stage + ring.stages - 1) % ring.stages : ring.stage) * Shape::kStageBytes;
    const std::uint64_t weights = ptx::tile_descriptor(stage + (kTall ? 0 : consumer * Shape::kParts * kBytes64));
    const std::uint64_t rows = ptx::tile_descriptor(stage + Shape::kWeightBytes + (kTall ? consumer * kBytes64 : 0));
    const std::uint64_t a = kTall ? rows : weights;
    const std::uint64_t b = kTall ? weights : rows;
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBoxDepth / 16; ++k)
#pragma unroll
      for (int part = 0; part < Shape::kParts; ++part)
        if (kPlanted != Planted::DroppedLastK || step == 0 || step + 1 < steps)
          ptx::wgmma_m64k16<kN>(d[part], a + part * (kBytes64 >> 4) + 2 * k, b + 2 * k, step != 0 || k != 0);
    ptx::wgmma_commit();
    if (late) ptx::mbarrier_wait(arrived, ring.parity);
    if constexpr (kWaitEach) {
      ptx::wgmma_wait<0>();
      release.free(ring.stage);
    } else {
      ptx::wgmma_wait<1>();
      if (held >= 0) release.free(held);
      held = ring.stage;
    }
  }
  if constexpr (!kWaitEach) {
    ptx::wgmma_wait<0>();
    release.free(held);
  }
}

template <Product kProduct, bool kGather, bool kFlag, Layout kLayout>
__device__ void consume(const Arguments& arguments, const Maps& maps, std::uint32_t base, char* staging, Control* control) {
  constexpr int kFewRowsHere = 64;
  const int consumer = threadIdx.x / 128 - 1;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const Release release(ptx::shared_address(control->empty), arguments.cluster);
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  int turn = 0;
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    if (kLayout == Layout::Tall && tile.rows <= consumer * 64) {  // nothing of this tile is ours
      for (int step = 0; step < steps; ++step, ring.advance()) {
        ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
        release.free(ring.stage);
      }
      continue;
    }
    Sums<kLayout> d;
    const auto sum = [&]<int kN, bool kWaitEach>(std::integral_constant<int, kN>, std::bool_constant<kWaitEach>) {
      sum_tile<kGather, kLayout, kN, kWaitEach>(d, ring, steps, release, base, consumer, full);
    };
    if constexpr (kLayout == Layout::Narrow)
      sum(std::integral_constant<int, kNarrowTileRows>{}, std::true_type{});
    else if constexpr (kLayout == Layout::Wide)
      ptx::with_padded_rows(tile.rows, [&](auto n) { sum(n, std::true_type{}); });
    else if (tile.rows <= kFewRowsHere)
      sum(std::integral_constant<int, 256>{}, std::true_type{});
    else
      sum(std::integral_constant<int, 256>{}, std::false_type{});
    write_tile<kProduct, kFlag, kLayout>(arguments, maps, d, staging, turn, tile, consumer);
  }
  if (threadIdx.x % 32 == 0) ptx::bulk_wait_read<0>();  // shared memory outlives the last store's reads
}

}  // namespace assay::gpu::wgmma
