// Launches a kernel so that it may start while the one before it on the stream still runs (compute
// capability 9.0 and newer). Such a kernel calls ptx::wait_for_previous before it touches memory that others
// write or read.
#pragma once

#include "gpu/cuda_check.h"

namespace assay::gpu {

/// Of the current device.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  ASSAY_CUDA(cudaGetDevice(&device));
  ASSAY_CUDA(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

/// A launch's shape. `cluster` blocks, neighbours in x, run at the same time and see each other's shared
/// memory.
struct LaunchShape {
  dim3 grid;
  int threads;
  int shared_bytes = 0;
  int cluster = 1;
};

/// Room for the attributes of a configuration, which points into it.
struct LaunchConfig {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute attributes[2]{};

  template <class Kernel>
  LaunchConfig(Kernel kernel, const LaunchShape& shape, cudaStream_t stream) {
    constexpr int kDefaultSharedBytes = 48 * 1024;
    if (shape.shared_bytes > kDefaultSharedBytes)
      ASSAY_CUDA(
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes));
    config.gridDim = shape.grid;
    config.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
    config.stream = stream;
    config.attrs = attributes;
    if (device_attribute(cudaDevAttrComputeCapabilityMajor) >= 9) {
      auto& overlap = attributes[config.numAttrs++];
      overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      overlap.val.programmaticStreamSerializationAllowed = 1;
    }
    if (shape.cluster > 1) {
      auto& cluster = attributes[config.numAttrs++];
      cluster.id = cudaLaunchAttributeClusterDimension;
      cluster.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
      cluster.val.clusterDim.y = 1;
      cluster.val.clusterDim.z = 1;
    }
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;
};

template <class... Parameters, class... Arguments>
void launch_kernel(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   Arguments&&... arguments) {
  const LaunchConfig launch(kernel, shape, stream);
  ASSAY_CUDA(cudaLaunchKernelEx(&launch.config, kernel, static_cast<Parameters>(arguments)...));
}

/// How many clusters of a kernel that takes whole multiprocessors run at the same time. A cluster's blocks
/// are neighbours on the chip, so that it can be fewer than the multiprocessors would hold.
template <class Kernel>
int resident_clusters(Kernel kernel, LaunchShape shape) {
  const int multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount);
  if (shape.cluster == 1) return multiprocessors;
  shape.grid = dim3(static_cast<unsigned>(multiprocessors / shape.cluster * shape.cluster));
  const LaunchConfig launch(kernel, shape, nullptr);
  int clusters = 0;
  ASSAY_CUDA(cudaOccupancyMaxActiveClusters(&clusters, kernel, &launch.config));
  ASSAY_CHECK(clusters > 0, "expected the device to run clusters of this kernel");
  return clusters;
}

}  // namespace assay::gpu
