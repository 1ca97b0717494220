// The grouped products of the forward pass for Hopper (wgmma_kernel.cuh).
#include "gpu/kernels/grouped_gemm.h"

#include "gpu/wgmma/wgmma_kernel.cuh"

namespace assay::gpu {
namespace wgmma {
namespace {

// Weights that are read once, for most experts have one tile, go first when the L2 needs room: what the rows
// need stays.
std::uint64_t policy_of_gate_up(const Sizes& sizes) {
  const bool read_once = sizes.slots() <= kTileRows * sizes.config.num_experts;
  return read_once && sizes.tokens > kNarrowTileRows ? ptx::kFirstToGo : ptx::kKept;
}

// The same, but only where few rows are written: many push out weights that have just come and are not used
// yet.
std::uint64_t policy_of_down(const Sizes& sizes) {
  constexpr std::int64_t kFewBytes = std::int64_t{8} << 20;
  const auto bytes = static_cast<std::int64_t>(sizeof(bf16)) * sizes.slots() * sizes.config.hidden_size;
  return bytes <= kFewBytes ? policy_of_gate_up(sizes) : ptx::kKept;
}

// Few tokens' tiles all end at about the same time. Elements of an expert, which has at most every token
// once, are counted in 32 bits.
bool products_overlap(const Sizes& sizes) {
  return sizes.tokens > kNarrowTileRows &&
         sizes.tokens * sizes.config.moe_intermediate_size < (std::int64_t{1} << 32);
}

template <Rounding kRounding, TileLayout kLayout, bool kHalves>
Kernel<kHalves> gate_up_kernel(bool gather) {
  return gather ? grouped_gemm_kernel<ProductId::gate_up, true, kRounding, false, kLayout, kHalves>
                : grouped_gemm_kernel<ProductId::gate_up, false, kRounding, false, kLayout, kHalves>;
}

template <TileLayout kLayout>
void gate_up(const GateUp& product, const Arguments& arguments, const Sizes& sizes,
             const KernelConfigForward& config, cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  // Eight gate rows, then the eight up rows that belong to them, and so on: an axis of its own brings the
  // halves together.
  const auto weights = [&](int columns) {
    const MapAxis axes[] = {{hidden, 1, kBoxDepth},
                            {8, hidden, 8},
                            {2, inter * hidden, 2},
                            {inter / 8, 8 * hidden, columns / 16},
                            {sizes.config.num_experts, 2 * inter * hidden, 1}};
    return tensor_map(product.gate_up_proj, axes, 5);
  };
  const auto rows = [&](int box) {
    return product.gather ? CUtensorMap{} : matrix_map(product.x, sizes.slots(), hidden, box);
  };
  const auto out = [&](int box) { return matrix_map(product.intermediate, sizes.slots(), inter, box); };
  constexpr int kColumns = TileShape<kLayout>::kColumns;
  const Maps maps{
      rows(TileShape<kLayout>::kBoxRows),   rows(kGranule), weights(kColumns), weights(kColumns / 2),
      out(TileShape<kLayout>::kOutBoxRows), out(kGranule)};
  if (product.first_gemm == nullptr)
    return launch<ProductId::gate_up, kLayout, false>(
        product.rounding == Rounding::Hf
            ? gate_up_kernel<Rounding::Hf, kLayout, false>(product.gather)
            : gate_up_kernel<Rounding::FusedFp32, kLayout, false>(product.gather),
        arguments, maps, sizes, config, stream);
  // An axis of its own for the halves: a box that reaches behind the gate half must not reach the up half.
  const auto halves = [&](int box) {
    const MapAxis axes[] = {{inter, 1, kBoxDepth}, {2, inter, 1}, {sizes.slots(), 2 * inter, box}};
    return tensor_map(product.first_gemm, axes, 3);
  };
  const MapsWithHalves with_halves{maps, halves(TileShape<kLayout>::kOutBoxRows), halves(kGranule)};
  launch<ProductId::gate_up, kLayout, true>(
      product.rounding == Rounding::Hf ? gate_up_kernel<Rounding::Hf, kLayout, true>(product.gather)
                                       : gate_up_kernel<Rounding::FusedFp32, kLayout, true>(product.gather),
      arguments, with_halves, sizes, config, stream);
}

template <TileLayout kLayout>
void down(const Down& product, const Arguments& arguments, const Sizes& sizes,
          const KernelConfigForward& config, cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  const auto weights = [&](int columns) {
    const MapAxis axes[] = {
        {inter, 1, kBoxDepth}, {hidden, inter, columns}, {sizes.config.num_experts, hidden * inter, 1}};
    return tensor_map(product.down_proj, axes, 3);
  };
  const auto rows = [&](int box) { return matrix_map(product.intermediate, sizes.slots(), inter, box); };
  const auto out = [&](int box) { return matrix_map(product.out, sizes.slots(), hidden, box); };
  constexpr int kColumns = TileShape<kLayout>::kColumns;
  const Maps maps{
      rows(TileShape<kLayout>::kBoxRows),   rows(kGranule), weights(kColumns), weights(kColumns / 2),
      out(TileShape<kLayout>::kOutBoxRows), out(kGranule)};
  // The rows are rounded as they leave, whatever the contract.
  const Kernel<false> kernel =
      product.scatter ? grouped_gemm_kernel<ProductId::down, false, Rounding::Hf, true, kLayout, false>
                      : grouped_gemm_kernel<ProductId::down, false, Rounding::Hf, false, kLayout, false>;
  launch<ProductId::down, kLayout, false>(kernel, arguments, maps, sizes, config, stream);
}

}  // namespace
}  // namespace wgmma

// Experts of half a tall tile to four of them: there too many of the rows would be padding.
bool wide_tiles_wgmma_sm90(const KernelConfigForward& config, const Sizes& sizes) {
  if (config.tiles != "auto") return config.tiles == "wide";
  return wgmma::rows_between(sizes, kTileRows / 2, 4 * kTileRows);
}

bool has_wgmma_sm90() {
  return device_attribute(cudaDevAttrComputeCapabilityMajor) == 9 &&
         device_attribute(cudaDevAttrComputeCapabilityMinor) == 0;
}

void gate_up_wgmma_sm90(const GateUp& product, const DeviceRouting& routing, const Sizes& sizes,
                        const KernelConfigForward& config, cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  ASSAY_CHECK(hidden % 8 == 0 && inter % 8 == 0, "expected sizes to be multiples of 8");
  ASSAY_CHECK(sizes.tokens * hidden / 8 < (std::int64_t{1} << 32),
              "expected an input below 64 GiB: its 16-byte chunks are counted in 32 bits");
  if (sizes.slots() == 0) return;
  const wgmma::Arguments arguments{.routing = routing,
                                   .counter = counter_of(ProductId::gate_up, routing),
                                   .x = product.x,
                                   .out = product.intermediate,
                                   .sums = nullptr,
                                   .first_gemm = product.first_gemm,
                                   .rows = sizes.slots(),
                                   .depth = static_cast<int>(hidden),
                                   .columns = static_cast<int>(inter),
                                   .column_tiles = 0,  // launch knows
                                   .top_k = static_cast<int>(sizes.config.top_k),
                                   .stages = config.pipeline_depth_gate_up,
                                   .raster_rows = config.raster_rows,
                                   .cluster = wgmma::cluster_of(config, sizes),
                                   .weights_policy = wgmma::policy_of_gate_up(sizes),
                                   .overlaps = wgmma::products_overlap(sizes)};
  const auto layout = wgmma::layout_of(config, sizes, (inter + 127) / 128);
  wgmma::with_layout(layout, [&](auto chosen) {
    wgmma::gate_up<decltype(chosen)::value>(product, arguments, sizes, config, stream);
  });
}

void down_wgmma_sm90(const Down& product, const DeviceRouting& routing, const Sizes& sizes,
                     const KernelConfigForward& config, cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  ASSAY_CHECK(hidden % 8 == 0 && inter % 8 == 0, "expected sizes to be multiples of 8");
  if (sizes.slots() == 0) return;
  const wgmma::Arguments arguments{.routing = routing,
                                   .counter = counter_of(ProductId::down, routing),
                                   .x = product.intermediate,
                                   .out = product.out,
                                   .sums = nullptr,
                                   .first_gemm = nullptr,
                                   .rows = sizes.slots(),
                                   .depth = static_cast<int>(inter),
                                   .columns = static_cast<int>(hidden),
                                   .column_tiles = 0,
                                   .top_k = static_cast<int>(sizes.config.top_k),
                                   .stages = config.pipeline_depth_down,
                                   .raster_rows = config.raster_rows,
                                   .cluster = wgmma::cluster_of(config, sizes),
                                   .weights_policy = wgmma::policy_of_down(sizes),
                                   .overlaps = product.behind_gate_up && wgmma::products_overlap(sizes)};
  const auto layout = wgmma::layout_of(config, sizes, (hidden + 255) / 256);
  wgmma::with_layout(layout, [&](auto chosen) {
    wgmma::down<decltype(chosen)::value>(product, arguments, sizes, config, stream);
  });
}

}  // namespace assay::gpu
