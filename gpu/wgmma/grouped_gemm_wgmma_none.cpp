// The wgmma variant where architecture 90a is not compiled in: it says so and is never chosen.
#include "gpu/cuda_check.h"
#include "gpu/kernels/grouped_gemm.h"
#include "gpu/kernels/grouped_gemm_grad.h"
#include "gpu/kernels/router_wgmma.h"

namespace assay::gpu {
namespace {

void refuse() { ASSAY_CHECK(false, "expected kernels built for 90a, found a build without them"); }

}  // namespace

bool has_wgmma_sm90() { return false; }

bool wide_tiles_wgmma_sm90(const KernelConfigForward&, const Sizes&) { return false; }

void gate_up_wgmma_sm90(const GateUp&, const DeviceRouting&, const Sizes&, const KernelConfigForward&,
                        cudaStream_t) {
  refuse();
}

void down_wgmma_sm90(const Down&, const DeviceRouting&, const Sizes&, const KernelConfigForward&,
                     cudaStream_t) {
  refuse();
}

void down_dx_wgmma_sm90(const DownDx&, const DeviceRouting&, const Sizes&, const KernelConfigForward&,
                        cudaStream_t) {
  refuse();
}

void down_dx_fp32_wgmma_sm90(const DownDxFp32&, const DeviceRouting&, const Sizes&,
                             const KernelConfigForward&, cudaStream_t) {
  refuse();
}

void gate_up_dx_wgmma_sm90(const GateUpDx&, const DeviceRouting&, const Sizes&, const KernelConfigForward&,
                           cudaStream_t) {
  refuse();
}

void down_dw_wgmma_sm90(const DownDw&, const DeviceRouting&, const Sizes&, const KernelConfigBackwardDw&,
                        cudaStream_t) {
  refuse();
}

void gate_up_dw_wgmma_sm90(const GateUpDw&, const DeviceRouting&, const Sizes&, const KernelConfigBackwardDw&,
                           cudaStream_t) {
  refuse();
}

void router_wgmma_sm90(const RouterProduct&, const Sizes&, cudaStream_t) { refuse(); }

bool router_chooses_wgmma_sm90(const Sizes&) { return false; }

void router_topk_wgmma_sm90(const RouterProduct&, const DeviceRouting&, const Sizes&, cudaStream_t) {
  refuse();
}

void router_dx_wgmma_sm90(const RouterGrad&, const Sizes&, cudaStream_t) { refuse(); }

void router_dw_wgmma_sm90(const RouterGrad&, const Sizes&, cudaStream_t) { refuse(); }

void merge_sm90(const bf16*, const std::int32_t*, const bf16*, bf16*, Rounding, const Sizes&, cudaStream_t) {
  refuse();
}

}  // namespace assay::gpu
