// The interface of pipeline.h where no CUDA compiler was found: every run says so.
#include "gpu/pipeline.h"

#include "gpu/autotune.h"
#include "gpu/bench.h"
#include "gpu/engine/gpu_engine.h"
#include "gpu/foreign_device_memory.h"
#include "harness/contract/error.h"

namespace assay {
namespace {
constexpr const char* kNotBuilt =
    "no GPU can be used here: this build has no CUDA (no nvcc was found, or gpu was disabled)";
}

std::optional<std::string> gpu_unavailable() { return kNotBuilt; }
Candidate run_gpu_cublas(const Problem&, const GpuOptions&) { throw InputError(kNotBuilt); }
Candidate run_gpu_cublas_grouped(const Problem&, const GpuOptions&) { throw InputError(kNotBuilt); }
Candidate run_gpu_fused(const Problem&, const GpuOptions&) { throw InputError(kNotBuilt); }
std::unique_ptr<ForeignMemory> foreign_device_memory() { throw InputError(kNotBuilt); }
Candidate candidate_of_device(const std::string&) { throw InputError(kNotBuilt); }
std::optional<Engine> gpu_engine(const LeastWork&, int) { return std::nullopt; }
Tuning<KernelConfigForward> autotune_gpu_fused(const Problem&, const GpuOptions&) {
  throw InputError(kNotBuilt);
}
Tuning<KernelConfigBackwardDx> autotune_gpu_fused_dX(const Problem&, const GpuOptions&) {
  throw InputError(kNotBuilt);
}
Tuning<KernelConfigBackwardDw> autotune_gpu_fused_dW(const Problem&, const GpuOptions&) {
  throw InputError(kNotBuilt);
}
std::string tuning_machine() { throw InputError(kNotBuilt); }
std::vector<GpuBenchmark> bench_gpu_fused(const Problem&, const std::vector<std::int64_t>&, const GpuOptions&,
                                          bool) {
  throw InputError(kNotBuilt);
}

}  // namespace assay
