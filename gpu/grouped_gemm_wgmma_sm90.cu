// Grouped products for Hopper: 128 x 256 tiles, K in stages of 64, one persistent block per multiprocessor.
// Warpgroup 0 produces: the copy engine brings weights (and rows, when they are contiguous); gathered rows come by cp.async, one
// 16-byte chunk per thread and copy. Warpgroups 1 and 2 consume 64 rows each with wgmma and write their own results.
// Two blocks may form a cluster: where both have rows of one expert, each fetches half of the weights for both (wgmma_tiles.cuh).
// Every element's sum is one chain of wgmma steps, K ascending by 16.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/grouped_gemm.h"
#include "gpu/launch.h"
#include "gpu/wgmma_main_loop.cuh"

namespace assay::gpu {
namespace wgmma {
namespace {

// kFlag: the first product rounds inside, the second scatters.
template <Product kProduct, bool kGather, bool kFlag>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const Arguments arguments, const __grid_constant__ CUtensorMap rows_map, const __grid_constant__ CUtensorMap whole_weights,
                        const __grid_constant__ CUtensorMap half_weights, const __grid_constant__ CUtensorMap out_map) {
  extern __shared__ char unaligned[];
  char* const aligned = unaligned + (kAlignment - ptx::shared_address(unaligned) % kAlignment) % kAlignment;
  char* const staging = aligned + arguments.stages * kStageBytes;
  auto* const control = reinterpret_cast<Control*>(staging + kConsumers * kParts<kProduct> * kPartBytes);
  const std::uint32_t base = ptx::shared_address(aligned);

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < arguments.stages; ++stage) {
      ptx::mbarrier_init(ptx::shared_address(&control->full[stage]), kGather ? 1 + 128 : 1);
      ptx::mbarrier_init(ptx::shared_address(&control->empty[stage]), kConsumers * 4 * arguments.cluster);
    }
    for (int slot = 0; slot < 2; ++slot) {
      ptx::mbarrier_init(ptx::shared_address(&control->tile_ready[slot]), 1);
      ptx::mbarrier_init(ptx::shared_address(&control->tile_taken[slot]), (kConsumers * 4 + (kGather ? 4 : 1)) * arguments.cluster);  // reading warps
    }
    ptx::fence_mbarrier_init();
    ptx::prefetch_map(arguments.cluster == 1 ? &whole_weights : &half_weights);
    ptx::prefetch_map(&out_map);
    if constexpr (!kGather) ptx::prefetch_map(&rows_map);
  }
  if (arguments.cluster == 1)
    __syncthreads();
  else
    ptx::cluster_barrier();
  ptx::let_next_start();
  ptx::wait_for_previous();

  if (threadIdx.x < 128) {
    ptx::give_registers<kGather ? 56 : 40>();
    const int column_tickets = (arguments.column_tiles + arguments.cluster - 1) / arguments.cluster;
    TileFeeder feeder{control, {*arguments.routing.tile_count, column_tickets, arguments.raster_rows}, &arguments};
    if (threadIdx.x == 0)
      for (int step = 0; step < 3; ++step) feeder.step(step);
    __syncwarp();
    const WeightMaps weights{whole_weights, half_weights};
    if constexpr (kGather)
      produce_gathered<kProduct>(arguments, feeder, weights, base, control);
    else if (threadIdx.x < 32)
      produce_contiguous<kProduct>(arguments, feeder, &rows_map, weights, base, control);
  } else {
    ptx::take_registers<kGather ? 224 : 232>();
    consume<kProduct, kGather, kFlag>(arguments, &out_map, base, staging + (threadIdx.x / 128 - 1) * kParts<kProduct> * kPartBytes, control);
  }
  if (arguments.cluster != 1) {
    __syncwarp();
    ptx::cluster_barrier();  // shared memory outlives what the other block still signals
  }
}

// Where experts have more rows than a tile on average, most tiles find a partner.
int cluster_of(const KernelConfigForward& config, const Sizes& sizes) {
  if (config.cluster != 0) return config.cluster;
  return sizes.slots() > sizes.config.num_experts * kTileRows && config.persistent_blocks % 2 == 0 ? 2 : 1;
}

template <Product kProduct, class Kernel>
void launch(Kernel kernel, const Arguments& arguments, const CUtensorMap& rows_map, const CUtensorMap (&weights)[2],
            const CUtensorMap& out_map, const Sizes& sizes, const KernelConfigForward& config, cudaStream_t stream) {
  const int cluster = arguments.cluster;
  const std::int64_t tickets = max_row_tiles(sizes) * ((arguments.column_tiles + cluster - 1) / cluster);
  LaunchShape shape{0, kThreads, shared_bytes<kProduct>(arguments.stages), cluster};
  const int most = config.persistent_blocks > 0 ? config.persistent_blocks / cluster : resident_clusters(kernel, shape);
  ASSAY_CHECK(tickets + most < (std::int64_t{1} << 30), "expected fewer than 2^30 tiles");
  shape.grid = dim3(static_cast<unsigned>(std::min<std::int64_t>(most, tickets) * cluster));
  launch_kernel(kernel, shape, stream, arguments, rows_map, weights[0], weights[1], out_map);
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
  ASSAY_CHECK(sizes.tokens * hidden / 8 < (std::int64_t{1} << 32), "expected an input below 64 GiB: its 16-byte chunks are counted in 32 bits");
  if (sizes.slots() == 0) return;
  // Eight gate rows, then the eight up rows that belong to them, and so on: an axis of its own brings the halves together.
  const auto map = [&](int columns) {
    const MapAxis axes[] = {{hidden, 1, kBoxDepth},
                            {8, hidden, 8},
                            {2, inter * hidden, 2},
                            {inter / 8, 8 * hidden, columns / 16},
                            {sizes.config.num_experts, 2 * inter * hidden, 1}};
    return tensor_map(product.gate_up_proj, axes, 5);
  };
  const CUtensorMap weights[] = {map(wgmma::kColumns), map(wgmma::kColumns / 2)};
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
                                   .raster_rows = config.raster_rows,
                                   .cluster = wgmma::cluster_of(config, sizes)};
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
  const auto map = [&](int columns) {
    const MapAxis axes[] = {{inter, 1, kBoxDepth}, {hidden, inter, columns}, {sizes.config.num_experts, hidden * inter, 1}};
    return tensor_map(product.down_proj, axes, 3);
  };
  const CUtensorMap weights[] = {map(wgmma::kColumns), map(wgmma::kColumns / 2)};
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
                                   .raster_rows = config.raster_rows,
                                   .cluster = wgmma::cluster_of(config, sizes)};
  const auto kernel = product.scatter ? wgmma::grouped_gemm_kernel<Product::Down, false, true> : wgmma::grouped_gemm_kernel<Product::Down, false, false>;
  wgmma::launch<Product::Down>(kernel, arguments, rows, weights, out, sizes, config, stream);
}

}  // namespace assay::gpu
