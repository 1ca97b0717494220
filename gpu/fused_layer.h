// The fused forward layer on device memory: launches only, no synchronisation, so it can be captured in a
// graph.
#pragma once

#include "gpu/device_bytes.h"
#include "gpu/device_problem.h"
#include "gpu/pipeline.h"

namespace assay::gpu {

/// Everything the layer writes. Sized for one problem size and one set of options.
struct FusedWorkspace {
  /// `backward`: what a backward pass reads is stored, whatever the options.
  FusedWorkspace(const Sizes& sizes, const GpuOptions& options, bool backward = false);
  void verify_guards() const;
  void poison();

  RoutingBuffers routing;
  Buffer<bf16> logits;    // [T, E]
  Buffer<bf16> permuted;  // [S, H] without permute_x, else empty
  Buffer<bf16>
      first_gemm;  // [S, 2I] with a backward pass or debug_fields, if the contract has it, else empty
  Buffer<bf16> intermediate;  // [S, I]
  Buffer<bf16> rows;          // [S, H]: second_gemm, or hidden_states_unpermute with permute_y
  Buffer<bf16> out;           // [T, H]
};

/// Everything the layer left behind: equal exactly when every result is.
std::vector<DeviceBytes> device_results(const FusedWorkspace& workspace);
std::vector<unsigned char> results(const FusedWorkspace& workspace);

/// Throws UsageError for a contract or config the layer does not have, InputError for sizes or a device it
/// cannot run on.
void require_runnable(const Sizes& sizes, const GpuOptions& options);

/// Which grouped products `options` mean on the current device: "wgmma_sm90" or "mma_sm80".
std::string variant_of(const GpuOptions& options);

/// The same of gradients: what their config says, or with "auto" the forward pass's.
std::string variant_of(const std::string& of_config, const GpuOptions& options);

/// The workspace's routing, in tiles of these products.
DeviceRouting routing_of(const FusedWorkspace& workspace, const Sizes& sizes, const GpuOptions& options);

/// Launches the layer on `stream`.
void launch_fused(const DeviceProblem& problem, const FusedWorkspace& workspace, const GpuOptions& options,
                  cudaStream_t stream);

}  // namespace assay::gpu
