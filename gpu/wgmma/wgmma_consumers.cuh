// The consumers of the Hopper grouped products: warpgroups that multiply stages as they arrive and write
// their own results.
#pragma once

#include <type_traits>

#include "gpu/kernels/planted_kernels.h"
#include "gpu/wgmma/finished.cuh"
#include "gpu/wgmma/ptx_wgmma.cuh"
#include "gpu/wgmma/wgmma_epilogue.cuh"
#include "gpu/wgmma/wgmma_tiles.cuh"

namespace assay::gpu::wgmma {

// How a consumer's warp frees stages: one arrival in its own block, by lane 0, and one in the other block of
// the cluster, by lane 1, since the next weights may come from there. All that can be known before is: the
// release is on the critical path.
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

/// Whether a stage has arrived, one answer for a consumer's four warps: what they do with products in flight
/// they must do together.
__device__ inline bool arrived_for_all(std::uint32_t barrier, int parity, int consumer) {
  return ptx::all_at_named_barrier(1 + consumer, 128, ptx::mbarrier_done(barrier, parity));
}

// One consumer's sums over all stages of a tile; kN columns of wgmma. kWaitEach: a stage is freed as soon as
// its own products are done, which suits tiles that wait for memory and wide ones; else the next stage's
// products are queued before, if they have arrived.
template <bool kGather, Lies kLiesWeights, TileLayout kLayout, int kN, bool kWaitEach>
__device__ void sum_tile(Sums<kLayout>& d, Ring& ring, int steps, const Release& release, std::uint32_t base,
                         int consumer, std::uint32_t full) {
  using Shape = TileShape<kLayout>;
  constexpr bool kTall = kLayout == TileLayout::Tall;
  constexpr Lies kLiesA = kTall ? Lies::AlongColumns : kLiesWeights;
  constexpr Lies kLiesB = kTall ? kLiesWeights : Lies::AlongColumns;
  int held = -1;  // the stage whose products may be in flight
#pragma unroll kTall ? 4 : 1
  for (int step = 0; step < steps; ++step, ring.advance()) {
    const std::uint32_t arrived = full + ring.stage * 8;
    const bool late = kPlanted == KernelFault::MissingWait && step == 3;
    if (!kWaitEach && held >= 0 && !arrived_for_all(arrived, ring.parity, consumer)) {
      ptx::wgmma_wait<0>();
      release.free(held);
      held = -1;
    }
    if (!late) ptx::mbarrier_wait(arrived, ring.parity);
    if constexpr (kGather) ptx::fence_proxy_async();  // cp.async wrote what wgmma is about to read
    const bool stale = kPlanted == KernelFault::StaleStage && step == 2;
    const std::uint32_t stage =
        base + (stale ? (ring.stage + ring.stages - 1) % ring.stages : ring.stage) * Shape::kStageBytes;
    const std::uint32_t weights =
        ptx::tile_place<kLiesWeights>(stage + (kTall ? 0 : consumer * Shape::kParts * kBytes64));
    const std::uint32_t rows =
        ptx::tile_place(stage + Shape::kWeightBytes + (kTall ? consumer * kBytes64 : 0));
    const std::uint32_t a = kTall ? rows : weights;
    const std::uint32_t b = kTall ? weights : rows;
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBoxDepth / 16; ++k)
#pragma unroll
      for (int part = 0; part < Shape::kParts; ++part)
        if (kPlanted != KernelFault::DroppedLastK || step == 0 || step + 1 < steps)
          ptx::wgmma_m64k16<kN, kLiesA, kLiesB>(
              d[part], ptx::tile_descriptor(a + part * (kBytes64 >> 4) + ptx::kNextSixteen<kLiesA> * k),
              ptx::tile_descriptor(b + ptx::kNextSixteen<kLiesB> * k), step != 0 || k != 0);
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

template <ProductId kProduct, bool kGather, Rounding kRounding, bool kScatter, TileLayout kLayout,
          bool kHalves>
__device__ void consume(const Arguments& arguments, const MapsFor<kHalves>& maps, std::uint32_t base,
                        char* staging, Control* control) {
  constexpr int kFewRowsHere = 64;
  const int consumer = threadIdx.x / 128 - 1;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const Release release(ptx::shared_address(control->empty), arguments.cluster);
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  int turn = 0;
  FinishedTiles stored{control->stored[consumer]};
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    if (kLayout == TileLayout::Tall && tile.rows <= consumer * 64) {  // nothing of this tile is ours
      for (int step = 0; step < steps; ++step, ring.advance()) {
        ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
        release.free(ring.stage);
      }
      continue;
    }
    Sums<kLayout> d;
    const auto sum = [&]<int kN, bool kWaitEach>(std::integral_constant<int, kN>,
                                                 std::bool_constant<kWaitEach>) {
      sum_tile<kGather, kWeightsLie<kProduct>, kLayout, kN, kWaitEach>(d, ring, steps, release, base,
                                                                       consumer, full);
    };
    if constexpr (kLayout == TileLayout::Narrow)
      sum(std::integral_constant<int, kNarrowTileRows>{}, std::true_type{});
    else if constexpr (kLayout == TileLayout::Wide)
      ptx::with_padded_rows(tile.rows, [&](auto n) { sum(n, std::true_type{}); });
    else if (tile.rows <= kFewRowsHere)
      sum(std::integral_constant<int, 256>{}, std::true_type{});
    else
      sum(std::integral_constant<int, 256>{}, std::false_type{});
    if (stored.full()) stored.count(arguments.routing, consumer);
    if constexpr (kSumsLeave<kProduct, kRounding>)
      store_sums<kLayout>(arguments, d, tile, consumer);
    else
      write_tile<kProduct, kRounding, kScatter, kLayout, kHalves>(arguments, maps, d, staging, turn, tile,
                                                                  consumer);
    if (kProduct == ProductId::gate_up && arguments.overlaps)
      stored.add({tile.expert, stored_elements<kLayout>(arguments, tile, consumer)});
  }
  stored.count(arguments.routing, consumer);
  if (threadIdx.x % 32 == 0) ptx::bulk_wait_read<0>();  // shared memory outlives the last store's reads
}

}  // namespace assay::gpu::wgmma
