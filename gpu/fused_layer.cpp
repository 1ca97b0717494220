#include "gpu/fused_layer.h"

#include "gpu/fused_launches.h"
#include "gpu/kernels/grouped_gemm.h"
#include "harness/contract/precision_contract.h"

namespace assay::gpu {
namespace {

bool stores_first_gemm(const GpuOptions& options, bool backward) {
  return backward || (options.debug_fields && find_contract(options.contract).first_gemm == Store::Bf16);
}

}  // namespace

FusedWorkspace::FusedWorkspace(const Sizes& sizes, const GpuOptions& options, bool backward)
    : routing(sizes),
      logits("router_logits", sizes.tokens * sizes.config.num_experts),
      permuted("permuted input", elements_if(!options.permute_x, sizes.slots(), sizes.config.hidden_size)),
      first_gemm("first_gemm", elements_if(stores_first_gemm(options, backward), sizes.slots(),
                                           2 * sizes.config.moe_intermediate_size)),
      intermediate("intermediate", sizes.slots() * sizes.config.moe_intermediate_size),
      rows(options.permute_y ? "hidden_states_unpermute" : "second_gemm",
           sizes.slots() * sizes.config.hidden_size),
      out("hidden_states", sizes.tokens * sizes.config.hidden_size) {}

void FusedWorkspace::verify_guards() const {
  routing.verify_guards();
  for (const auto* buffer : {&logits, &permuted, &first_gemm, &intermediate, &rows, &out})
    buffer->verify_guards();
}

void FusedWorkspace::poison() {
  routing.poison();
  for (auto* buffer : {&logits, &permuted, &first_gemm, &intermediate, &rows, &out}) buffer->poison();
}

std::vector<DeviceBytes> device_results(const FusedWorkspace& workspace) {
  const auto& routing = workspace.routing;
  return {bytes_of(workspace.logits),     bytes_of(routing.selected_experts), bytes_of(routing.topk_weights),
          bytes_of(routing.counts),       bytes_of(routing.gather_indices),   bytes_of(routing.row_of_slot),
          bytes_of(workspace.first_gemm), bytes_of(workspace.intermediate),   bytes_of(workspace.rows),
          bytes_of(workspace.out)};
}

std::vector<unsigned char> results(const FusedWorkspace& workspace) {
  return download(device_results(workspace));
}

void require_runnable(const Sizes& sizes, const GpuOptions& options) {
  rounding_of(options.contract, "gpu_fused");
  if (auto reason = invalid(options)) throw UsageError(*reason);
  if (auto reason = gpu_unavailable()) throw InputError(*reason);
  if (auto reason = gpu_unsupported(sizes)) throw InputError(*reason);
  if (auto reason = gpu_unsupported(options.kernel_config_fwd, sizes)) throw InputError(*reason);
  if (options.kernel_config_bwd_dX)
    if (auto reason = gpu_unsupported(*options.kernel_config_bwd_dX, sizes)) throw InputError(*reason);
  const bool asks_for_wgmma =
      options.kernel_config_fwd.variant == "wgmma_sm90" ||
      (options.kernel_config_bwd_dX && options.kernel_config_bwd_dX->variant == "wgmma_sm90") ||
      options.kernel_config_bwd_dW.variant == "wgmma_sm90";
  if (asks_for_wgmma && !has_wgmma_sm90())
    throw InputError(
        "expected a device of compute capability 9.0 and kernels built for 90a for variant wgmma_sm90, found "
        "neither or one");
}

std::string variant_of(const GpuOptions& options) {
  if (options.kernel_config_fwd.variant != "auto") return options.kernel_config_fwd.variant;
  return has_wgmma_sm90() ? "wgmma_sm90" : "mma_sm80";
}

std::string variant_of(const std::string& of_config, const GpuOptions& options) {
  return of_config == "auto" ? variant_of(options) : of_config;
}

DeviceRouting routing_of(const FusedWorkspace& workspace, const Sizes& sizes, const GpuOptions& options) {
  return workspace.routing.view(variant_of(options) == "wgmma_sm90" &&
                                wide_tiles_wgmma_sm90(options.kernel_config_fwd, sizes));
}

void launch_fused(const DeviceProblem& problem, const FusedWorkspace& workspace, const GpuOptions& options,
                  cudaStream_t stream) {
  launch_pass(Pass::Forward, fused_run(problem, workspace, options), stream);
}

}  // namespace assay::gpu
