// Gradients of weights for Hopper (weight_grad_tiles.cuh): persistent blocks walk the tiles of all experts.
// Warpgroup 0 hands out tiles, feeds the copy engine and gathers rows where they are not contiguous; 1 and 2
// consume 64 columns of a tile each and write them. Every element's sum is one chain of wgmma steps, the
// expert's rows ascending by 16; what is left of the last 16 are zeros.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/kernels/grouped_gemm_grad.h"
#include "gpu/kernels/launch.h"
#include "gpu/wgmma/weight_grad_consumers.cuh"
#include "gpu/wgmma/weight_grad_producers.cuh"

namespace assay::gpu {
namespace wgmma {
namespace {

template <bool kGather, GradientStore kStore>
__global__ void __launch_bounds__(kThreads, 1)
    weight_grad_kernel(const WeightGradArguments arguments, const __grid_constant__ WeightGradMaps maps) {
  using Shape = GradShape<kGather>;
  extern __shared__ char unaligned[];
  char* const aligned = unaligned + (kAlignment - ptx::shared_address(unaligned) % kAlignment) % kAlignment;
  char* const staging = aligned + Shape::kStages * kGradStageBytes;
  auto* const control = reinterpret_cast<Control*>(staging + kConsumers * Shape::kStagingBytes);
  const std::uint32_t base = ptx::shared_address(aligned);

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < arguments.stages; ++stage) {
      ptx::mbarrier_init(ptx::shared_address(&control->full[stage]), 1 + (kGather ? 128 : 0));
      ptx::mbarrier_init(ptx::shared_address(&control->empty[stage]), kConsumers * 4);
    }
    for (int slot = 0; slot < 2; ++slot) {
      ptx::mbarrier_init(ptx::shared_address(&control->tile_ready[slot]), 1);
      ptx::mbarrier_init(ptx::shared_address(&control->tile_taken[slot]),
                         kConsumers * 4 + (kGather ? 4 : 1));  // reading warps
    }
    ptx::fence_mbarrier_init();
    ptx::prefetch_map(&maps.d_out);
    if constexpr (!is_fp32(kStore)) ptx::prefetch_map(&maps.out);
    if constexpr (!kGather) ptx::prefetch_map(&maps.rows);
  }
  __syncthreads();

  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    ptx::give_registers<56>();
    if (!arguments.beside_previous) ptx::wait_for_previous();
    ptx::let_next_start();
    const GradTileFeeder feeder{&arguments, control};
    if constexpr (kGather)
      gather_grad_rows(arguments, feeder, maps, base, control);
    else if (threadIdx.x / 32 == 0)
      fetch_grad_panels(arguments, maps, base, control);
    else if (threadIdx.x / 32 == 1)
      hand_out_grad_tiles(feeder);
    // Who waits for this kernel relies on the one before, too.
    if (arguments.beside_previous) ptx::wait_for_previous();
  } else {
    ptx::take_registers<224>();
    if constexpr (adds(kStore)) ptx::wait_for_previous();  // may have written what is added to
    const int consumer = warpgroup - 1;
    consume_grad<kGather, kStore>(arguments, maps, base, staging + consumer * Shape::kStagingBytes, control,
                                  consumer);
  }
}

/// d_out [S, height], rows [S, width] or with `gather` [T, width], out [E, height, width].
struct WeightGrad {
  const bf16* d_out;
  const bf16* rows;
  WeightGradient out;
  std::int64_t height;
  std::int64_t width;
  bool gather;
  bool beside_previous;
};

// In boxes of one panel; or of `panels`, where columns are a multiple of 64.
CUtensorMap ragged_map(const bf16* base, std::int64_t columns, int panels) {
  constexpr std::int64_t kElements64 = std::int64_t{1} << (64 - 30 - 1);  // times kRaggedExtent: 2^64 bytes
  constexpr std::int64_t kMost = 0x7fffffff;
  const MapAxis axes[] = {{columns, 1, 64},
                          {kRaggedExtent, columns, kGradDepth},
                          {kMost, columns, 1},
                          {kMost, kElements64 - columns, 1}};
  if (panels == 0) return tensor_map(base, axes, 4);
  const MapAxis of_panels[] = {{64, 1, 64}, axes[1], axes[2], axes[3], {columns / 64, 64, panels}};
  return tensor_map(base, of_panels, 5);
}

template <bool kGather>
auto kernel_of(GradientStore store) {
  switch (store) {
    case GradientStore::Bf16Added: return weight_grad_kernel<kGather, GradientStore::Bf16Added>;
    case GradientStore::Fp32: return weight_grad_kernel<kGather, GradientStore::Fp32>;
    case GradientStore::Fp32Added: return weight_grad_kernel<kGather, GradientStore::Fp32Added>;
    default: return weight_grad_kernel<kGather, GradientStore::Bf16>;
  }
}

template <bool kGather>
void launch_weight_grad(const WeightGradArguments& arguments, const WeightGradMaps& maps, GradientStore store,
                        const KernelConfigBackwardDw& config, cudaStream_t stream) {
  const std::int64_t tiles = std::int64_t{arguments.experts} * arguments.height_tiles * arguments.width_tiles;
  const std::int64_t blocks = config.persistent_blocks > 0 ? config.persistent_blocks
                                                           : device_attribute(cudaDevAttrMultiProcessorCount);
  ASSAY_CHECK(tiles + blocks < (std::int64_t{1} << 30), "expected fewer than 2^30 tiles");
  launch_kernel(
      kernel_of<kGather>(store),
      {dim3(static_cast<unsigned>(std::min(blocks, tiles))), kThreads, GradShape<kGather>::kSharedBytes},
      stream, arguments, maps);
}

void weight_grad(ProductId product, const WeightGrad& grad, const DeviceRouting& routing, const Sizes& sizes,
                 const KernelConfigBackwardDw& config, cudaStream_t stream) {
  ASSAY_CHECK(grad.height % 8 == 0 && grad.width % 8 == 0, "expected sizes to be multiples of 8");
  ASSAY_CHECK(sizes.slots() < kRaggedExtent, "expected fewer than 2^30 routed rows");
  ASSAY_CHECK(sizes.tokens * grad.width / 8 < (std::int64_t{1} << 32),
              "expected an input below 64 GiB: its 16-byte chunks are counted in 32 bits");
  const WeightGradArguments arguments{
      .counts = routing.counts,
      .first_rows = routing.first_rows,
      .gather_indices = routing.gather_indices,
      .counter = counter_of(product, routing),
      .x = grad.rows,
      .out = grad.out.values,
      .experts = static_cast<int>(sizes.config.num_experts),
      .height_tiles = static_cast<int>((grad.height + kGradHeight - 1) / kGradHeight),
      .width_tiles = static_cast<int>((grad.width + kGradWidth - 1) / kGradWidth),
      .height = static_cast<int>(grad.height),
      .width = static_cast<int>(grad.width),
      .top_k = static_cast<int>(sizes.config.top_k),
      .stages = grad.gather ? config.pipeline_depth_gathered : config.pipeline_depth,
      .width_first = config.tile_order == "width",
      .product_rounded = grad.out.product_rounded,
      // Without rows the kernel before is another one.
      .beside_previous = grad.beside_previous && sizes.slots() > 0,
      .whole_panels = grad.height % 64 == 0 && grad.width % 64 == 0};
  const MapAxis out[] = {
      {grad.width, 1, 64},
      {grad.height, grad.width, grad.gather ? GradShape<true>::kPassRows : GradShape<false>::kPassRows},
      {sizes.config.num_experts, grad.height * grad.width, 1}};
  const auto panels = [&](int of_tile) { return arguments.whole_panels ? of_tile / 64 : 0; };
  const WeightGradMaps maps{
      grad.gather ? CUtensorMap{} : ragged_map(grad.rows, grad.width, panels(kGradWidth)),
      ragged_map(grad.d_out, grad.height, panels(kGradHeight)),
      is_fp32(grad.out.store) ? CUtensorMap{}
                              : tensor_map(static_cast<const bf16*>(grad.out.values), out, 3)};
  if (grad.gather)
    launch_weight_grad<true>(arguments, maps, grad.out.store, config, stream);
  else
    launch_weight_grad<false>(arguments, maps, grad.out.store, config, stream);
}

}  // namespace
}  // namespace wgmma

void down_dw_wgmma_sm90(const DownDw& product, const DeviceRouting& routing, const Sizes& sizes,
                        const KernelConfigBackwardDw& config, cudaStream_t stream) {
  wgmma::weight_grad(ProductId::down_dw,
                     {.d_out = product.d_second_gemm,
                      .rows = product.intermediate,
                      .out = product.d_down_proj,
                      .height = sizes.config.hidden_size,
                      .width = sizes.config.moe_intermediate_size,
                      .gather = false,
                      .beside_previous = product.beside_previous},
                     routing, sizes, config, stream);
}

void gate_up_dw_wgmma_sm90(const GateUpDw& product, const DeviceRouting& routing, const Sizes& sizes,
                           const KernelConfigBackwardDw& config, cudaStream_t stream) {
  wgmma::weight_grad(ProductId::gate_up_dw,
                     {.d_out = product.d_first_gemm,
                      .rows = product.x,
                      .out = product.d_gate_up_proj,
                      .height = 2 * std::int64_t{sizes.config.moe_intermediate_size},
                      .width = sizes.config.hidden_size,
                      .gather = product.gather,
                      .beside_previous = product.beside_previous},
                     routing, sizes, config, stream);
}

}  // namespace assay::gpu
