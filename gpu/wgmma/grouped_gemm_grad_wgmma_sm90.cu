// Gradients of the grouped products' rows for Hopper: the forward kernel (wgmma_kernel.cuh) over the same
// tiles, with the weights read as HuggingFace stores them, K along their rows.
#include "gpu/kernels/grouped_gemm.h"
#include "gpu/kernels/grouped_gemm_grad.h"
#include "gpu/wgmma/wgmma_kernel.cuh"

namespace assay::gpu {
namespace wgmma {
namespace {

/// rows [S, depth], weights [E, depth, columns], out or sums [S, columns].
struct RowsGrad {
  const bf16* rows;
  const bf16* weights;
  bf16* out;
  float* sums;
  std::int64_t depth;
  std::int64_t columns;
};

template <ProductId kProduct, TileLayout kLayout, Rounding kRounding>
void rows_grad(const RowsGrad& product, Arguments arguments, const Sizes& sizes,
               const KernelConfigForward& config, cudaStream_t stream) {
  // Wide tiles leave in passes, and the room that saves is a stage's.
  arguments.stages = kLayout == TileLayout::Wide ? config.pipeline_depth_gate_up : config.pipeline_depth_down;
  const MapAxis axes[] = {{product.columns, 1, 64},
                          {product.depth, product.columns, kBoxDepth},
                          {sizes.config.num_experts, product.depth * product.columns, 1}};
  const CUtensorMap weights = tensor_map(product.weights, axes, 3);
  const auto rows = [&](int box) { return matrix_map(product.rows, sizes.slots(), product.depth, box); };
  const auto out = [&](int box) {
    return kSumsLeave<kProduct, kRounding> ? CUtensorMap{}
                                           : matrix_map(product.out, sizes.slots(), product.columns, box);
  };
  const Maps maps{rows(TileShape<kLayout>::kBoxRows),   rows(kGranule), weights, weights,
                  out(TileShape<kLayout>::kOutBoxRows), out(kGranule)};
  launch<kProduct, kLayout, false>(grouped_gemm_kernel<kProduct, false, kRounding, false, kLayout, false>,
                                   arguments, maps, sizes, config, stream);
}

template <ProductId kProduct, Rounding kRounding = Rounding::Hf>
void rows_grad(const RowsGrad& product, Arguments arguments, const Sizes& sizes,
               const KernelConfigForward& config, cudaStream_t stream) {
  ASSAY_CHECK(sizes.config.hidden_size % 8 == 0 && sizes.config.moe_intermediate_size % 8 == 0,
              "expected sizes to be multiples of 8");
  if (sizes.slots() == 0) return;
  arguments.counter = counter_of(kProduct, arguments.routing);
  arguments.out = product.out;
  arguments.sums = product.sums;
  arguments.rows = sizes.slots();
  arguments.depth = static_cast<int>(product.depth);
  arguments.columns = static_cast<int>(product.columns);
  arguments.raster_rows = config.raster_rows;
  arguments.cluster = cluster_of(config, sizes);
  with_layout(layout_of(config, sizes, (product.columns + 255) / 256), [&](auto chosen) {
    rows_grad<kProduct, decltype(chosen)::value, kRounding>(product, arguments, sizes, config, stream);
  });
}

}  // namespace
}  // namespace wgmma

void down_dx_wgmma_sm90(const DownDx& product, const DeviceRouting& routing, const Sizes& sizes,
                        const KernelConfigForward& config, cudaStream_t stream) {
  ASSAY_CHECK(product.d_intermediate != nullptr, "expected room for the intermediate's gradient");
  wgmma::Arguments arguments{};
  arguments.routing = routing;
  wgmma::rows_grad<ProductId::down_dx>({.rows = product.d_second_gemm,
                                        .weights = product.down_proj,
                                        .out = product.d_intermediate,
                                        .sums = nullptr,
                                        .depth = sizes.config.hidden_size,
                                        .columns = sizes.config.moe_intermediate_size},
                                       arguments, sizes, config, stream);
  // A step of its own: behind the sums of a tile it would be as slow as they are, and the tensor core idle.
  swiglu_grad_sm90(product.d_intermediate, product.first_gemm, product.d_first_gemm, sizes, stream);
}

void down_dx_fp32_wgmma_sm90(const DownDxFp32& product, const DeviceRouting& routing, const Sizes& sizes,
                             const KernelConfigForward& config, cudaStream_t stream) {
  wgmma::Arguments arguments{};
  arguments.routing = routing;
  wgmma::rows_grad<ProductId::down_dx, Rounding::FusedFp32>({.rows = product.d_out,
                                                             .weights = product.down_proj,
                                                             .out = nullptr,
                                                             .sums = product.products,
                                                             .depth = sizes.config.hidden_size,
                                                             .columns = sizes.config.moe_intermediate_size},
                                                            arguments, sizes, config, stream);
}

void gate_up_dx_wgmma_sm90(const GateUpDx& product, const DeviceRouting& routing, const Sizes& sizes,
                           const KernelConfigForward& config, cudaStream_t stream) {
  wgmma::Arguments arguments{};
  arguments.routing = routing;
  wgmma::rows_grad<ProductId::gate_up_dx>({.rows = product.d_first_gemm,
                                           .weights = product.gate_up_proj,
                                           .out = product.d_rows,
                                           .sums = nullptr,
                                           .depth = 2 * std::int64_t{sizes.config.moe_intermediate_size},
                                           .columns = sizes.config.hidden_size},
                                          arguments, sizes, config, stream);
}

}  // namespace assay::gpu
