// The wgmma variant where architecture 90a is not compiled in: it says so and is never chosen.
#include "gpu/cuda_check.h"
#include "gpu/kernels/grouped_gemm.h"

namespace assay::gpu {

bool has_wgmma_sm90() { return false; }

bool wide_tiles_wgmma_sm90(const KernelConfigForward&, const Sizes&) { return false; }

void gate_up_wgmma_sm90(const GateUp&, const DeviceRouting&, const Sizes&, const KernelConfigForward&,
                        cudaStream_t) {
  ASSAY_CHECK(false, "expected kernels built for 90a, found a build without them");
}

void down_wgmma_sm90(const Down&, const DeviceRouting&, const Sizes&, const KernelConfigForward&,
                     cudaStream_t) {
  ASSAY_CHECK(false, "expected kernels built for 90a, found a build without them");
}

}  // namespace assay::gpu
