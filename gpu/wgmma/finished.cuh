// The second product begins an expert when the first has stored all of its rows, beside the first one's last
// tiles, whose multiprocessors fall idle one by one. Who stores counts elements per expert
// (DeviceRouting::finished); who reads waits for as many as the expert has.
#pragma once

#include <cstdint>

#include "gpu/kernels/planted_kernels.h"
#include "gpu/kernels/ptx.cuh"
#include "gpu/wgmma/ptx_sm90a.cuh"
#include "gpu/wgmma/wgmma_tiles.cuh"

namespace assay::gpu::wgmma {

/// Elements of the intermediate that a consumer stores of a tile.
template <TileLayout kLayout>
__device__ int stored_elements(const Arguments& arguments, const Tile& tile, int consumer) {
  constexpr bool kTall = kLayout == TileLayout::Tall;
  constexpr int kColumns = TileShape<kLayout>::kColumns / 2 / (kTall ? 1 : kConsumers);
  const int first_column = (kTall ? tile.column_tile : tile.column_tile * kConsumers + consumer) * kColumns;
  const int columns = max(min(arguments.columns - first_column, kColumns), 0);
  return columns * (kTall ? min(tile.rows - consumer * 64, 64) : tile.rows);
}

/// What a consumer has stored and not counted yet. Whoever counts waits for its stores, and behind a fence
/// for all that the thread has under way: several tiles are counted together, the earlier ones long in
/// memory, and only a block's last ones are ever waited for.
struct FinishedTiles {
  StoredTile* tiles;  // in shared memory, of one thread
  int number = 0;

  __device__ void add(StoredTile tile) {
    if (threadIdx.x % 128 == 0) tiles[number] = tile;
    ++number;
  }
  __device__ bool full() const { return number == kStoredTogether; }
  /// All 128 threads of the consumer, of whom lane 0 of a warp may have stores of the copy engine under way.
  __device__ void count(const DeviceRouting& routing, int consumer) {
    if (number == 0) return;
    if (threadIdx.x % 32 == 0) ptx::bulk_wait();
    ptx::named_barrier(1 + consumer, 128);
    if (threadIdx.x % 128 == 0) {
      __threadfence();
      for (int i = 0; i < number; ++i)
        atomicAdd(routing.finished + tiles[i].expert, static_cast<std::uint32_t>(tiles[i].elements));
    }
    number = 0;
  }
};

/// One thread's view of how far the first product has got.
struct FirstProduct {
  const DeviceRouting* routing;
  std::uint32_t width;  // elements of a row
  int expert = -1;      // the last one that was waited for
  bool ended = false;

  /// Until the expert's rows are in memory, for the copy engine, too. Waits for the product's end where that
  /// takes longer than tiles do, and so never for ever.
  __device__ void wait_for(int next_expert) {
    constexpr int kMostLooks = 512;
    if (kPlanted == KernelFault::RowsNotAwaited || ended || next_expert == expert) return;
    expert = next_expert;
    const std::uint32_t all = static_cast<std::uint32_t>(routing->counts[expert]) * width;
    int looks = 0;
    while (!ended && ptx::load_acquire(routing->finished + expert) < all) {
      if (++looks == kMostLooks) end();
      __nanosleep(100);
    }
    ptx::fence_proxy_async_global();
  }
  /// Until the whole product has ended.
  __device__ void end() {
    ptx::wait_for_previous();
    ended = true;
  }
};

}  // namespace assay::gpu::wgmma
