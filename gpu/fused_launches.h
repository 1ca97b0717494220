// The fused layer as a list of launches: what runs it, times it and checks it walks this table.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "gpu/fused_gradients.h"
#include "gpu/fused_layer.h"
#include "harness/contract/layer.h"

namespace assay::gpu {

/// What the launches of one run work on.
struct FusedRun {
  const DeviceProblem& problem;
  const FusedWorkspace& workspace;
  const GpuOptions& options;
  Rounding rounding;
  DeviceRouting routing;
  // The grouped products are those for Hopper: forward, gradients of rows, gradients of weights.
  bool wgmma;
  bool wgmma_dx;
  bool wgmma_dw;
  const FusedGradients* gradients = nullptr;  // of a run with a backward pass
};
FusedRun fused_run(const DeviceProblem& problem, const FusedWorkspace& workspace, const GpuOptions& options);

/// What a launch depends on besides sizes of the kernel: experts that have rows.
struct LaunchSizes {
  double tokens;
  double rows;
  double hidden;
  double inter;
  double experts;
  double experts_hit;
};

/// Useful operations and least bytes: weights of the experts hit, rows once. No bytes where no limit is
/// known.
struct LaunchCost {
  double flops = 0.0;
  double bytes = 0.0;
};

/// Where a launch of a pass runs: on its stream; on a branch beside it, which begins where the first such
/// launch stands; or on the stream again, behind the branch.
enum class Lane { Stream, Beside, Joined };

struct FusedLaunch {
  std::string_view name;
  std::optional<ProductId> product;
  bool (*wanted)(const GpuOptions& options);
  void (*launch)(const FusedRun& run, cudaStream_t stream);
  LaunchCost (*cost)(const LaunchSizes& sizes);
  Lane lane = Lane::Stream;
};

/// Of a pass, in the order of the stream, those wanted by other options included. The backward pass works on
/// what the forward pass left in the workspace.
enum class Pass { Forward, Backward };
std::span<const FusedLaunch> fused_launches(Pass pass);

/// How the gradients of rows run: their own config or the forward pass's.
const KernelConfigBackwardDx& config_of_dx(const GpuOptions& options);

/// What the gradients of rows need beside what the forward pass left: row tiles of their own where they do
/// not walk the forward pass's. Part of the backward pass's first launch.
void order_backward_tiles(const FusedRun& run, cudaStream_t stream);

/// fused_backward_launches.cpp
std::span<const FusedLaunch> backward_launches();

/// Launches one pass on `stream`.
void launch_pass(Pass pass, const FusedRun& run, cudaStream_t stream);

/// Of the launches these options want, in their order.
std::vector<ProductId> fused_products(Pass pass, const GpuOptions& options);

}  // namespace assay::gpu
