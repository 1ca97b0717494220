// The kernel of the Hopper grouped products, and how it is launched: tiles of 256 weights and 128 of an
// expert's rows, K in stages of 64, one persistent block per multiprocessor; other tiles where these do not
// suit (TileLayout in wgmma_tiles.cuh). Warpgroup 0 produces: the copy engine brings weights and rows when
// they are contiguous; gathered rows come by cp.async, one 16-byte chunk per thread and copy. Warpgroups 1
// and 2 consume half of the tile each with wgmma and write their own results. Two blocks may form a cluster:
// where both have rows of one expert, each fetches half of the weights for both. Every element's sum is one
// chain of wgmma steps, K ascending by 16.
#pragma once

#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/kernels/grouped_gemm.h"
#include "gpu/kernels/launch.h"
#include "gpu/wgmma/wgmma_consumers.cuh"
#include "gpu/wgmma/wgmma_producers.cuh"

namespace assay::gpu {
namespace wgmma {
// Every file has kernels of its own.
namespace {

// kScatter: rows leave as their slots. kHalves: first_gemm is stored, too.
template <ProductId kProduct, bool kGather, Rounding kRounding, bool kScatter, TileLayout kLayout,
          bool kHalves>
__global__ void __launch_bounds__(kThreads, kLayout == TileLayout::Narrow ? 2 : 1)
    grouped_gemm_kernel(const Arguments arguments, const __grid_constant__ MapsFor<kHalves> maps) {
  constexpr int kStaging = Staging<kProduct, kLayout>::kBytes;
  extern __shared__ char unaligned[];
  char* const aligned = unaligned + (kAlignment - ptx::shared_address(unaligned) % kAlignment) % kAlignment;
  char* const staging = aligned + arguments.stages * TileShape<kLayout>::kStageBytes;
  auto* const control = reinterpret_cast<Control*>(staging + kConsumers * kStaging);
  const std::uint32_t base = ptx::shared_address(aligned);

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < arguments.stages; ++stage) {
      ptx::mbarrier_init(ptx::shared_address(&control->full[stage]), 1 + (kGather ? 128 : 1));
      ptx::mbarrier_init(ptx::shared_address(&control->empty[stage]), kConsumers * 4 * arguments.cluster);
    }
    for (int slot = 0; slot < 2; ++slot) {
      ptx::mbarrier_init(ptx::shared_address(&control->tile_ready[slot]), 1);
      ptx::mbarrier_init(ptx::shared_address(&control->tile_taken[slot]),
                         (kConsumers * 4 + (kGather ? 4 : 2)) * arguments.cluster);  // reading warps
    }
    ptx::fence_mbarrier_init();
    ptx::prefetch_map(&maps.weights);
    ptx::prefetch_map(&maps.half_weights);
    if constexpr (!kSumsLeave<kProduct, kRounding>) ptx::prefetch_map(&maps.out);
    if constexpr (!kGather) ptx::prefetch_map(&maps.rows);
  }
  if (arguments.cluster == 1)
    __syncthreads();
  else
    ptx::cluster_barrier();

  if (threadIdx.x < 128) {
    if constexpr (kLayout != TileLayout::Narrow) ptx::give_registers<56>();
    const int warp = threadIdx.x / 32;
    // The second product's tiles and weights are fetched while the first one ends, for its blocks have all
    // waited for the routing before they let this kernel start. Who brings its rows waits for them.
    if (kProduct != ProductId::down) ptx::wait_for_previous();
    ptx::let_next_start();
    const auto column_tickets =
        static_cast<unsigned>((arguments.column_tiles + arguments.cluster - 1) >> (arguments.cluster - 1));
    const TileFeeder<kWeightsLie<kProduct> == Lies::AlongRows> feeder{
        control,
        {static_cast<unsigned>(arguments.routing.counters->row_tiles), column_tickets,
         static_cast<unsigned>(arguments.raster_rows)},
        &arguments};
    if constexpr (kGather)
      gather_rows<kProduct, kLayout>(arguments, feeder, maps, base, control);
    else if (warp == 0)
      fetch_rows<kLayout>(arguments, maps, base, control);
    else if (warp == 1)
      fetch_weights<kProduct, kLayout>(arguments, maps, base, control);
    else if (warp == 2)
      hand_out_tiles(feeder);
  } else {
    if constexpr (kLayout != TileLayout::Narrow) ptx::take_registers<224>();
    consume<kProduct, kGather, kRounding, kScatter, kLayout, kHalves>(
        arguments, maps, base, staging + (threadIdx.x / 128 - 1) * kStaging, control);
  }
  if (arguments.cluster != 1) {
    __syncwarp();
    ptx::cluster_barrier();  // shared memory outlives what the other block still signals
  }
}

// Whether experts have more than `low` and at most `high` rows on average.
bool rows_between(const Sizes& sizes, std::int64_t low, std::int64_t high) {
  return sizes.slots() > low * sizes.config.num_experts && sizes.slots() <= high * sizes.config.num_experts;
}

// Pairs pay where most experts have two wide tiles: with fewer weights lie idle, with more they come from the
// L2 as fast.
int cluster_of(const KernelConfigForward& config, const Sizes& sizes) {
  if (config.cluster != 0) return config.cluster;
  return rows_between(sizes, kTileRows / 2, 2 * kWideTileRows) && config.persistent_blocks % 2 == 0 ? 2 : 1;
}

// Narrow tiles wherever they can be, for a token chooses an expert once, so that experts have no more rows
// than there are tokens; but not where all others run at once already. `columns` of other tiles per expert.
TileLayout layout_of(const KernelConfigForward& config, const Sizes& sizes, std::int64_t columns) {
  if (wide_tiles_wgmma_sm90(config, sizes)) return TileLayout::Wide;
  if (config.tiles != "auto") return config.tiles == "narrow" ? TileLayout::Narrow : TileLayout::Tall;
  if (sizes.tokens > kNarrowTileRows || config.cluster == 2) return TileLayout::Tall;
  const std::int64_t multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount);
  const std::int64_t tiles = max_row_tiles(sizes) * columns;
  return tiles <= multiprocessors && 2 * tiles > multiprocessors ? TileLayout::Tall : TileLayout::Narrow;
}

/// visit(std::integral_constant) of the layout.
template <class Visit>
void with_layout(TileLayout layout, Visit visit) {
  switch (layout) {
    case TileLayout::Tall: return visit(std::integral_constant<TileLayout, TileLayout::Tall>{});
    case TileLayout::Wide: return visit(std::integral_constant<TileLayout, TileLayout::Wide>{});
    case TileLayout::Narrow: return visit(std::integral_constant<TileLayout, TileLayout::Narrow>{});
  }
}

template <bool kHalves>
using Kernel = void (*)(Arguments, MapsFor<kHalves>);

template <ProductId kProduct, TileLayout kLayout, bool kHalves>
void launch(Kernel<kHalves> kernel, Arguments arguments, const MapsFor<kHalves>& maps, const Sizes& sizes,
            const KernelConfigForward& config, cudaStream_t stream) {
  constexpr int kOutColumns = TileShape<kLayout>::kColumns / (kProduct == ProductId::gate_up ? 2 : 1);
  const int cluster = arguments.cluster;
  arguments.column_tiles = (arguments.columns + kOutColumns - 1) / kOutColumns;
  if (kLayout == TileLayout::Narrow) arguments.stages = kMaxStages;
  const std::int64_t tickets = max_row_tiles(sizes) * ((arguments.column_tiles + cluster - 1) / cluster);
  LaunchShape shape{0, kThreads, shared_bytes<kProduct, kLayout>(arguments.stages), cluster};
  const int most =
      config.persistent_blocks > 0 ? config.persistent_blocks / cluster : resident_clusters(kernel, shape);
  ASSAY_CHECK(tickets + most < (std::int64_t{1} << 30), "expected fewer than 2^30 tiles");
  shape.grid = dim3(static_cast<unsigned>(std::min<std::int64_t>(most, tickets) * cluster));
  launch_kernel(kernel, shape, stream, arguments, maps);
}

}  // namespace
}  // namespace wgmma
}  // namespace assay::gpu
