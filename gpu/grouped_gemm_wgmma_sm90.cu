// Grouped products for Hopper: 128 x 256 tiles, K in stages of 64, one persistent block per multiprocessor.
// Warpgroup 0 produces: the copy engine brings weights (and rows, when they are contiguous); gathered rows come by cp.async, one
// 16-byte chunk per thread and copy. Warpgroups 1 and 2 consume 64 rows each with wgmma and write their own results.
// Every element's sum is one chain of wgmma steps, K ascending by 16.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/grouped_gemm.h"
#include "gpu/launch.h"
#include "gpu/planted.h"
#include "gpu/wgmma_epilogue.cuh"
#include "gpu/wgmma_tiles.cuh"

namespace assay::gpu {
namespace wgmma {
namespace {

__device__ int expert_of(const Tile& tile) {
  return kPlanted == Planted::NeighbourExpert && tile.rows.rows < kTileRows && tile.rows.expert > 0 ? tile.rows.expert - 1 : tile.rows.expert;
}

template <Product kProduct>
__device__ void load_weights(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier, int step, const Tile& tile) {
  if constexpr (kProduct == Product::GateUp)
    ptx::tensor_load_5d(shared, map, barrier, step * kBoxDepth, 0, 0, tile.column_tile * (kColumns / 16), expert_of(tile));
  else
    ptx::tensor_load_3d(shared, map, barrier, step * kBoxDepth, tile.column_tile * kColumns, expert_of(tile));
}

// All 128 threads: thread t copies chunk t mod 8 of rows t / 8, t / 8 + 16, ...
template <Product kProduct>
__device__ void produce_gathered(const Arguments& arguments, TileFeeder feeder, const CUtensorMap* weights, std::uint32_t base,
                                 Control* control) {
  constexpr int kCopies = kTileRows / 16;
  const int thread = threadIdx.x;
  const int chunk = thread % 8;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control};
  for (Tile tile = reader.take(); tile.rows.rows > 0; tile = reader.take()) {
    const bf16* from[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = thread / 8 + i * 16;
      from[i] = row < tile.rows.rows
                    ? arguments.x + static_cast<std::int64_t>(arguments.routing.gather_indices[tile.rows.first + row] / arguments.top_k) * arguments.depth
                    : nullptr;
    }
    for (int step = 0; step < steps; ++step, ring.advance()) {
      const std::uint32_t stage = base + ring.stage * kStageBytes;
      const std::uint32_t arrived = full + ring.stage * 8;
      ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
      if (thread == 0) {
        ptx::mbarrier_arrive_expect(arrived, kBytesB);
        load_weights<kProduct>(stage + kBytesA, weights, arrived, step, tile);
        feeder.step(step);
      }
      const int k = step * kBoxDepth + chunk * 8;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        if (i == kCopies / 2 && tile.rows.rows <= kConsumerRows) break;  // the second consumer has nothing to read
        const bool valid = from[i] != nullptr && k < arguments.depth;
        ptx::cp_async_16(stage + swizzled(thread / 8 + i * 16, chunk), valid ? from[i] + k : arguments.x, valid);
      }
      ptx::cp_async_arrive(arrived);
    }
    if (thread == 0)
      for (int step = steps; step < 3; ++step) feeder.step(step);
  }
  if (thread == 0) feeder.finish();
}

// One warp, of which one lane copies.
template <Product kProduct>
__device__ void produce_contiguous(const Arguments& arguments, TileFeeder feeder, const CUtensorMap* rows_map, const CUtensorMap* weights,
                                   std::uint32_t base, Control* control) {
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control};
  for (Tile tile = reader.take(); tile.rows.rows > 0; tile = reader.take()) {
    const bool second = tile.rows.rows > kConsumerRows;
    if (threadIdx.x == 0) {
      for (int step = 0; step < steps; ++step, ring.advance()) {
        const std::uint32_t stage = base + ring.stage * kStageBytes;
        const std::uint32_t arrived = full + ring.stage * 8;
        ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
        ptx::mbarrier_arrive_expect(arrived, kBytesB + (second ? 2 : 1) * kBytesA64);
        load_weights<kProduct>(stage + kBytesA, weights, arrived, step, tile);
        // Rows behind the expert's last are the next expert's, or zeros: computed at most, never stored.
        ptx::tensor_load_2d(stage, rows_map, arrived, step * kBoxDepth, tile.rows.first);
        if (second) ptx::tensor_load_2d(stage + kBytesA64, rows_map, arrived, step * kBoxDepth, tile.rows.first + kConsumerRows);
        feeder.step(step);
      }
      for (int step = steps; step < 3; ++step) feeder.step(step);
    }
    __syncwarp();
  }
  if (threadIdx.x == 0) feeder.finish();
}

// One consumer's 64 x 256 sums over all stages of a tile. kWaitEach: a stage is freed as soon as its own products are done, which
// suits tiles that wait for memory; else one group of products stays in flight, which suits tiles that wait for the tensor core.
template <bool kGather, bool kWaitEach>
__device__ void sum_tile(float (&d)[128], Ring& ring, int steps, std::uint32_t base, int consumer, std::uint32_t full, std::uint32_t empty) {
  const bool signals = threadIdx.x % 32 == 0;  // one arrival per warp frees a stage
  std::uint32_t previous = 0;
  for (int step = 0; step < steps; ++step, ring.advance()) {
    ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
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
    ptx::wgmma_wait<kWaitEach ? 0 : 1>();
    if (signals && (kWaitEach || step != 0)) ptx::mbarrier_arrive(kWaitEach ? empty + ring.stage * 8 : previous);
    previous = empty + ring.stage * 8;
  }
  if constexpr (!kWaitEach) {
    ptx::wgmma_wait<0>();
    if (signals) ptx::mbarrier_arrive(previous);
  }
}

template <Product kProduct, bool kGather, bool kFlag>
__device__ void consume(const Arguments& arguments, const CUtensorMap* out_map, std::uint32_t base, char* staging, Control* control) {
  const int consumer = threadIdx.x / 128 - 1;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control};
  for (Tile tile = reader.take(); tile.rows.rows > 0; tile = reader.take()) {
    if (tile.rows.rows <= consumer * kConsumerRows) {  // nothing of this tile is ours
      for (int step = 0; step < steps; ++step, ring.advance()) {
        ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(empty + ring.stage * 8);
      }
      continue;
    }
    float d[128];
    if (tile.rows.rows > kConsumerRows)
      sum_tile<kGather, false>(d, ring, steps, base, consumer, full, empty);
    else
      sum_tile<kGather, true>(d, ring, steps, base, consumer, full, empty);
    write_tile<kProduct, kFlag>(arguments, out_map, d, staging, tile, consumer);
  }
  if (threadIdx.x % 128 == 0) ptx::bulk_wait_read();  // shared memory outlives the last store's reads
}

// kFlag: the first product rounds inside, the second scatters.
template <Product kProduct, bool kGather, bool kFlag>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const Arguments arguments, const __grid_constant__ CUtensorMap rows_map, const __grid_constant__ CUtensorMap weights,
                        const __grid_constant__ CUtensorMap out_map) {
  extern __shared__ char unaligned[];
  char* const aligned = unaligned + (kAlignment - ptx::shared_address(unaligned) % kAlignment) % kAlignment;
  char* const staging = aligned + arguments.stages * kStageBytes;
  auto* const control = reinterpret_cast<Control*>(staging + kConsumers * kParts<kProduct> * kPartBytes);
  const std::uint32_t base = ptx::shared_address(aligned);

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < arguments.stages; ++stage) {
      ptx::mbarrier_init(ptx::shared_address(&control->full[stage]), kGather ? 1 + 128 : 1);
      ptx::mbarrier_init(ptx::shared_address(&control->empty[stage]), kConsumers * 4);
    }
    for (int slot = 0; slot < 2; ++slot) {
      ptx::mbarrier_init(ptx::shared_address(&control->tile_ready[slot]), 1);
      ptx::mbarrier_init(ptx::shared_address(&control->tile_taken[slot]), kConsumers * 4 + (kGather ? 4 : 1));  // one per reading warp
    }
    ptx::fence_mbarrier_init();
    ptx::prefetch_map(&weights);
    ptx::prefetch_map(&out_map);
    if constexpr (!kGather) ptx::prefetch_map(&rows_map);
  }
  __syncthreads();
  ptx::let_next_start();
  ptx::wait_for_previous();

  if (threadIdx.x < 128) {
    ptx::give_registers<kGather ? 56 : 40>();
    TileFeeder feeder{control, {*arguments.routing.tile_count, arguments.column_tiles, arguments.raster_rows}, &arguments};
    if (threadIdx.x == 0)
      for (int step = 0; step < 3; ++step) feeder.step(step);
    __syncwarp();
    if constexpr (kGather)
      produce_gathered<kProduct>(arguments, feeder, &weights, base, control);
    else if (threadIdx.x < 32)
      produce_contiguous<kProduct>(arguments, feeder, &rows_map, &weights, base, control);
  } else {
    ptx::take_registers<kGather ? 224 : 232>();
    consume<kProduct, kGather, kFlag>(arguments, &out_map, base, staging + (threadIdx.x / 128 - 1) * kParts<kProduct> * kPartBytes, control);
  }
}

template <Product kProduct, class Kernel>
void launch(Kernel kernel, const Arguments& arguments, const CUtensorMap& rows_map, const CUtensorMap& weights, const CUtensorMap& out_map,
            const Sizes& sizes, const KernelConfigForward& config, cudaStream_t stream) {
  const std::int64_t tiles = max_row_tiles(sizes) * arguments.column_tiles;
  const int most = config.persistent_blocks > 0 ? config.persistent_blocks : device_attribute(cudaDevAttrMultiProcessorCount);
  ASSAY_CHECK(tiles + most < (std::int64_t{1} << 31), "expected fewer than 2^31 tiles");
  launch_kernel(kernel, static_cast<unsigned>(std::min<std::int64_t>(most, tiles)), kThreads, shared_bytes<kProduct>(arguments.stages), stream,
                arguments, rows_map, weights, out_map);
}

}  // namespace
}  // namespace wgmma

using wgmma::Product;

bool has_wgmma_sm90() {
  return device_attribute(cudaDevAttrComputeCapabilityMajor) == 9 && device_attribute(cudaDevAttrComputeCapabilityMinor) == 0;
}

void gate_up_wgmma_sm90(const GateUp& product, const Routing& routing, const Sizes& sizes, const KernelConfigForward& config,
                        cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  ASSAY_CHECK(hidden % 8 == 0 && inter % 8 == 0, "expected sizes to be multiples of 8");
  if (sizes.slots() == 0) return;
  // Eight gate rows, then the eight up rows that belong to them, and so on: an axis of its own brings the halves together.
  const MapAxis axes[] = {{hidden, 1, kBoxDepth},
                          {8, hidden, 8},
                          {2, inter * hidden, 2},
                          {inter / 8, 8 * hidden, wgmma::kColumns / 16},
                          {sizes.config.num_experts, 2 * inter * hidden, 1}};
  const CUtensorMap weights = tensor_map(product.gate_up_proj, axes, 5);
  const CUtensorMap rows = product.gather ? CUtensorMap{} : matrix_map(product.x, sizes.slots(), hidden);
  const CUtensorMap out = matrix_map(product.intermediate, sizes.slots(), inter);
  const wgmma::Arguments arguments{.routing = routing,
                                   .tickets = routing.tile_count + 1,
                                   .x = product.x,
                                   .out = product.intermediate,
                                   .first_gemm = product.first_gemm,
                                   .rows = sizes.slots(),
                                   .depth = static_cast<int>(hidden),
                                   .columns = static_cast<int>(inter),
                                   .column_tiles = static_cast<int>((inter + wgmma::kOutColumns - 1) / wgmma::kOutColumns),
                                   .top_k = static_cast<int>(sizes.config.top_k),
                                   .stages = config.pipeline_depth_gate_up,
                                   .raster_rows = config.raster_rows};
  const auto kernel = product.gather
                          ? (product.round_inner ? wgmma::grouped_gemm_kernel<Product::GateUp, true, true> : wgmma::grouped_gemm_kernel<Product::GateUp, true, false>)
                          : (product.round_inner ? wgmma::grouped_gemm_kernel<Product::GateUp, false, true> : wgmma::grouped_gemm_kernel<Product::GateUp, false, false>);
  wgmma::launch<Product::GateUp>(kernel, arguments, rows, weights, out, sizes, config, stream);
}

void down_wgmma_sm90(const Down& product, const Routing& routing, const Sizes& sizes, const KernelConfigForward& config, cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  ASSAY_CHECK(hidden % 8 == 0 && inter % 8 == 0, "expected sizes to be multiples of 8");
  if (sizes.slots() == 0) return;
  const MapAxis axes[] = {{inter, 1, kBoxDepth}, {hidden, inter, wgmma::kColumns}, {sizes.config.num_experts, hidden * inter, 1}};
  const CUtensorMap weights = tensor_map(product.down_proj, axes, 3);
  const CUtensorMap rows = matrix_map(product.intermediate, sizes.slots(), inter);
  const CUtensorMap out = matrix_map(product.out, sizes.slots(), hidden);
  const wgmma::Arguments arguments{.routing = routing,
                                   .tickets = routing.tile_count + 3,
                                   .x = product.intermediate,
                                   .out = product.out,
                                   .first_gemm = nullptr,
                                   .rows = sizes.slots(),
                                   .depth = static_cast<int>(inter),
                                   .columns = static_cast<int>(hidden),
                                   .column_tiles = static_cast<int>((hidden + wgmma::kColumns - 1) / wgmma::kColumns),
                                   .top_k = static_cast<int>(sizes.config.top_k),
                                   .stages = config.pipeline_depth_down,
                                   .raster_rows = config.raster_rows};
  const auto kernel = product.scatter ? wgmma::grouped_gemm_kernel<Product::Down, false, true> : wgmma::grouped_gemm_kernel<Product::Down, false, false>;
  wgmma::launch<Product::Down>(kernel, arguments, rows, weights, out, sizes, config, stream);
}

}  // namespace assay::gpu
