// What the pipelines accept; the same with and without CUDA.
#include "gpu/kernels/kernel_limits.h"

#include <algorithm>

#include "gpu/pipeline.h"

namespace assay {

std::vector<std::string> gpu_pipelines() { return {"gpu_fused", "gpu_cublas", "gpu_cublas_grouped"}; }

std::optional<std::string> gpu_unsupported(const Sizes& sizes) {
  const auto& config = sizes.config;
  const auto found = [](std::int64_t value) { return ", found " + std::to_string(value); };
  if (auto reason = invalid(config)) return reason;
  if (config.hidden_size % 8 != 0)
    return "expected hidden_size to be a multiple of 8 (16-byte rows)" + found(config.hidden_size);
  if (config.moe_intermediate_size % 8 != 0)
    return "expected moe_intermediate_size to be a multiple of 8 (16-byte rows)" +
           found(config.moe_intermediate_size);
  if (config.num_experts > gpu::kMaxExperts)
    return "expected at most " + std::to_string(gpu::kMaxExperts) +
           " experts (one warp holds a token's probabilities)" + found(config.num_experts);
  if (config.top_k > gpu::kMaxTopK)
    return "expected at most " + std::to_string(gpu::kMaxTopK) + " experts per token (one lane each)" +
           found(config.top_k);
  if (sizes.slots() >= (std::int64_t{1} << 31))
    return "expected fewer than 2^31 routed rows (int32 indices)" + found(sizes.slots());
  return std::nullopt;
}

std::optional<std::string> gpu_unsupported(const KernelConfigForward& config, const Sizes& sizes) {
  if (config.tiles == "narrow" && sizes.tokens > gpu::kNarrowTileRows)
    return "expected at most " + std::to_string(gpu::kNarrowTileRows) +
           " tokens with tiles=narrow (an expert's rows must fit one tile), found " +
           std::to_string(sizes.tokens);
  return std::nullopt;
}

std::optional<std::string> invalid(const GpuOptions& options) {
  if (options.dX_only && options.dW_only) return "expected dX_only or dW_only, found both";
  if (auto reason = invalid(options.kernel_config_fwd)) return reason;
  if (options.kernel_config_bwd_dX)
    if (auto reason = invalid(*options.kernel_config_bwd_dX)) return "of the gradients of rows: " + *reason;
  if (auto reason = invalid(options.kernel_config_bwd_dW)) return "of the gradients of weights: " + *reason;
  return std::nullopt;
}

std::optional<std::string> invalid(const KernelConfigBackwardDw& config) {
  const auto found = [](int value) { return ", found " + std::to_string(value); };
  if (config.variant != "auto" && config.variant != "wgmma_sm90" && config.variant != "mma_sm80")
    return "expected variant to be auto, wgmma_sm90 or mma_sm80, found " + config.variant;
  if (config.tile_order != "height" && config.tile_order != "width")
    return "expected tile_order to be height or width, found " + config.tile_order;
  if (config.pipeline_depth < 2 || config.pipeline_depth > 3)
    return "expected pipeline_depth 2 or 3 (what shared memory holds beside the results)" +
           found(config.pipeline_depth);
  if (config.pipeline_depth_gathered < 2 || config.pipeline_depth_gathered > 4)
    return "expected pipeline_depth_gathered from 2 to 4 (what shared memory holds)" +
           found(config.pipeline_depth_gathered);
  if (config.persistent_blocks < 0)
    return "expected persistent_blocks not to be negative" + found(config.persistent_blocks);
  return std::nullopt;
}

std::optional<std::string> invalid(const KernelConfigForward& config) {
  const auto found = [](auto value) { return ", found " + std::to_string(value); };
  if (config.variant != "auto" && config.variant != "wgmma_sm90" && config.variant != "mma_sm80")
    return "expected variant to be auto, wgmma_sm90 or mma_sm80, found " + config.variant;
  if (config.tiles != "auto" && config.tiles != "tall" && config.tiles != "wide" && config.tiles != "narrow")
    return "expected tiles to be auto, tall, wide or narrow, found " + config.tiles;
  const auto outside = [](int value, int low, int high) { return value < low || value > high; };
  if (outside(config.pipeline_depth_gate_up, 2, 4))
    return "expected pipeline_depth_gate_up from 2 to 4 (what shared memory holds)" +
           found(config.pipeline_depth_gate_up);
  if (outside(config.pipeline_depth_down, 2, 3))
    return "expected pipeline_depth_down 2 or 3 (what shared memory holds beside the results)" +
           found(config.pipeline_depth_down);
  if (outside(config.raster_rows, 1, 64))
    return "expected raster_rows from 1 to 64" + found(config.raster_rows);
  if (config.persistent_blocks < 0)
    return "expected persistent_blocks not to be negative" + found(config.persistent_blocks);
  if (outside(config.cluster, 0, 2)) return "expected cluster 0, 1 or 2" + found(config.cluster);
  if (config.tiles == "narrow" && config.cluster == 2)
    return std::string("expected cluster 0 or 1 with tiles=narrow, found 2");
  if (config.persistent_blocks % std::max(config.cluster, 1) != 0)
    return "expected persistent_blocks to be a multiple of cluster " + std::to_string(config.cluster) +
           found(config.persistent_blocks);
  return std::nullopt;
}

}  // namespace assay
