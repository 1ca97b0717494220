#include "gpu/pipeline.h"

#include <cuda_runtime.h>

namespace assay {

std::optional<std::string> gpu_unavailable() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaErrorInsufficientDriver)
    return "no GPU can be used here: there is no NVIDIA driver, or one older than CUDA " +
           std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION / 10 % 100);
  if (status != cudaSuccess) return std::string("no GPU can be used here: ") + cudaGetErrorString(status);
  if (devices == 0) return "no GPU can be used here: the driver lists no device";
  return std::nullopt;
}

}  // namespace assay
